"""Derivatives of sums, means and what is taken over whole axes."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.rules.reduction import reduced_axes
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.rules.pooling import shared
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


def _kept(tape: Tape, call: Call, axes: list[int], value: str) -> str:
    """Give a reduced value its axes back, of size 1."""
    if call.op.integer("keepdims", 1) or not axes:
        return value
    return tape.op("Unsqueeze", value, tape.const(np.asarray(axes, np.int64)))


def _early(tape: Tape, call: Call, axes: list[int]) -> str:
    """Return the result itself with its axes kept."""
    if call.op.integer("keepdims", 1) or not axes:
        return call.y
    shape = [1 if i in axes else n for i, n in enumerate(call.op.x(0).shape)]
    free = [i for i in range(len(shape)) if i not in axes]
    if free:
        shape[free[0]] = -1  # the batch may be of another size
    return tape.reshape(call.y, shape)


@vjp("ReduceSum", "ReduceMean")
def reduce_sum(tape: Tape, call: Call) -> Gradients:
    """Hand the gradient, or its share, to all positions."""
    axes = _axes(call)
    gradient = _kept(tape, call, axes, call.g)
    if call.op.op_type == "ReduceMean":
        count = int(np.prod([call.op.x(0).shape[a] for a in axes]))
        gradient = tape.op("Mul", gradient, tape.const(1.0 / count))
    yield 0, tape.op("Expand", gradient, tape.shape(call.x))


@vjp("ReduceMax", "ReduceMin")
def reduce_max(tape: Tape, call: Call) -> Gradients:
    """Goes to the positions that won, in equal parts."""
    axes = _axes(call)
    gradient = _kept(tape, call, axes, call.g)
    yield 0, shared(tape, gradient, call.x, _early(tape, call, axes), axes)


@vjp("ReduceL2", "ReduceSumSquare", "ReduceL1")
def reduce_norm(tape: Tape, call: Call) -> Gradients:
    """By x / y, 2 x or the sign."""
    axes = _axes(call)
    gradient = _kept(tape, call, axes, call.g)
    if call.op.op_type == "ReduceL1":
        slope = tape.op("Sign", call.x)
    elif call.op.op_type == "ReduceL2":
        slope = tape.op("Div", call.x, _early(tape, call, axes))
    else:
        slope = tape.op("Mul", call.x, tape.const(2.0))
    yield 0, tape.op("Mul", gradient, slope)


def _axes(call: Call) -> list[int]:
    given = call.op.optional(1)
    if given is not None and given.data is None:
        raise UnsupportedError("its axes are known at run time only")
    return reduced_axes(call.op)


@vjp("Softmax")
def softmax(tape: Tape, call: Call) -> Gradients:
    """The result times (g - sum of g y)."""
    product = tape.op("Mul", call.g, call.y)
    total = tape.reduce("ReduceSum", product, _softmax_axes(call))
    yield 0, tape.op("Sub", product, tape.op("Mul", call.y, total))


@vjp("LogSoftmax")
def log_softmax(tape: Tape, call: Call) -> Gradients:
    """The gradient less softmax times its sum."""
    total = tape.reduce("ReduceSum", call.g, _softmax_axes(call))
    yield 0, tape.op("Sub", call.g, tape.op("Mul", tape.op("Exp", call.y), total))


def _softmax_axes(call: Call) -> list[int]:
    rank = call.op.x(0).rank
    if call.op.opset >= 13:
        return [call.op.integer("axis", -1) % rank]
    return list(range(call.op.integer("axis", 1) % rank, rank))


@vjp("CumSum")
def cumsum(tape: Tape, call: Call) -> Gradients:
    """Sum up from the other end."""
    reverse = 1 - call.op.integer("reverse", 0)
    exclusive = call.op.integer("exclusive", 0)
    axis = tape.const(np.asarray(tape.array(call.op.x(1).value)))
    yield 0, tape.op("CumSum", call.g, axis, reverse=reverse, exclusive=exclusive)
