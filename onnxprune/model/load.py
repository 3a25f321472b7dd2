"""Reading a model file without trusting it."""

import hashlib
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, helper

from onnxprune.errors import InputError
from onnxprune.model.domains import Key, called, defined, opset_of
from onnxprune.model.external import external_files, is_external
from onnxprune.model.sniff import HEAD_BYTES, foreign_kind
from onnxprune.model.tensors import check_tensor, iter_graphs, iter_nodes, iter_tensors
from onnxprune.runtime.session import RunFailedError, Session

__all__ = ["Model", "load"]

_IN_MEMORY = Path("<model in memory>")
_MOST_NODES = 1_000_000  # after functions are expanded; real models have some 10,000
_LARGEST_FILE = 2**31 - 1  # bytes that protobuf parses
_VERSIONS = {"IR version": range(3, 100), "opset": range(7, 200)}


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model as it lies on disk, or as somebody holds it in memory.

    Attributes
    ----------
    path : Path
        What messages call it; of a model in memory, no file.
    proto : ModelProto
        External data is not loaded. Nobody changes it.
    sha256 : str
        Of the file, and of the external data files after it in order of their names.
    bytes : int
        Of the file and its external data.
    on_disk : bool
        Whether ``path`` is a file.
    """

    path: Path
    proto: onnx.ModelProto
    sha256: str
    bytes: int
    on_disk: bool = True

    @property
    def runnable(self) -> Path | onnx.ModelProto:
        """What a session is made of: the file, where there is one, finds its external data."""
        return self.path if self.on_disk else self.proto


def load(source: Path | onnx.ModelProto) -> Model:
    """Read a model, and check all that could go wrong before anything works on it.

    Duplicate names, cycles and undefined inputs are left to onnxruntime.

    Parameters
    ----------
    source : Path or ModelProto
        A ModelProto is copied; it must hold its tensors' data.

    Returns
    -------
    Model

    Raises
    ------
    InputError
        If the file cannot be read or is no model, its tensors contradict their shapes or lie
        outside its folder, it asks for more than onnxruntime knows, or is built to exhaust the
        machine.
    """
    on_disk = isinstance(source, Path)
    path = source if isinstance(source, Path) else _IN_MEMORY
    content = _read(source) if isinstance(source, Path) else _serialized(source)
    proto = _parse(path, content)
    _check_versions(path, proto)
    _check_size(path, proto)
    _check_names(path, proto)
    for tensor in iter_tensors(proto):
        if is_external(tensor) and not on_disk:
            msg = f"{path} keeps '{tensor.name}' in another file: give the path of the model's file"
            raise InputError(msg)
        check_tensor(tensor, path)
    digest, size = hashlib.sha256(content), len(content)
    for file in external_files(iter_tensors(proto), path).values():
        size += file.stat().st_size
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return Model(path, proto, digest.hexdigest(), size, on_disk)


def _serialized(proto: object) -> bytes:
    if not isinstance(proto, onnx.ModelProto):
        msg = f"a model is a path or an onnx.ModelProto, not {type(proto).__name__}"
        raise InputError(msg)
    try:
        return bytes(proto.SerializeToString())
    except (EncodeError, ValueError) as error:
        msg = f"{_IN_MEMORY} is larger than 2 GiB; save it with external data, and give its path"
        raise InputError(msg) from error


def _read(path: Path) -> bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            msg = f"{path} is a folder; name the .onnx file in it"
            raise InputError(msg)
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its other end
            msg = f"{path} is no regular file; save the model to a file first"
            raise InputError(msg)
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            kind = foreign_kind(head)
            if kind is None and head and found.st_size <= _LARGEST_FILE:
                return head + file.read()
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        why = "there is no such file" if isinstance(error, FileNotFoundError) else error
        if str(path) == "-":
            why = "models are read from files, not from standard input; name the file"
        why = (error.strerror if isinstance(error, PermissionError) else None) or why
        msg = f"cannot read {path}: {why}"
        raise InputError(msg) from error
    if not head:
        msg = f"{path} is empty; download or export it again"
    elif kind is not None:
        msg = f"{path} is no ONNX model: it is {kind}"
    else:
        msg = f"{path} is larger than 2 GiB; save its weights as external data"
    raise InputError(msg)


def _parse(path: Path, content: bytes) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
    except DecodeError as error:
        why = "is no ONNX model, or is cut short or damaged; download or export it again"
        if "depth" in str(error).lower():
            why = "nests its bodies deeper than protobuf reads (some 30 levels); flatten its Ifs"
        msg = f"{path} {why}"
        raise InputError(msg) from error
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        msg = f"{path} holds no graph; it is no ONNX model, or is cut short"
        raise InputError(msg)
    if proto.ir_version >= 3 and not proto.opset_import:
        msg = f"{path} names no opset; it is cut short or damaged, download or export it again"
        raise InputError(msg)
    return proto


def _check_versions(path: Path, proto: onnx.ModelProto) -> None:
    for what, version in (("IR version", proto.ir_version), ("opset", opset_of(proto))):
        if version < _VERSIONS[what].start or _loads(what, version):
            continue
        newest = _newest(what)
        if version > newest:
            msg = (
                f"{path} uses {what} {version}; the installed onnxruntime loads up to {newest}: "
                f"export with {what} {newest} or older, or update onnxruntime"
            )
            raise InputError(msg)


@cache
def _newest(what: str) -> int:
    """Find the newest version that onnxruntime loads; it nowhere says so itself."""
    versions = _VERSIONS[what]
    refused = (version for version in versions if not _loads(what, version))
    return next(refused, versions.stop) - 1


@cache
def _loads(what: str, version: int) -> bool:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    opset = version if what == "opset" else _VERSIONS["opset"].start
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = version if what == "IR version" else _VERSIONS["IR version"].start
    try:
        Session(model)
    except RunFailedError:
        return False
    return True


def _check_size(path: Path, proto: onnx.ModelProto) -> None:
    """Count the nodes that functions expand to; 30 lines can ask for 2^30 of them."""
    calls: dict[Key, Counter[Key]] = {}
    for function in proto.functions:  # of two with one name, the sum: whichever one is taken
        name = defined(function)
        calls[name] = calls.get(name, Counter()) + _calls(function.node)
    inner = {name: [callee for callee in found if callee in calls] for name, found in calls.items()}
    try:
        order = list(TopologicalSorter(inner).static_order())
    except CycleError as error:
        msg = f"{path}: function {error.args[1][0][1]!r:.80} calls itself, so it never ends"
        raise InputError(msg) from error
    sizes: dict[Key, int] = {}
    for name in order:
        sizes[name] = 1 + sum(sizes.get(callee, 1) * n for callee, n in calls[name].items())
    total = len(proto.graph.node)  # 20 MB can hold ten million empty nodes: look no closer
    if total <= _MOST_NODES:
        total = sum(sizes.get(name, 1) * n for name, n in _calls(proto.graph.node).items())
    if total > _MOST_NODES:
        count = f"{total:,}" if total < 10**12 else "over a trillion"
        msg = f"{path} expands to {count} nodes; models may have {_MOST_NODES:,}"
        raise InputError(msg)


def _check_names(path: Path, proto: onnx.ModelProto) -> None:
    """Refuse names that are no UTF-8: protobuf gives them as bytes, which nobody expects."""
    for texts in _names(proto):
        for text in texts:
            if isinstance(text, bytes):
                msg = f"{path} holds the name {text!r:.80}, which is no UTF-8 text: it is damaged"
                raise InputError(msg)


def _names(proto: onnx.ModelProto) -> Iterator[Iterable[str | bytes]]:
    yield (o.domain for o in proto.opset_import)
    for function in proto.functions:
        yield (function.domain, function.name, function.overload)
        yield from (function.input, function.output)
    for graph in iter_graphs(proto):
        yield (v.name for v in (*graph.input, *graph.output, *graph.value_info))
    for node in iter_nodes(n for g in (proto.graph, *proto.functions) for n in g.node):
        yield (node.name, node.op_type, node.domain, node.overload)
        yield from (node.input, node.output, (a.name for a in node.attribute))
    yield (tensor.name for tensor in iter_tensors(proto))


def _calls(nodes: Iterable[onnx.NodeProto]) -> Counter[Key]:
    return Counter(called(n) for n in iter_nodes(nodes))
