"""Where data outside the model file lies, and whether it may be read.

The rule is onnxruntime's: what a location leads to, links followed, must lie in the folder that
the model was opened from or in the real folder of the model file. So caches that link model and
data into one folder of blobs work, and a model cannot read the rest of the disk.
"""

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NoReturn

from onnx import TensorProto

from onnxprune.errors import InputError

__all__ = ["Place", "external_files", "is_external", "locate", "refuse"]

_KEYS = {"location", "offset", "length", "checksum"}


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a regular file; ``offset`` and ``length`` in bytes."""

    path: Path
    offset: int
    length: int


def is_external(tensor: TensorProto) -> bool:
    """Say whether a tensor's data lies in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def locate(tensor: TensorProto, base: Path, wanted: int) -> Place:
    """Find the bytes of an external tensor without opening anything.

    Parameters
    ----------
    tensor : TensorProto
    base : Path
        The model file, or its folder; only the file itself says where a linked model really is.
    wanted : int
        Bytes that the tensor's shape and type ask for.

    Returns
    -------
    Place
        Inside a regular file.

    Raises
    ------
    InputError
        If the entries are malformed, or the file is missing, lies elsewhere or is too short.
    """
    entries = _entries(tensor, base)
    path = _file(tensor, entries["location"], base)
    offset = _number(tensor, base, entries.get("offset", "0"))
    length = _number(tensor, base, entries.get("length", str(wanted)))
    if length != wanted:
        why = f"needs {wanted} bytes but names {length} of {path.name}"
        refuse(tensor, base, why)
    size = path.stat().st_size
    if offset + length > size:
        why = f"lies at bytes {offset} to {offset + length} of {path.name}, which has only {size}"
        refuse(tensor, base, f"{why}; fetch the data file again")
    return Place(path, offset, length)


def external_files(tensors: Iterable[TensorProto], base: Path) -> dict[str, Path]:
    """Map the locations that tensors name to real files, in order of the names.

    Raises
    ------
    InputError
        As `locate`.
    """
    first: dict[str, TensorProto] = {}
    for tensor in tensors:
        if is_external(tensor):
            first.setdefault(_entries(tensor, base)["location"], tensor)
    return {location: _file(first[location], location, base) for location in sorted(first)}


def refuse(tensor: TensorProto, base: Path, why: str) -> NoReturn:
    """Raise InputError about one tensor; names come from the file, so they are kept short."""
    msg = f"{base}: tensor {tensor.name!r:.80} {why}"
    raise InputError(msg)


def _entries(tensor: TensorProto, base: Path) -> dict[str, str]:
    texts = [text for entry in tensor.external_data for text in (entry.key, entry.value)]
    if any(isinstance(text, bytes) for text in texts):  # how protobuf gives what is no UTF-8
        refuse(tensor, base, "has external data entries that are no UTF-8 text")
    keys = [entry.key for entry in tensor.external_data]
    unknown = sorted(set(keys) - _KEYS)
    if unknown:
        refuse(tensor, base, f"has the unknown external data entry {unknown[0]!r:.40}")
    if len(keys) != len(set(keys)) or "location" not in keys:
        refuse(tensor, base, "must name every external data entry once, and a location")
    return {entry.key: entry.value for entry in tensor.external_data}


def _file(tensor: TensorProto, location: str, base: Path) -> Path:
    windows = PureWindowsPath(location)
    absolute = PurePosixPath(location).is_absolute() or windows.anchor
    if not location or absolute or ".." in windows.parts:
        refuse(tensor, base, f"names data outside the model's folder ({location!r:.80})")
    folder = base if base.is_dir() else base.parent
    try:
        real = (folder / location).resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError
        why = f"keeps its data in {location!r:.80}, which cannot be found in {folder}"
        msg = f"{base}: tensor {tensor.name!r:.80} {why}; put it beside the model"
        raise InputError(msg) from error
    roots = {folder.resolve(), folder.resolve() if base.is_dir() else base.resolve().parent}
    if not any(real.is_relative_to(root) for root in roots):
        why = f"names data that a link leads out of the model's folder ({location!r:.80})"
        refuse(tensor, base, why)
    if not stat.S_ISREG(mode):
        refuse(tensor, base, f"keeps its data in {location!r:.80}, which is no regular file")
    return real


def _number(tensor: TensorProto, base: Path, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        refuse(tensor, base, f"has {text!r:.40} for the offset or length of its external data")
    return int(text)
