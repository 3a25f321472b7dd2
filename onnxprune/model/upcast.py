"""The fp32 clone of a model: the same graph in arithmetic that does not round.

What halves, bytes and nibbles compute is a staircase: one channel may move nothing, or a whole
step. Cuts are proven and measured on a clone in which every narrow float is an fp32 and every
quantized tensor holds the numbers that it would hold if nobody rounded them. Names, shapes and
order stay, so that whatever is found on the clone is true of the model.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from onnxprune.model.dequantize import dequantize, is_quantized
from onnxprune.model.tensors import iter_graphs, iter_tensors

__all__ = ["upcast"]

_HALVES = frozenset((TensorProto.FLOAT16, TensorProto.BFLOAT16))
# Attributes that name an element type.
_TYPES = ("to", "dtype", "output_dtype", "output_datatype", "stash_type", "softmax_precision")


def upcast(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the fp32 clone of a model.

    Parameters
    ----------
    model : ModelProto
        With its data inside. Not changed.

    Returns
    -------
    ModelProto
        The model itself where all its arithmetic is in fp32. Otherwise a copy: float16 and
        bfloat16 (and float64 where weights are kept in it) become float32, graph inputs and
        outputs too; quantized operators are written out in real numbers, clipped but not rounded.
    """
    narrow = _narrow_types(model)
    if not narrow and not is_quantized(model):
        return model
    clone = onnx.ModelProto()
    clone.CopyFrom(model)
    if narrow:
        _widen(clone, narrow)
    del clone.graph.value_info[:]
    dequantize(clone)
    return clone


def _narrow_types(model: onnx.ModelProto) -> frozenset[int]:
    """Return the float types that the clone replaces."""
    found = set(_element_types(model)) & _HALVES
    if any(t.data_type == TensorProto.DOUBLE and len(t.dims) > 1 for t in iter_tensors(model)):
        found.add(TensorProto.DOUBLE)
    return frozenset(found)


def _element_types(model: onnx.ModelProto) -> Iterable[int]:
    for tensor in iter_tensors(model):
        yield tensor.data_type
    for graph in iter_graphs(model):
        for value in (*graph.input, *graph.output):
            yield value.type.tensor_type.elem_type
        yield from (a.i for n in graph.node for a in n.attribute if a.name in _TYPES)
    for function in model.functions:
        yield from (a.i for n in function.node for a in n.attribute if a.name in _TYPES)


def _widen(model: onnx.ModelProto, narrow: frozenset[int]) -> None:
    """Replace element types, in place."""
    for tensor in iter_tensors(model):
        if tensor.data_type in narrow:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for graph in iter_graphs(model):
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.tensor_type.elem_type in narrow:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
        _widen_attributes(graph.node, narrow)
    for function in model.functions:
        del function.value_info[:]
        _widen_attributes(function.node, narrow)


def _widen_attributes(nodes: Iterable[onnx.NodeProto], narrow: frozenset[int]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _TYPES and attribute.i in narrow:
                attribute.i = TensorProto.FLOAT
