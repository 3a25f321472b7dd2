"""Tensors of a file: find them, check them, read them wherever they are kept, make new ones."""

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.external import is_external, locate, refuse

__all__ = [
    "DATA_FIELDS",
    "check_tensor",
    "from_array",
    "iter_graphs",
    "iter_nodes",
    "iter_tensors",
    "packed_bytes",
    "raw_bytes",
    "raw_size",
    "to_array",
]

Array = NDArray[Any]

DATA_FIELDS = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "string_data",
    "double_data",
    "uint64_data",
)
# Types that share bytes between elements, by the names that ml_dtypes gives them.
_PACKED_BITS = {
    "int2": 2,
    "uint2": 2,
    "int4": 4,
    "uint4": 4,
    "float4_e2m1fn": 4,
    "float6_e2m3fn": 6,
    "float6_e3m2fn": 6,
}
_LARGEST = 2**63  # bytes that numpy can address


def raw_size(tensor: TensorProto) -> int:
    """Return the bytes that a tensor's shape and type take in ``raw_data``; 0 for strings."""
    if tensor.data_type == TensorProto.STRING:
        return 0
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return int(prod(tensor.dims) * _bits(dtype) + 7) // 8


def packed_bytes(array: Array) -> int:
    """Return the bytes that an array takes in a file, where nibbles share them."""
    return (array.size * _bits(array.dtype) + 7) // 8


def check_tensor(tensor: TensorProto, base: Path) -> None:
    """Refuse a tensor whose data is not what its shape and type say.

    Parameters
    ----------
    tensor : TensorProto
    base : Path
        The model file (or its folder, where the model is not a link).

    Raises
    ------
    InputError
    """
    try:
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, TypeError):
        refuse(tensor, base, f"has the unknown element type {tensor.data_type}")
    dims = list(tensor.dims)
    if any(size < 0 for size in dims):
        refuse(tensor, base, f"has a negative size in its shape {dims}")
    if prod(size for size in dims if size) * dtype.itemsize >= _LARGEST:
        refuse(tensor, base, f"has the impossible shape {dims!s:.80}")
    if tensor.HasField("segment"):
        refuse(tensor, base, "is stored in segments, which nothing reads")
    held = {f.name: len(v) for f, v in tensor.ListFields() if f.name in DATA_FIELDS}
    if is_external(tensor):
        if held or tensor.data_type == TensorProto.STRING:
            refuse(tensor, base, "cannot keep such data outside the model file")
        locate(tensor, base, raw_size(tensor))
        return
    field, wanted = next(iter(held), ""), 0
    if len(held) > 1:
        refuse(tensor, base, f"holds its data twice, as {' and '.join(held)}")
    if field == "raw_data" and tensor.data_type != TensorProto.STRING:
        wanted = raw_size(tensor)
    else:
        field = helper.tensor_dtype_to_field(tensor.data_type)
        wanted = _entries(prod(dims), dtype)
    if sum(held.values()) != wanted or (wanted and field not in held):
        got = " and ".join(f"{count} in {name}" for name, count in held.items()) or "nothing"
        why = f"of shape {dims!s:.80} and type {dtype} needs {wanted} in {field}, but holds {got}"
        refuse(tensor, base, f"{why}: the file is damaged, export it again")


def to_array(tensor: TensorProto, base: Path) -> Array:
    """Read a tensor.

    Parameters
    ----------
    tensor : TensorProto
    base : Path
        The model file (or its folder, where the model is not a link).

    Returns
    -------
    array
        Of the tensor's shape; small and narrow floats as ``ml_dtypes``, strings as ``str``
        objects (bytes that are no UTF-8 escaped as surrogates). Memory-mapped and read-only
        where the data is external.

    Raises
    ------
    InputError
        As `check_tensor`.
    """
    check_tensor(tensor, base)
    shape = tuple(tensor.dims)
    if tensor.data_type == TensorProto.STRING:
        strings = [text.decode("utf-8", "surrogateescape") for text in tensor.string_data]
        return np.array(strings, dtype=object).reshape(shape)
    if not is_external(tensor):
        return np.asarray(numpy_helper.to_array(tensor))
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    data = raw_bytes(tensor, base)
    if dtype.name in _PACKED_BITS:
        inside = TensorProto(dims=shape, data_type=tensor.data_type, raw_data=data.tobytes())
        return np.asarray(numpy_helper.to_array(inside))
    return data.view(dtype).reshape(shape)


def raw_bytes(tensor: TensorProto, base: Path) -> NDArray[np.uint8]:
    """Return a tensor's data as ``raw_data`` would hold it.

    Parameters
    ----------
    tensor : TensorProto
        That passes `check_tensor` and holds no strings.
    base : Path
        As `to_array`.

    Returns
    -------
    array of uint8, 1-d
        Memory-mapped where the data is external.

    Raises
    ------
    InputError
        As `locate`.
    """
    if is_external(tensor):
        place = locate(tensor, base, raw_size(tensor))
        if not place.length:
            return np.empty(0, np.uint8)
        mapped = np.memmap(place.path, np.uint8, "r", place.offset, (place.length,))
        return np.asarray(mapped)
    if tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, np.uint8)
    made = numpy_helper.from_array(numpy_helper.to_array(tensor))
    return np.frombuffer(made.raw_data, np.uint8)


def from_array(array: Array, like: TensorProto) -> TensorProto:
    """Make a tensor with new data, and the name, type and notes of another one.

    Parameters
    ----------
    array : array
        Of any shape, and of the type that `to_array` gives for ``like``.
    like : TensorProto

    Returns
    -------
    TensorProto
        With its data inside, as ``raw_data`` (strings as ``string_data``).

    Raises
    ------
    ValueError
        If the array is of another type: a silent cast would lose what was measured.
    """
    dtype = helper.tensor_dtype_to_np_dtype(like.data_type)
    if array.dtype != dtype:
        msg = f"{like.name}: an array of {array.dtype} for a tensor of {dtype}"
        raise ValueError(msg)
    made = TensorProto(dims=array.shape, data_type=like.data_type)
    for field in ("name", "doc_string"):
        if like.HasField(field):
            setattr(made, field, getattr(like, field))
    made.metadata_props.extend(like.metadata_props)
    if like.data_type == TensorProto.STRING:
        made.string_data.extend(text.encode("utf-8", "surrogateescape") for text in array.flat)
    else:
        made.raw_data = numpy_helper.from_array(np.ascontiguousarray(array)).raw_data
    return made


def iter_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yield every graph: the main one, those of training, and bodies at any depth."""
    tops = [model.graph, *(g for t in model.training_info for g in (t.initialization, t.algorithm))]
    for graph in tops:
        yield graph
        yield from _bodies(graph.node)
    for function in model.functions:
        yield from _bodies(function.node)


def iter_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yield nodes, and those in their bodies at any depth."""
    known = list(nodes)
    yield from known
    for graph in _bodies(known):
        yield from graph.node


def iter_tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Yield every tensor that holds data: initializers and attributes, bodies and functions too."""
    for graph in iter_graphs(model):
        yield from graph.initializer
        yield from (t for s in graph.sparse_initializer for t in (s.values, s.indices))
        for node in graph.node:
            yield from _of_attributes(node.attribute)
    for function in model.functions:
        yield from _of_attributes(function.attribute_proto)
        for node in function.node:
            yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in (*sparse, *attribute.sparse_tensors):
            yield from (tensor.values, tensor.indices)


def _bodies(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            for graph in (*inner, *attribute.graphs):
                yield graph
                yield from _bodies(graph.node)


def _bits(dtype: np.dtype[Any]) -> int:
    return _PACKED_BITS.get(dtype.name, 8 * dtype.itemsize)


def _entries(count: int, dtype: np.dtype[Any]) -> int:
    """Count the entries that elements take in a typed field."""
    if dtype.kind == "c":
        return 2 * count
    bits = _bits(dtype)
    return -(-count * bits // 8) if bits in {2, 4} else count
