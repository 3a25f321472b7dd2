"""Quantized operators: the relations of what they compute, and scales that follow their axis."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from onnxprune.coupling.probe import probe
from onnxprune.coupling.relations import Axis, Contract, Relation, Split, Tie
from onnxprune.coupling.rules._registry import Op, Tensor, rule
from onnxprune.coupling.rules.convolution import conv
from onnxprune.coupling.rules.linear import gemm, matmul
from onnxprune.coupling.rules.normalization import softmax
from onnxprune.coupling.rules.pointwise import elementwise
from onnxprune.coupling.rules.pooling import pooling

_MS = "com.microsoft"


def _vector(op: Op, slots: tuple[int, ...], y: Tensor, axis: int) -> Iterator[Relation]:
    """Scales and zero points hold one number, or one per position of an axis."""
    for slot in slots:
        side = op.optional(slot)
        if side is not None and side.rank == 1:
            yield from op.tie(side, 0, y, axis)


def _inner(
    op: Op, op_type: str, slots: tuple[int, ...], zeros: tuple[int | None, ...]
) -> tuple[Op, dict[int, tuple[int, int | None]]]:
    """Show the operator without its scales; map its slots to the real ones and their zero point."""
    inputs = tuple(op.optional(slot) for slot in slots)
    places = {n: (slot, zeros[n] if n < len(zeros) else None) for n, slot in enumerate(slots)}
    return replace(op, op_type=op_type, inputs=inputs), places


def _mapped(
    relations: Iterator[Relation], places: dict[int, tuple[int, int | None]]
) -> Iterator[Relation]:
    for relation in relations:
        if isinstance(relation, Contract):
            slot, zero = places[relation.slot]
            yield replace(relation, slot=slot, zero=zero)
        else:
            yield relation


@rule("QuantizeLinear", "DequantizeLinear")
@rule("QuantizeLinear", "DequantizeLinear", domain=_MS)
def quantize(op: Op) -> Iterator[Relation]:
    """Element by element; a scale per channel follows its axis, one per block its blocks."""
    x, y = op.x(0), op.y()
    axis = op.integer("axis", 1)
    for i in x.axes():
        yield Tie(x.axis(i), y.axis(i))
    for side in op.inputs[1:]:
        if side is None or not side.rank:
            continue
        if side.rank == 1 and x.rank > 0 and side.shape[0] == x.shape[axis % x.rank]:
            yield Tie(side.axis(0), x.axis(axis % x.rank))
        elif side.rank == x.rank > 1:
            yield from _blocks(op, x, side, axis % x.rank)


def _blocks(op: Op, x: Tensor, side: Tensor, axis: int) -> Iterator[Relation]:
    """One scale per block of positions on one axis: only whole blocks can go."""
    for i in x.axes():
        yield from op.tie(side, i, x, i)
    if side.shape[axis] != x.shape[axis]:
        position = np.arange(x.shape[axis])
        block = op.integer("block_size", 0) or -(-x.shape[axis] // side.shape[axis])
        yield Tie(x.axis(axis), side.axis(axis), position, position // block)


@rule("QLinearConv")
def linear_conv(op: Op) -> Iterator[Relation]:
    """A convolution; scales and zero points of the weight are per filter or one for all."""
    yield from _mapped(conv(_inner(op, "Conv", (0, 3, 8), ())[0]), {0: (0, 2)})
    yield from _vector(op, (4, 5), op.y(), 1)


@rule("QLinearConv", domain=_MS)
def linear_conv_of_onnxruntime(op: Op) -> Iterator[Relation]:
    """The same, where channels may come last in what goes in and out, but not in the weight."""
    if not op.flag("channels_last"):
        yield from linear_conv(op)
        return
    x, y = op.x(0), op.y()
    first = replace(op, inputs=(_first(x), *op.inputs[1:]), outputs=(_first(y),))
    for relation in linear_conv(first):
        yield _channels_last(relation, {x.value: x.rank, y.value: y.rank})


def _first(x: Tensor) -> Tensor:
    return replace(x, shape=(x.shape[0], x.shape[-1], *x.shape[1:-1]))


def _channels_last(relation: Relation, ranks: Mapping[str, int]) -> Relation:
    """Number the axes of some values as they are stored."""

    def stored(axis: Axis) -> Axis:
        if axis.value not in ranks or axis.axis == 0:
            return axis
        last = ranks[axis.value] - 1
        return axis._replace(axis=last if axis.axis == 1 else axis.axis - 1)

    if isinstance(relation, Tie):
        return replace(relation, a=stored(relation.a), b=stored(relation.b))
    if isinstance(relation, Split):
        factors = tuple((stored(axis), place) for axis, place in relation.factors)
        return Split(stored(relation.axis), factors)
    return replace(relation, axis=stored(relation.axis))


@rule("ConvInteger")
def conv_integer(op: Op) -> Iterator[Relation]:
    """A convolution that leaves scaling to others."""
    yield from _mapped(conv(_inner(op, "Conv", (0, 1), ())[0]), {0: (0, 2)})
    yield from _vector(op, (3,), op.y(), 1)


@rule("QLinearMatMul")
def linear_matmul(op: Op) -> Iterator[Relation]:
    """A matrix product; scales are per row of A and per column of B, or one for all."""
    inner, places = _inner(op, "MatMul", (0, 3), (2, 5))
    yield from _mapped(matmul(inner), places)
    yield from _vector(op, (4, 5), op.y(), -1)


@rule("MatMulInteger")
def matmul_integer(op: Op) -> Iterator[Relation]:
    """A matrix product that leaves scaling to others."""
    inner, places = _inner(op, "MatMul", (0, 1), (2, 3))
    yield from _mapped(matmul(inner), places)
    yield from _vector(op, (3,), op.y(), -1)


@rule("MatMulIntegerToFloat", domain=_MS)
def matmul_to_float(op: Op) -> Iterator[Relation]:
    """MatMulInteger with scales and a bias."""
    inner, places = _inner(op, "MatMul", (0, 1), (4, 5))
    yield from _mapped(matmul(inner), places)
    yield from _vector(op, (3, 5, 6), op.y(), -1)


@rule("DynamicQuantizeMatMul", domain=_MS)
def dynamic_matmul(op: Op) -> Iterator[Relation]:
    """MatMulIntegerToFloat that quantizes A itself; what is 0 does not widen A's range."""
    inner, places = _inner(op, "MatMul", (0, 1), (None, 3))
    yield from _mapped(matmul(inner), places)
    yield from _vector(op, (2, 3, 4), op.y(), -1)
    yield from _measured(op.x(0), range(op.x(0).rank - 1))


@rule("QGemm", domain=_MS)
def linear_gemm(op: Op) -> Iterator[Relation]:
    """A Gemm; scales of B are per column or one for all."""
    inner, places = _inner(op, "Gemm", (0, 3, 6), (2, 5))
    yield from _mapped(gemm(inner), places)
    yield from _vector(op, (4, 5), op.y(), 1)


@rule("DynamicQuantizeLinear")
def dynamic_quantize(op: Op) -> Iterator[Relation]:
    """The scale is a statistic over all elements and 0: channels that are 0 leave it alone.

    So the operator is an exit of all that it reads.
    """
    x, y = op.x(0), op.y()
    for axis in x.axes():
        yield Tie(x.axis(axis), y.axis(axis))
    yield from _measured(x, x.axes())


def _measured(x: Tensor, axes: range) -> Iterator[Relation]:
    """Every element of input 0 has a say in its scale."""
    for axis in axes:
        yield Contract(x.axis(axis), 0)


@rule("QLinearAdd", "QLinearMul", domain=_MS)
def linear_binary(op: Op) -> Iterator[Relation]:
    """Element by element, with one scale per operand."""
    yield from elementwise(_inner(op, "Add", (0, 3), ())[0])


@rule("QLinearSigmoid", "QLinearLeakyRelu", domain=_MS)
def linear_unary(op: Op) -> Iterator[Relation]:
    """Element by element."""
    yield from elementwise(_inner(op, "Relu", (0,), ())[0])


@rule("QLinearWhere", domain=_MS)
def linear_where(op: Op) -> Iterator[Relation]:
    """The condition has no scale."""
    yield from elementwise(_inner(op, "Where", (0, 1, 4), ())[0])


@rule("QLinearSoftmax", domain=_MS)
def linear_softmax(op: Op) -> Iterator[Relation]:
    """As Softmax of the opset that an attribute names."""
    inner = _inner(op, "Softmax", (0,), ())[0]
    yield from softmax(replace(inner, opset=op.integer("opset", 13)))


@rule("QLinearAveragePool", "QLinearGlobalAveragePool", domain=_MS)
def linear_pooling(op: Op) -> Iterator[Relation]:
    """As the pooling of floats; channels may come last."""
    if not op.flag("channels_last"):
        yield from pooling(_inner(op, op.op_type, (0,), ())[0])


@rule("QLinearConcat", domain=_MS)
def linear_concat(op: Op) -> Iterator[Relation]:
    """The output's scale comes first, then each operand with its own."""
    inner = _inner(op, "Concat", tuple(range(2, len(op.inputs), 3)), ())[0]
    yield from probe(inner, tuple(range(len(inner.inputs))))


@rule("DynamicQuantizeLSTM", domain=_MS)
def dynamic_lstm(op: Op) -> Iterator[Relation]:
    """An LSTM with transposed weights: hidden unit i is column i of each gate, and row i of R.

    Inputs and states are quantized by their range over the whole batch, which stays.
    """
    x, w, r = op.x(0), op.x(1), op.x(2)
    hidden = r.shape[1]
    yield Tie(x.axis(2), w.axis(1))
    yield Contract(x.axis(2), 0)
    yield Contract(r.axis(1), 2, zero=11)
    gates = [(op.optional(slot), 2) for slot in (1, 2)]
    gates += [(op.optional(slot), -1) for slot in (3, 7, 8, 9, 10, 11)]
    for tensor, axis in gates:
        if tensor is not None and tensor.shape[axis] >= hidden:  # else a number per direction
            position = np.arange(tensor.shape[axis])
            yield Tie(tensor.axis(axis), r.axis(1), position, position % hidden)
    y, *last = op.outputs
    for state in (s for s in (op.optional(5), op.optional(6), *last) if s is not None):
        yield Tie(state.axis(2), r.axis(1))
    if y is not None:
        yield Tie(y.axis(3), r.axis(1))
