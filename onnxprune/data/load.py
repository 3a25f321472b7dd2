"""Calibration data from files and directories."""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.conform import Table, collect, table
from onnxprune.data.images import IMAGE_SUFFIXES, load_images
from onnxprune.data.loader import load_from_function
from onnxprune.data.samples import Samples, choose
from onnxprune.data.specs import InputSpec
from onnxprune.data.testsets import load_test_set, tensor_number
from onnxprune.errors import InputError

__all__ = ["load_from_function", "load_samples"]

Arrays = Mapping[str, NDArray[np.generic]]

_TAKES = ".npz, .npy, a directory of these, ORT test_data_set_* or a directory of images"


def load_samples(path: Path, specs: Sequence[InputSpec], *, limit: int, seed: int) -> Samples:
    """Read calibration data (``--data``).

    Parameters
    ----------
    path : Path
        ``.npz`` (keys are input names), ``.npy`` (one input), a directory of these, a directory
        ``test_data_set_*`` of onnxruntime or one that holds several, or a directory of images.
        Arrays of the input's rank hold samples on axis 0; with one axis more, each entry is a
        full feed.
    specs : sequence of InputSpec
    limit : int
        Most samples to take; a random subset, in order, where there are more.
    seed : int

    Raises
    ------
    InputError
        If the data is missing, unreadable or does not fit the model.
    """
    if not specs:
        msg = f"the model has no inputs, so {path} cannot be fed to it"
        raise InputError(msg)
    if path.is_dir():
        try:
            return _load_directory(path, specs, limit=limit, seed=seed)
        except OSError as error:
            msg = f"cannot read directory {path}: {error.strerror}"
            raise InputError(msg) from error
    if not path.is_file():
        why = "is neither a file nor a directory" if path.exists() else "does not exist"
        msg = f"calibration data {path} {why}"
        raise InputError(msg)
    return collect([_load_file(path, specs)], specs, limit=limit, seed=seed)


def _load_directory(path: Path, specs: Sequence[InputSpec], *, limit: int, seed: int) -> Samples:
    files = _visible_files(path.iterdir(), path)
    sets = _test_sets(path)
    if sets:
        return _sample(sets, load_test_set, specs, limit=limit, seed=seed)
    arrays = [f for f in files if f.suffix.lower() in (".npz", ".npy")]
    by_input = {f.stem: f for f in arrays if f.suffix.lower() == ".npy"}
    if all(spec.name in by_input for spec in specs):
        named = {key: _load_array(file) for key, file in by_input.items()}
        return collect([table(str(path), named, specs)], specs, limit=limit, seed=seed)
    if arrays:
        return _sample(arrays, _load_file, specs, limit=limit, seed=seed)
    # Images alone are looked for in subdirectories: they commonly lie in one per class.
    images = [
        f for f in _visible_files(path.rglob("*"), path) if f.suffix.lower() in IMAGE_SUFFIXES
    ]
    if images:
        return load_images(images, specs, limit=limit, seed=seed)
    msg = f"directory {path} holds no calibration data; --data takes {_TAKES}"
    raise InputError(msg)


def _visible_files(paths: Iterable[Path], root: Path) -> list[Path]:
    def visible(path: Path) -> bool:
        return not any(part.startswith(".") for part in path.relative_to(root).parts)

    return sorted((p for p in paths if visible(p) and p.is_file()), key=_natural)


def _test_sets(path: Path) -> list[Path]:
    """Return the directories with ``input_N.pb``: the given one and those right under it."""
    folders = [path, *(child for child in path.iterdir() if child.is_dir())]
    found = (f for f in folders if any(tensor_number(file) is not None for file in f.iterdir()))
    return sorted(found, key=_natural)


def _sample(
    paths: Sequence[Path],
    read: Callable[[Path, Sequence[InputSpec]], Table],
    specs: Sequence[InputSpec],
    *,
    limit: int,
    seed: int,
) -> Samples:
    # Each path gives at least one sample: more than `limit` of them need not be opened.
    chosen = choose(len(paths), limit, seed)
    notes = [f"read {len(chosen)} of {len(paths)} files (seed {seed})"]
    return collect(
        [read(paths[i], specs) for i in chosen],
        specs,
        limit=limit,
        seed=seed,
        notes=notes if len(chosen) < len(paths) else (),
    )


def _load_file(path: Path, specs: Sequence[InputSpec]) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return table(str(path), _load_arrays(path, specs), specs)
    if suffix != ".npy":
        msg = f"cannot read {path} as calibration data; --data takes {_TAKES}, else use --loader"
        raise InputError(msg)
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        msg = f"{path} can feed one input, the model has {names}; save an .npz with these keys"
        raise InputError(msg)
    return table(str(path), {specs[0].name: _load_array(path)}, specs)


def _load_array(path: Path) -> NDArray[np.generic]:
    with _readable(path):
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        loaded.close()
    msg = f"{path} is an .npz archive; give it that suffix"
    raise InputError(msg)


def _load_arrays(path: Path, specs: Sequence[InputSpec]) -> Arrays:
    """Load the arrays of the inputs; other keys come empty, they may be of any kind."""
    names = {spec.name for spec in specs}
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


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r"\d+|\D+", str(path))
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
