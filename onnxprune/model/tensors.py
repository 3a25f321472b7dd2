"""Tensors of a file: read them wherever they are kept, and make new ones of the same kind."""

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import InputError

__all__ = ["external_file", "from_array", "is_external", "iter_tensors", "to_array"]

Array = NDArray[Any]
_KEYS = {"location", "offset", "length", "checksum"}
_PACKED = {TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1}  # two elements a byte


def is_external(tensor: TensorProto) -> bool:
    """Say whether a tensor's data lies in another file."""
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def to_array(tensor: TensorProto, base: Path) -> Array:
    """Read a tensor.

    Parameters
    ----------
    tensor : TensorProto
    base : Path
        Folder of the model file, which external data must lie in.

    Returns
    -------
    array
        Memory-mapped, read-only, where the data is external.

    Raises
    ------
    InputError
        If external data is missing, lies elsewhere, or is shorter than the tensor.
    """
    if not is_external(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    path, offset, length = external_file(tensor, base)
    if tensor.data_type in _PACKED or not length:
        copy = TensorProto()
        copy.CopyFrom(tensor)
        copy.ClearField("external_data")
        copy.data_location = TensorProto.DEFAULT
        with path.open("rb") as file:
            file.seek(offset)
            copy.raw_data = file.read(length)
        return np.asarray(numpy_helper.to_array(copy))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    mapped = np.memmap(path, np.uint8, "r", offset, (length,))
    return mapped.view(dtype).reshape(tuple(tensor.dims))


def external_file(tensor: TensorProto, base: Path) -> tuple[Path, int, int]:
    """Find the bytes of an external tensor, and check that they may and can be read.

    Returns
    -------
    path : Path
    offset, length : int
        Bytes.

    Raises
    ------
    InputError
    """
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    keys = [key for key, _ in entries]
    if set(keys) - _KEYS or len(keys) != len(set(keys)) or "location" not in keys:
        _refuse(tensor, f"its external data has unknown or repeated entries ({', '.join(keys)})")
    values = dict(entries)
    path = _inside(tensor, values["location"], base)
    size = path.stat().st_size
    wanted = _bytes(tensor)
    try:
        offset, length = int(values.get("offset", 0)), int(values.get("length", wanted))
    except ValueError:
        _refuse(tensor, "the offset or length of its external data is no number")
    if length != wanted or offset < 0 or offset + length > size:
        _refuse(tensor, f"its {wanted} bytes do not fit into {path.name} ({size} bytes)")
    return path, offset, length


def _inside(tensor: TensorProto, location: str, base: Path) -> Path:
    """Resolve a location; links may lead about, but only within the model's real folder."""
    named = Path(location)
    if named.is_absolute() or ".." in named.parts:
        _refuse(tensor, f"its external data lies outside the model's folder ({location})")
    path = base / named
    try:
        real = path.resolve(strict=True)
        regular = stat.S_ISREG(real.stat().st_mode)
    except OSError:
        _refuse(tensor, f"its external data file is missing ({location})")
    if not regular:
        _refuse(tensor, f"its external data is no regular file ({location})")
    return real


def _bytes(tensor: TensorProto) -> int:
    count = int(np.prod(tensor.dims, dtype=np.int64)) if tensor.dims else 1
    if tensor.data_type in _PACKED:
        return (count + 1) // 2
    return count * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _refuse(tensor: TensorProto, why: str) -> NoReturn:
    msg = f"tensor '{tensor.name}': {why}"
    raise InputError(msg)


def from_array(array: Array, like: TensorProto) -> TensorProto:
    """Make a tensor with new data and the name, type and notes of another one.

    Parameters
    ----------
    array : array
        Of the type that `to_array` gave.
    like : TensorProto

    Returns
    -------
    TensorProto
        With its data inside.
    """
    made = numpy_helper.from_array(np.asarray(array), like.name)
    if made.data_type != like.data_type:
        msg = f"{like.name}: {array.dtype} is not the tensor's type"
        raise ValueError(msg)
    made.doc_string = like.doc_string
    made.metadata_props.extend(like.metadata_props)
    return made


def iter_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that holds data: initializers and attributes, bodies and functions too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(graph)
