"""Measured groups on disk, so that a measurement that was broken off goes on where it stopped."""

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.coupling.groups import Group
from onnxprune.errors import UsageError
from onnxprune.runtime.session import Feeds
from onnxprune.sensitivity.values import GroupSensitivity

__all__ = ["Store", "fingerprint"]

_ARRAYS = ("order", "scores", "widths", "errors", "vectors", "halves")


def fingerprint(texts: Iterable[str], feeds: Iterable[Feeds]) -> str:
    """Hash settings and data.

    Parameters
    ----------
    texts : iterable of str
    feeds : iterable of feeds
    """
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    for feed in feeds:
        for name, array in sorted(feed.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode())
            digest.update(
                repr(array.tolist()).encode() if array.dtype == object else array.tobytes()
            )
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of measured groups, one file each, under a key of model, data and settings.

    Attributes
    ----------
    folder : Path
    key : str
        Of `fingerprint`.
    """

    folder: Path
    key: str

    def load(self, group: Group) -> GroupSensitivity | None:
        """Return what was measured of a group before; None where there is nothing.

        Raises
        ------
        ValueError
            If the file is spoilt.
        """
        path = self._path(group)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in _ARRAYS if name in file}
                found = GroupSensitivity(method=str(file["method"]), **arrays)  # type: ignore[arg-type]
        except (OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise ValueError(str(error)) from error
        if sorted(found.order.tolist()) != list(range(group.size)):
            msg = "its order is none of this group's channels"
            raise ValueError(msg)
        return found

    def save(self, group: Group, found: GroupSensitivity) -> None:
        """Keep a group, whole or not at all; not what time has cut short.

        Raises
        ------
        UsageError
            If the folder cannot be written.
        """
        if found.samples is not None:
            return
        arrays = {name: getattr(found, name) for name in _ARRAYS}
        given = {name: array for name, array in arrays.items() if array is not None}
        path = self._path(group)
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                np.savez(file, method=np.array(found.method), **given)
            draft.replace(path)
        except OSError as error:
            msg = f"--cache {self.folder}: cannot write there: {error.strerror or error}"
            raise UsageError(msg) from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    def _path(self, group: Group) -> Path:
        name = hashlib.sha256(group.name.encode()).hexdigest()[:16]
        return self.folder / f"sensitivity-{self.key[:16]}" / f"{name}.npz"
