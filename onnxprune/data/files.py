"""Arrays from files that somebody hands us."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxprune.errors import InputError

__all__ = ["load_array", "load_arrays"]

Array = NDArray[np.generic]


def load_array(path: Path) -> Array:
    """Load an ``.npy``, mapped from the disk.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no plain array.
    """
    with _readable(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        loaded.close()
    msg = f"{path} is an .npz archive; give it that suffix"
    raise InputError(msg)


def load_arrays(path: Path, names: Collection[str]) -> Mapping[str, Array]:
    """Load some arrays of an ``.npz``; other keys come empty, they may be of any kind.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no plain arrays.
    """
    with _readable(path):
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            msg = "it is an .npy array"
            raise ValueError(msg)
        with loaded:
            arrays = {key: loaded[key] if key in names else np.empty(0) for key in loaded.files}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        msg = f"{path} is a zip archive but not one of NumPy arrays; save it with np.savez"
        raise InputError(msg)
    return arrays


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what NumPy raises on a bad file into one line."""
    try:
        if path.stat().st_size == 0:
            msg = f"{path} is empty"
            raise InputError(msg)
        with path.open("rb") as file:
            if file.read(20).startswith(b"version https://git-"):
                msg = f"{path} is a git-lfs pointer, not the data; run git lfs pull"
                raise InputError(msg)
        yield
    except InputError:
        raise
    except Exception as error:  # of its own, of zipfile, zlib, mmap, tokenize and ast
        text = str(error)
        if any(word in text for word in ("pickle", "Object arrays", "Python objects")):
            text = "it is pickled or no NumPy file; save plain arrays (a pickle can run code)"
        lines = text.splitlines()
        msg = f"cannot read {path}: {lines[0] if lines else type(error).__name__}"
        raise InputError(msg) from error
