"""Derivatives of normalizations."""

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


@vjp("BatchNormalization")
def batch_normalization(tape: Tape, call: Call) -> Gradients:
    """A factor per channel."""
    if call.op.flag("training_mode") or call.slots != {0}:
        raise UnsupportedError("its statistics are those of the batch")
    scale, _, _, variance = (
        np.asarray(tape.array(call.op.x(slot).value), np.float64) for slot in range(1, 5)
    )
    epsilon = epsilon_of(call, 1e-5)
    yield 0, tape.scaled(call.g, scale / np.sqrt(variance + epsilon), call.op.x(0).rank)


def epsilon_of(call: Call, default: float) -> float:
    """Read the attribute."""
    value = call.op.attributes.get("epsilon", default)
    assert isinstance(value, float)
    return value


def standardized(
    tape: Tape, x: str, axes: Sequence[int], epsilon: float, *, centred: bool = True
) -> tuple[str, str]:
    """Return the value with mean 0 and variance 1 over the axes, and 1 / deviation."""
    if centred:
        x = tape.op("Sub", x, tape.reduce("ReduceMean", x, axes))
    variance = tape.reduce("ReduceMean", tape.op("Mul", x, x), axes)
    deviation = tape.op("Sqrt", tape.op("Add", variance, tape.const(epsilon)))
    inverse = tape.op("Reciprocal", deviation)
    return tape.op("Mul", x, inverse), inverse


def normed(tape: Tape, call: Call) -> tuple[str, str, list[int]]:
    """Return what a normalization standardizes, the gradient there, and over which axes."""
    op = call.op
    rank, scale = op.x(0).rank, np.asarray(tape.array(op.x(1).value))
    if op.op_type == "GroupNormalization":
        groups, channels = op.integer("num_groups", 1), op.x(0).shape[1]
        scale = np.repeat(scale, channels // len(scale)).reshape(-1, *[1] * (rank - 2))
        gradient = tape.op("Mul", call.g, tape.const(scale))
        split = [0, groups, -1]
        return tape.reshape(call.x, split), tape.reshape(gradient, split), [2]
    if op.op_type == "InstanceNormalization":
        scale = scale.reshape(-1, *[1] * (rank - 2))
        return call.x, tape.op("Mul", call.g, tape.const(scale)), list(range(2, rank))
    last = list(range(op.integer("axis", -1) % rank, rank))
    return call.x, tape.op("Mul", call.g, op.x(1).value), last


def unstandardize(
    tape: Tape,
    gradient: str,
    normal: str,
    inverse: str,
    axes: Sequence[int],
    *,
    centred: bool = True,
) -> str:
    """Return inverse * (g - mean(g) - n mean(g n)), the derivative of standardizing."""
    along = tape.reduce("ReduceMean", tape.op("Mul", gradient, normal), axes)
    rest = tape.op("Sub", gradient, tape.op("Mul", normal, along))
    if centred:
        rest = tape.op("Sub", rest, tape.reduce("ReduceMean", gradient, axes))
    return tape.op("Mul", rest, inverse)


@vjp("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def layer_normalization(tape: Tape, call: Call) -> Gradients:
    """Statistics over the last axes."""
    if call.slots != {0} or any(call.gradients[1:]):
        raise UnsupportedError("its statistics are read, or its scale is an activation")
    x, gradient, axes = normed(tape, call)
    centred = call.op.op_type == "LayerNormalization"
    normal, inverse = standardized(tape, x, axes, epsilon_of(call, 1e-5), centred=centred)
    yield 0, unstandardize(tape, gradient, normal, inverse, axes, centred=centred)


@vjp("GroupNormalization", "InstanceNormalization")
def group_normalization(tape: Tape, call: Call) -> Gradients:
    """Statistics over the positions of each channel, or of several."""
    if call.slots != {0}:
        raise UnsupportedError("its scale is an activation")
    x, gradient, axes = normed(tape, call)
    normal, inverse = standardized(tape, x, axes, epsilon_of(call, 1e-5))
    flat = unstandardize(tape, gradient, normal, inverse, axes)
    yield 0, tape.reshape(flat, tape.shape(call.x))


@vjp("LpNormalization")
def lp_normalization(tape: Tape, call: Call) -> Gradients:
    """(g - y sum(g y)) / norm; only for p = 2."""
    if call.op.integer("p", 2) != 2:
        raise UnsupportedError("p is not 2")
    axes = [call.op.integer("axis", -1) % call.op.x(0).rank]
    norm = tape.op("Sqrt", tape.reduce("ReduceSum", tape.op("Mul", call.x, call.x), axes))
    along = tape.reduce("ReduceSum", tape.op("Mul", call.g, call.y), axes)
    yield 0, tape.op("Div", tape.op("Sub", call.g, tape.op("Mul", call.y, along)), norm)
