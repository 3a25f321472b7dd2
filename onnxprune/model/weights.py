"""Quantized and fused operators by the plain one in them, and which constants are parameters."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from onnxprune.model.decoded import decode
from onnxprune.model.view import Node, View

__all__ = ["Plain", "inputs_of", "is_weight", "parameter_counts", "plain", "weight_of"]


@dataclass(frozen=True, slots=True)
class Plain:
    """What an operator computes: a float operator, and the slots of that one's inputs.

    ``data`` are the slots that hold quantized numbers; every other slot of a quantized operator
    holds scales and zero points.
    """

    op_type: str
    slots: tuple[int, ...]
    data: tuple[int, ...]


_QUANTIZED = {
    "ConvInteger": Plain("Conv", (0, 1), (0, 1)),
    "DequantizeLinear": Plain("Identity", (0,), (0,)),
    "DynamicQuantizeLSTM": Plain("LSTM", (0, 1, 2), (0, 1, 2, 3, 5, 6, 7)),
    "DynamicQuantizeMatMul": Plain("MatMul", (0, 1), (0, 1, 4)),
    "GatherBlockQuantized": Plain("Gather", (0, 1), (0, 1)),
    "MatMulInteger": Plain("MatMul", (0, 1), (0, 1)),
    "MatMulIntegerToFloat": Plain("MatMul", (0, 1), (0, 1, 6)),
    "MatMulNBits": Plain("MatMul", (0, 1), (0, 1, 5)),
    "QGemm": Plain("Gemm", (0, 3, 6), (0, 3, 6)),
    "QLinearAdd": Plain("Add", (0, 3), (0, 3)),
    "QLinearConv": Plain("Conv", (0, 3, 8), (0, 3, 8)),
    "QLinearMatMul": Plain("MatMul", (0, 3), (0, 3)),
    "QLinearMul": Plain("Mul", (0, 3), (0, 3)),
    "QLinearConcat": Plain("Concat", tuple(range(2, 300, 3)), tuple(range(2, 300, 3))),
    "QLinearWhere": Plain("Where", (0, 1, 4), (1, 4)),
    "QuantizeLinear": Plain("Identity", (0,), (0,)),
}
_MOVERS = ("Gather", "Identity", "Reshape", "Transpose", "Unsqueeze")
_UNARY = ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid", "Softmax")
_QUANTIZED |= {f"QLinear{name}": Plain(name, (0,), (0,)) for name in _UNARY}
# Operators with more around a plain one: activations, scales, paddings, sampling places.
_FUSED = {
    "ConvTransposeWithDynamicPads": Plain("ConvTranspose", (0, 1, 3), (0, 1, 3)),
    "DeformConv": Plain("Conv", (0, 1, 3), (0, 1, 3)),
    "EmbedLayerNormalization": Plain("Gather", (2, 0), (2,)),
    "FusedConv": Plain("Conv", (0, 1, 2), (0, 1, 2)),
    "FusedGemm": Plain("Gemm", (0, 1, 2), (0, 1, 2)),
    "FusedMatMul": Plain("MatMul", (0, 1), (0, 1)),
    "TransposeMatMul": Plain("MatMul", (0, 1), (0, 1)),
}


def plain(node: Node) -> Plain:
    """Return the plain operator that a node stands for: mostly its own."""
    found = _QUANTIZED.get(node.op_type) or _FUSED.get(node.op_type)
    every = tuple(range(len(node.inputs)))
    return found or Plain(node.op_type, every, every)


def parameter_counts(view: View) -> dict[str, int]:
    """Count parameters: floats, and the integers that stand for floats, but not their scales.

    Parameters
    ----------
    view : View

    Returns
    -------
    dict of original name to int
        Of every constant that counts; a quantized model has as many as its float original.
    """
    counts: dict[str, int] = {}
    for value, use in view.uses.items():
        nodes = [(view.by_index[edge.node], edge.slot) for edge in use.edges]
        shape, kind = view.constant(value).shape, view.constant(value).dtype
        readers = [(n, slot) for n, slot in nodes if n.op_type in _QUANTIZED]
        data = [n for n, slot in readers if slot in _QUANTIZED[n.op_type].data]
        data += [n for n, slot in nodes if slot == 0 and n.op_type in _MOVERS and _decoded(view, n)]
        if data:
            counts[use.original] = max(_elements(n, shape, kind.name) for n in data)
        elif kind.kind in "fV" and not _narrow(kind.name) and not _is_scale(view, nodes):
            counts.setdefault(use.original, prod(shape))
    return counts


def _decoded(view: View, mover: Node) -> bool:
    """Whether DequantizeLinear reads what an operator has moved: an embedding's rows."""
    for edge in view.consumers.get(mover.outputs[0], ()):
        reader = view.by_index[edge.node]
        if edge.slot == 0 and (
            reader.op_type == "DequantizeLinear"
            or (reader.op_type in _MOVERS and _decoded(view, reader))
        ):
            return True
    return False


def _is_scale(view: View, readers: Sequence[tuple[Node, int]]) -> bool:
    """Whether all readers are quantized operators, or products with a dynamic scale."""

    def scales(node: Node, slot: int) -> bool:
        if node.op_type in _QUANTIZED:
            return slot not in _QUANTIZED[node.op_type].data
        others = (view.producers.get(value) for value in node.inputs)
        dynamic = any(o is not None and o.op_type == "DynamicQuantizeLinear" for o in others)
        return node.op_type == "Mul" and dynamic

    return bool(readers) and all(scales(node, slot) for node, slot in readers)


def _elements(node: Node, shape: tuple[int, ...], kind: str) -> int:
    """Count the numbers in a constant, of which a byte may hold several."""
    if node.op_type == "MatMulNBits" and len(shape) == 3:
        return prod(_number(node, name, 0) for name in ("N", "K"))
    if node.op_type == "GatherBlockQuantized" and kind == "uint8":
        return prod(shape) * (8 // _number(node, "bits", 4))
    return prod(shape)


def _number(node: Node, name: str, default: int) -> int:
    value = node.attributes.get(name, default)
    assert isinstance(value, int)
    return value


def _narrow(name: str) -> bool:
    """Types of ml_dtypes that are integers, though NumPy calls them void."""
    return name.startswith(("int", "uint"))


def inputs_of(node: Node) -> Iterator[str]:
    """Yield the inputs of the float operator that a node stands for."""
    for slot in plain(node).slots:
        yield node.inputs[slot] if slot < len(node.inputs) else ""


def is_weight(view: View, value: str) -> bool:
    """Say whether a value is a constant, plain or behind DequantizeLinear."""
    node = view.producers.get(value)
    if node is None or node.op_type != "DequantizeLinear":
        return view.is_constant(value)
    return all(view.is_constant(v) for v in node.inputs if v)


def weight_of(view: View, value: str) -> NDArray[np.generic] | None:
    """Return a constant weight, decoded where it is quantized; None where it is computed."""
    if view.is_constant(value):
        return view.constant(value)
    if not is_weight(view, value):
        return None
    node = view.producers[value]
    parts = [view.constant(v) for v in node.inputs if v]
    return decode(*parts, axis=_number(node, "axis", 1), block=_number(node, "block_size", 0))
