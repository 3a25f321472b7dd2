"""Files appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from onnxprune.errors import UsageError

__all__ = ["LARGEST_PROTO", "drafts", "write_text"]

# Protobuf refuses to serialize more than 2 GiB; stay clear of it, the graph itself needs room too.
LARGEST_PROTO = 1_900_000_000


@contextmanager
def drafts(*targets: Path) -> Iterator[list[Path]]:
    """Lend a temporary file per target; when the block ends well, all take their places.

    Parameters
    ----------
    *targets : Path
        In one folder or several; the last one is the file that refers to the others.

    Yields
    ------
    list of Path
        Beside their targets, not there yet; each must be filled and closed.

    Raises
    ------
    UsageError
        If the disk is full, a folder is missing or may not be written. Whatever is raised,
        what was there before is there again, and nothing else is.
    """
    made = [target.with_name(f".onnxprune-{secrets.token_hex(6)}.tmp") for target in targets]
    try:
        yield made
        for draft in made:
            _flush(draft, os.O_RDWR)
        _publish(made, targets)
    except OSError as error:
        why = error.strerror or error
        msg = f"cannot write {targets[-1]}: {why}; nothing was written, choose another place"
        raise UsageError(msg) from error
    finally:
        for draft in made:
            draft.unlink(missing_ok=True)
    for folder in {target.parent for target in targets}:
        with suppress(OSError):  # the files are whole; some file systems cannot flush a folder
            _flush(folder, os.O_RDONLY)


def write_text(target: Path, text: str) -> None:
    """Write a small text file; straight into pipes and devices, which have no other half.

    Raises
    ------
    UsageError
        If it cannot be written.
    """
    if target.exists() and not target.is_file() and not target.is_dir():
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            msg = f"cannot write {target}: {error.strerror or error}"
            raise UsageError(msg) from error
        return
    with drafts(target.resolve()) as made:
        made[0].write_text(text, encoding="utf-8")


def _publish(made: Sequence[Path], targets: Sequence[Path]) -> None:
    if len(targets) == 1:
        os.replace(made[0], targets[0])  # noqa: PTH105  (one place that tests can break)
        return
    moves = list(zip(made, targets, strict=True))
    aside: list[Path] = []
    with ExitStack() as undo:
        # Old files step aside first, the model before its data: wherever a crash falls, no model
        # is left beside data that is not its own.
        for draft, target in reversed(moves):
            if target.exists():
                old = draft.with_suffix(".old")
                os.replace(target, old)  # noqa: PTH105
                undo.callback(os.replace, old, target)
                aside.append(old)
        for draft, target in moves:
            os.replace(draft, target)  # noqa: PTH105
            undo.callback(target.unlink)
        undo.pop_all()
    for old in aside:
        old.unlink()


def _flush(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
