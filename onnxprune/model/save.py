"""Writing a model: nothing of the source is touched, and no data file is ever appended to."""

import filecmp
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.model.external import external_files, is_external
from onnxprune.model.files import LARGEST_PROTO, drafts
from onnxprune.model.load import Model
from onnxprune.model.tensors import DATA_FIELDS, iter_graphs, iter_tensors, raw_bytes, raw_size

__all__ = ["check_target", "copy", "write"]

_SMALLEST_OUTSIDE = 1024  # bytes; small tensors stay inside, where shape inference reads them
_PAGE, _LINE = 4096, 64  # bytes; what large and small tensors are aligned to, for mapping
_LARGE = 1 << 20


def check_target(source: Path, target: Path, *, force: bool) -> None:
    """Refuse a target that cannot be written or whose writing would lose something.

    Parameters
    ----------
    source, target : Path
    force : bool
        Whether an existing target may be replaced.

    Raises
    ------
    UsageError
    """
    folder = target.absolute().parent
    if str(target) == "-":
        msg = "models are written to files, not to standard output (-); name the file to write"
    elif target.is_dir():
        msg = f"{target} is a folder; name the file to write"
    elif _same(source, target):
        msg = f"{target} is the input itself; name another file to write"
    elif target.exists() and not target.is_file():
        msg = f"{target} is no regular file; name another file to write"
    elif not folder.is_dir():
        msg = f"there is no folder {folder} to write {target.name} into; make it first"
    elif not os.access(folder, os.W_OK):
        msg = f"{folder} may not be written to; choose another place for {target.name}"
    elif os.path.lexists(target) and not force:
        msg = f"{target} exists; give --force to replace it"
    else:
        return
    raise UsageError(msg)


def write(proto: onnx.ModelProto, target: Path, *, source: Model) -> int:
    """Write a model.

    One file, unless it would pass 1.9 GB or the model refers to external data: then every
    initializer of 1 KiB or more goes to one fresh file ``<target name>.data``.

    Parameters
    ----------
    proto : ModelProto
        May refer to the source's external data. The same again when this returns.
    target : Path
    source : Model

    Returns
    -------
    int
        Bytes written, external data included.

    Raises
    ------
    UsageError
        If the target cannot be written, or would replace a file of the source. Nothing is left
        behind then.
    InputError
        If external data of the source is no longer what it was.
    """
    data = target.with_name(target.name + ".data")
    outside, inside = _moved(proto)
    targets = (data, target) if outside else (target,)
    _protect(source, targets)
    with drafts(*targets) as made, _restored((*outside, *inside)):
        if outside:
            _stream(outside, made[0], data.name, source.path)
        for tensor in inside:
            _fill(tensor, raw_bytes(tensor, source.path).tobytes())
        made[-1].write_bytes(proto.SerializeToString())
        return sum(draft.stat().st_size for draft in made)


def copy(source: Model, target: Path) -> int:
    """Copy a model byte for byte, with its external data under the same names.

    Within the source's folder the copy shares the data files.

    Returns
    -------
    int
        Bytes of the copy, external data included.

    Raises
    ------
    UsageError
        If the target cannot be written, or another file has the name of a data file.
    """
    _protect(source, (target,))
    folder = target.absolute().parent.resolve()
    shared = folder == source.path.absolute().parent.resolve()
    files = {}
    for location, origin in external_files(iter_tensors(source.proto), source.path).items():
        beside = target.parent / location
        if shared and not origin.is_relative_to(folder):  # readable only through the model's link
            msg = f"{beside} leads out of {folder}; write to another folder"
            raise UsageError(msg)
        if not beside.exists():
            files[beside] = origin
        elif not shared and not filecmp.cmp(origin, beside, shallow=False):
            msg = f"{beside} exists and is not the model's data; write to another folder"
            raise UsageError(msg)
    with _folders(target.parent, files), drafts(*files, target) as made:
        for origin, draft in zip((*files.values(), source.path), made, strict=True):
            shutil.copyfile(origin, draft)
    return source.bytes


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


def _protect(source: Model, targets: Iterable[Path]) -> None:
    """Refuse to replace what the source consists of."""
    files = external_files(iter_tensors(source.proto), source.path)
    beside = (source.path.parent / location for location in files)
    own = [source.path, *files.values(), *beside]
    for target in targets:
        if any(_same(file, target) for file in own):
            msg = f"{target} belongs to the input model; write to another folder or name"
            raise UsageError(msg)


def _moved(proto: onnx.ModelProto) -> tuple[list[TensorProto], list[TensorProto]]:
    """Say which tensors go outside, and which come inside because they are small.

    Attributes stay where they are kept: not every reader looks for their data elsewhere.
    """
    external = [tensor for tensor in iter_tensors(proto) if is_external(tensor)]
    if not external and _fits(proto):
        return [], []
    initializers = [
        tensor
        for graph in iter_graphs(proto)
        for tensor in graph.initializer
        if not is_external(tensor) and raw_size(tensor) >= _SMALLEST_OUTSIDE
    ]
    large = [tensor for tensor in external if raw_size(tensor) >= _SMALLEST_OUTSIDE]
    small = [tensor for tensor in external if raw_size(tensor) < _SMALLEST_OUTSIDE]
    return [*initializers, *large], small


def _fits(proto: onnx.ModelProto) -> bool:
    try:
        return bool(proto.ByteSize() <= LARGEST_PROTO)
    except EncodeError:
        return False


@contextmanager
def _restored(tensors: Sequence[TensorProto]) -> Iterator[None]:
    """Let tensors be edited, then undo it: a copy of the whole could pass protobuf's 2 GiB."""
    before = []
    for tensor in tensors:
        before.append(TensorProto())
        before[-1].CopyFrom(tensor)
    try:
        yield
    finally:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.CopyFrom(old)


def _stream(tensors: Sequence[TensorProto], path: Path, name: str, base: Path) -> None:
    """Write the data of tensors one after the other, and leave references to it."""
    with path.open("xb") as file:
        for tensor in tensors:
            data = raw_bytes(tensor, base)
            file.seek(-file.tell() % (_PAGE if data.nbytes >= _LARGE else _LINE), os.SEEK_CUR)
            offset = file.tell()
            file.write(data.data)
            _fill(tensor, None)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", name), ("offset", offset), ("length", data.nbytes)):
                tensor.external_data.add(key=key, value=str(value))


def _fill(tensor: TensorProto, data: bytes | None) -> None:
    for field in (*DATA_FIELDS, "external_data", "data_location"):
        tensor.ClearField(field)
    if data is not None:
        tensor.raw_data = data


@contextmanager
def _folders(root: Path, files: Iterable[Path]) -> Iterator[None]:
    """Make the folders that files need below a root, and unmake them if the block fails."""
    missing = {p for f in files for p in f.parents if p.is_relative_to(root) and not p.exists()}
    made = []
    try:
        for folder in sorted(missing):
            folder.mkdir()
            made.append(folder)
        yield
    except BaseException as error:
        for folder in reversed(made):
            folder.rmdir()
        if isinstance(error, OSError):
            msg = f"cannot make folders in {root}: {error.strerror or error}"
            raise UsageError(msg) from error
        raise
