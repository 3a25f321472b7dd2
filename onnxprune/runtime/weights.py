"""Weights beside a model: handed to onnxruntime as they lie in memory, not written into it.

A session of a model of many weights is made in less than half the time, and protobuf's limit of
2 GiB does not count what lies beside it.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.model.scopes import values_read

__all__ = ["Weights", "apart"]

Weights = Mapping[str, NDArray[np.generic]]

_LEAST = 1 << 16  # bytes; to hand smaller ones over takes longer than to write them in
_KINDS: dict[int, np.dtype[np.generic]] = {
    helper.np_dtype_to_tensor_dtype(np.dtype(kind)): np.dtype(kind)
    for kind in ("f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?")
}


def apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, Weights]:
    """Return a model without its large initializers, and these.

    Parameters
    ----------
    model : ModelProto
        Stays as it is.

    Returns
    -------
    ModelProto
        What is missing is marked as stored elsewhere; the one given where nothing is.
    dict of name to array
    """
    # onnxruntime drops what nothing reads before it looks for what lies elsewhere.
    large = {tensor.name for tensor in model.graph.initializer if _large(tensor)}
    read = large and {name for node in model.graph.node for name in values_read(node)}
    moved = large & (read | {value.name for value in model.graph.output})
    if not moved:
        return model, {}
    light, weights = onnx.ModelProto(), {}
    _copy(model, light, "graph")
    _copy(model.graph, light.graph, "initializer")
    for tensor in model.graph.initializer:
        if tensor.name in moved:
            array = np.frombuffer(tensor.raw_data, _KINDS[tensor.data_type])
            weights[tensor.name] = array.reshape(tuple(tensor.dims))
            _mark(light.graph.initializer.add(), tensor, array.nbytes)
        else:
            light.graph.initializer.add().CopyFrom(tensor)
    return light, weights


def _copy(source: Message, target: Message, without: str) -> None:
    """Copy all fields of a message but one."""
    for field, value in source.ListFields():
        if field.name == without:
            continue
        if hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        else:
            setattr(target, field.name, value)


def _large(tensor: TensorProto) -> bool:
    """Whether a tensor is worth moving, and its values lie in it as numpy has them."""
    kind = _KINDS.get(tensor.data_type)
    if kind is None or tensor.data_location == TensorProto.EXTERNAL:
        return False
    size = kind.itemsize * int(np.prod(tensor.dims))
    return size >= _LEAST and len(tensor.raw_data) == size


def _mark(entry: TensorProto, tensor: TensorProto, length: int) -> None:
    """Say that a tensor lies elsewhere; where is never looked at."""
    entry.name, entry.data_type = tensor.name, tensor.data_type
    entry.dims.extend(tensor.dims)
    entry.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "memory"), ("offset", "0"), ("length", str(length))):
        entry.external_data.add(key=key, value=value)
