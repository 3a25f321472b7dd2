"""Calibration data: from files and directories, or held in memory."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxprune.data.conform import Table, collect, full_feed, table
from onnxprune.data.files import load_array, load_arrays
from onnxprune.data.images import IMAGE_SUFFIXES, load_images
from onnxprune.data.loader import load_from_function
from onnxprune.data.samples import Samples, choose
from onnxprune.data.specs import InputSpec
from onnxprune.data.testsets import load_test_set, tensor_number
from onnxprune.errors import InputError
from onnxprune.options import Array, Data

__all__ = ["load_from_function", "load_samples"]

_TAKES = ".npz, .npy, a directory of these, ORT test_data_set_* or a directory of images"


def load_samples(data: Data, specs: Sequence[InputSpec], *, limit: int, seed: int) -> Samples:
    """Read calibration data (``--data``).

    Parameters
    ----------
    data : Path, array, mapping of input name to array, or tuple of feeds
        ``.npz`` (keys are input names), ``.npy`` (one input), a directory of these, a directory
        ``test_data_set_*`` of onnxruntime or one that holds several, or a directory of images.
        Arrays of the input's rank hold samples on axis 0; with one axis more, each entry is a
        full feed. An array is for the only input; several mappings are a full feed each.
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
        what = data if isinstance(data, Path) else "data"
        msg = f"the model has no inputs, so {what} cannot be fed to it"
        raise InputError(msg)
    if isinstance(data, Path):
        return _load_path(data, specs, limit=limit, seed=seed)
    if isinstance(data, np.ndarray):
        return collect([_only(data, "data", specs)], specs, limit=limit, seed=seed)
    if isinstance(data, Mapping):
        return collect([table("data", data, specs)], specs, limit=limit, seed=seed)
    if not data:
        msg = "data gave no feeds"
        raise InputError(msg)
    feeds = [full_feed(f"feed {i} of data", feed, specs) for i, feed in enumerate(data)]
    return collect(feeds, specs, limit=limit, seed=seed)


def _load_path(path: Path, specs: Sequence[InputSpec], *, limit: int, seed: int) -> Samples:
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
        named = {key: load_array(file) for key, file in by_input.items()}
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
    found = collect(
        [read(paths[i], specs) for i in chosen],
        specs,
        limit=limit,
        seed=seed,
        notes=notes if len(chosen) < len(paths) else (),
    )
    return found if len(chosen) == len(paths) else replace(found, origin=None)


def _load_file(path: Path, specs: Sequence[InputSpec]) -> Table:
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return table(str(path), load_arrays(path, {spec.name for spec in specs}), specs)
    if suffix != ".npy":
        msg = f"cannot read {path} as calibration data; --data takes {_TAKES}, else use --loader"
        raise InputError(msg)
    return _only(load_array(path), str(path), specs)


def _only(array: Array, source: str, specs: Sequence[InputSpec]) -> Table:
    """Feed an array to the only input."""
    if len(specs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        hint = "save an .npz with these keys" if source.endswith(".npy") else "give a dict of them"
        msg = f"{source} can feed one input, the model has {names}; {hint}"
        raise InputError(msg)
    return table(source, {specs[0].name: array}, specs)


def _natural(path: Path) -> tuple[tuple[int, str], ...]:
    parts = re.findall(r"\d+|\D+", str(path))
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)
