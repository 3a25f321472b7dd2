"""Weights beside a model: handed to onnxruntime as they lie in memory, not written into it.

A session of a model of many weights is made in less than half the time, and protobuf's limit of
2 GiB does not count what lies beside it.
"""

from collections.abc import Mapping

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import Message
from numpy.typing import NDArray
from onnx import TensorProto, helper

from onnxprune.model.scopes import values_read

__all__ = ["Weights", "apart", "hand_over"]

Weights = Mapping[str, NDArray[np.generic]]

_LEAST = 4096  # bytes; smaller ones may be shapes, which onnxruntime wants to read early
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
        What is missing is marked as stored elsewhere.
    dict of name to array
    """
    light, weights = onnx.ModelProto(), {}
    _copy(model, light, "graph")
    _copy(model.graph, light.graph, "initializer")
    # onnxruntime drops what nothing reads before it looks for what lies elsewhere.
    read = {value.name for value in model.graph.output}
    read.update(name for node in model.graph.node for name in values_read(node))
    for tensor in model.graph.initializer:
        array = _array(tensor) if tensor.name in read else None
        if array is None:
            light.graph.initializer.add().CopyFrom(tensor)
        else:
            weights[tensor.name] = array
            _mark(light.graph.initializer.add(), tensor, array.nbytes)
    return light, weights


def hand_over(weights: Weights, options: ort.SessionOptions) -> None:
    """Let a session that is made with these options find weights; they must outlive it."""
    if weights:
        values = [ort.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)


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


def _array(tensor: TensorProto) -> NDArray[np.generic] | None:
    """Return a large tensor's values where they lie in it as numpy has them."""
    kind = _KINDS.get(tensor.data_type)
    if kind is None or tensor.data_location == TensorProto.EXTERNAL:
        return None
    raw = tensor.raw_data
    if len(raw) < _LEAST or len(raw) != kind.itemsize * int(np.prod(tensor.dims)):
        return None
    return np.frombuffer(raw, kind).reshape(tuple(tensor.dims))


def _mark(entry: TensorProto, tensor: TensorProto, length: int) -> None:
    """Say that a tensor lies elsewhere; where is never looked at."""
    entry.name, entry.data_type = tensor.name, tensor.data_type
    entry.dims.extend(tensor.dims)
    entry.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "memory"), ("offset", "0"), ("length", str(length))):
        entry.external_data.add(key=key, value=value)
