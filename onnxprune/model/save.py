"""Writing: a file appears whole or not at all, and nothing of the source is touched."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import TensorProto

from onnxprune.errors import OnnxPruneError, UsageError
from onnxprune.model.load import Model
from onnxprune.model.tensors import external_file, is_external, iter_tensors, to_array

__all__ = ["check_target", "copy", "write", "write_text"]

_LARGEST_FILE = 1_900_000_000  # protobuf serializes no more than 2 GiB
_SMALLEST_EXTERNAL = 1024  # bytes; small tensors stay inside, where shape inference reads them
_PAGE = 4096


def check_target(source: Path, target: Path, *, force: bool) -> None:
    """Refuse a target that would lose something.

    Raises
    ------
    UsageError
    """
    if target.is_dir():
        msg = f"{target} is a folder; name the file to write"
    elif target.exists() and source.exists() and target.samefile(source):
        msg = f"{target} is the input itself; name another file to write"
    elif target.exists() and not force:
        msg = f"{target} exists; give --force to replace it"
    elif not target.absolute().parent.is_dir():
        msg = f"there is no folder {target.absolute().parent} to write {target.name} into"
    else:
        return
    raise UsageError(msg)


def write(proto: onnx.ModelProto, target: Path, *, source: Model) -> int:
    """Write a model.

    Parameters
    ----------
    proto : ModelProto
        May refer to the source's external data; not changed.
    target : Path
    source : Model

    Returns
    -------
    int
        Bytes written, external data included.

    Raises
    ------
    OnnxPruneError
        If the disk is full or may not be written; nothing is left behind then.
    """
    external = any(is_external(t) for t in iter_tensors(proto))
    if not external and proto.ByteSize() < _LARGEST_FILE:
        content = proto.SerializeToString()
        _replace(target, lambda path: _dump(path, content))
        return len(content)
    data = target.with_name(target.name + ".data")
    taken = {
        external_file(t, source.path.parent)[0]
        for t in iter_tensors(source.proto)
        if is_external(t)
    }
    if data.resolve() in taken:
        msg = f"{data} belongs to the input model; write to another folder or name"
        raise UsageError(msg)
    thin = onnx.ModelProto()
    thin.CopyFrom(proto)
    written = 0

    def stream(path: Path) -> None:
        nonlocal written
        written = _stream(thin, path, data.name, source.path.parent)

    _replace(data, stream)
    content = thin.SerializeToString()
    _replace(target, lambda path: _dump(path, content))
    return len(content) + written


def copy(source: Model, target: Path) -> int:
    """Copy a model byte for byte, with its external data under the same names.

    Returns
    -------
    int
        Bytes of the copy, external data included.
    """
    _replace(target, lambda path: _duplicate(source.path, path))
    if target.resolve().parent != source.path.resolve().parent:
        for tensor in iter_tensors(source.proto):
            if is_external(tensor):
                location = next(e.value for e in tensor.external_data if e.key == "location")
                aside = target.parent / location
                aside.parent.mkdir(parents=True, exist_ok=True)
                origin = external_file(tensor, source.path.parent)[0]
                if not aside.exists():
                    _replace(aside, lambda path, origin=origin: _duplicate(origin, path))  # type: ignore[misc]
    return source.bytes


def write_text(target: Path, text: str) -> None:
    """Write a small text file."""
    _replace(target, lambda path: _dump(path, text.encode()))


def _duplicate(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)


def _dump(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _stream(model: onnx.ModelProto, path: Path, name: str, base: Path) -> int:
    """Move large tensors into one data file, one after the other."""
    with path.open("wb") as file:
        for tensor in iter_tensors(model):
            if not is_external(tensor) and len(tensor.raw_data) < _SMALLEST_EXTERNAL:
                continue
            content = to_array(tensor, base).tobytes()
            file.seek(-file.tell() % _PAGE, os.SEEK_CUR)
            _refer(tensor, name, file.tell(), len(content))
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
        return file.tell()


def _refer(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _replace(target: Path, fill: Callable[[Path], None]) -> None:
    """Fill a temporary file beside the target, then put it in the target's place."""
    with _draft(target) as draft:
        fill(draft)
        draft.replace(target)


@contextmanager
def _draft(target: Path) -> Iterator[Path]:
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield draft
    except OSError as error:
        msg = f"cannot write {target}: {error.strerror or error}"
        raise OnnxPruneError(msg) from error
    finally:
        draft.unlink(missing_ok=True)
