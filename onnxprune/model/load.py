"""Reading a model file without trusting it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from onnxprune.errors import InputError
from onnxprune.model.tensors import external_file, is_external, iter_tensors
from onnxprune.runtime.session import RunFailedError, Session

__all__ = ["Model", "load"]

_DEFAULT_DOMAINS = ("", "ai.onnx")
_MOST_NODES = 1_000_000  # that functions may expand to
_MAGIC = {
    b"version https://git-lfs": "a git-lfs pointer; fetch the file with 'git lfs pull'",
    b"\x1f\x8b": "gzip-compressed; unpack it first",
    b"PK\x03\x04": "a zip archive (a PyTorch checkpoint?); export it to ONNX first",
    b"<": "a text file",
    b"{": "a text file",
}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model as it lies on disk.

    Attributes
    ----------
    path : Path
    proto : ModelProto
        External data is not loaded. Nobody changes it.
    sha256 : str
        Of the file, and of the external data files after it in order of their names.
    bytes : int
        Of the file and its external data.
    """

    path: Path
    proto: onnx.ModelProto
    sha256: str
    bytes: int

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        imports = self.proto.opset_import
        return max((o.version for o in imports if o.domain in _DEFAULT_DOMAINS), default=1)


def load(path: Path) -> Model:
    """Read a model.

    Parameters
    ----------
    path : Path

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If the file is missing or no model, asks for more than onnxruntime knows, or is built to
        exhaust the machine.
    """
    content = _read(path)
    for magic, what in _MAGIC.items():
        if content.startswith(magic):
            msg = f"{path} is no ONNX model but {what}"
            raise InputError(msg)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        msg = f"{path} is no ONNX model, is cut short, or nests its graphs too deep: {error}"
        raise InputError(msg) from error
    _check(path, proto)
    files = sorted(
        {external_file(t, path.parent)[0] for t in iter_tensors(proto) if is_external(t)}
    )
    digest = hashlib.sha256(content)
    size = len(content)
    for file in files:
        size += file.stat().st_size
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return Model(path, proto, digest.hexdigest(), size)


def _read(path: Path) -> bytes:
    if path.is_dir():
        msg = f"{path} is a folder; name the .onnx file in it"
        raise InputError(msg)
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise InputError(msg) from error
    if not content:
        msg = f"{path} is empty"
        raise InputError(msg)
    return content


def _check(path: Path, proto: onnx.ModelProto) -> None:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        msg = f"{path} is no ONNX model: it has no graph"
        raise InputError(msg)
    newest = max((o.version for o in proto.opset_import if o.domain in _DEFAULT_DOMAINS), default=1)
    for what, version, most in (
        ("opset", newest, _newest(False)),
        ("IR version", proto.ir_version, _newest(True)),
    ):
        if version > most:
            msg = (
                f"{path} uses {what} {version}; this onnxruntime loads up to {most}: "
                f"export the model with {what} {most} or older, or update onnxruntime"
            )
            raise InputError(msg)
    _check_functions(path, proto)
    for tensor in iter_tensors(proto):
        _check_tensor(path, tensor)


def _check_functions(path: Path, proto: onnx.ModelProto) -> None:
    """Count what functions expand to before anything expands them."""
    functions = {(f.domain, f.name, f.overload): f for f in proto.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(key: tuple[str, str, str], above: tuple[tuple[str, str, str], ...]) -> int:
        if key in above:
            msg = f"{path}: function '{key[1]}' calls itself"
            raise InputError(msg)
        if key not in sizes:
            inner = ((n.domain, n.op_type, n.overload) for n in functions[key].node)
            sizes[key] = sum(size(k, (*above, key)) if k in functions else 1 for k in inner)
        return sizes[key]

    calls = ((n.domain, n.op_type, n.overload) for n in proto.graph.node)
    total = sum(size(key, ()) for key in calls if key in functions)
    if total > _MOST_NODES:
        msg = f"{path}: its functions expand to {total:.3g} nodes, more than any real model has"
        raise InputError(msg)


def _check_tensor(path: Path, tensor: TensorProto) -> None:
    try:
        itemsize = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (KeyError, TypeError):
        msg = f"{path}: tensor '{tensor.name}' has the unknown type {tensor.data_type}"
        raise InputError(msg) from None
    if any(dim < 0 for dim in tensor.dims):
        msg = f"{path}: tensor '{tensor.name}' has a negative size {list(tensor.dims)}"
        raise InputError(msg)
    count = 1
    for dim in tensor.dims:
        count *= dim
    raw = len(tensor.raw_data)
    if raw and itemsize > 1 and raw != count * itemsize:
        msg = f"{path}: tensor '{tensor.name}' of shape {list(tensor.dims)} holds {raw} bytes"
        raise InputError(msg)


@cache
def _newest(ir: bool) -> int:
    """Find the newest opset or IR version that this onnxruntime loads."""
    found = 8
    for version in _versions(ir):
        try:
            Session(_tiny(10 if not ir else version, version if not ir else 13))
        except RunFailedError:
            break
        found = version
    return found


def _versions(ir: bool) -> Iterator[int]:
    yield from range(8, 40) if ir else range(13, 80)


def _tiny(ir: int, opset: int) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])
