"""Recurrent layers: a hidden unit is a row in every gate, and a column of the recurrence."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Axis, Balance, Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import Op, Tensor, rule

STATES = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}


@rule("LSTM", "GRU", "RNN")
def recurrent(op: Op) -> Iterator[Relation]:
    """Unit i sits in row i of each gate of W, R and B, in column i of R, and in every state.

    Two directions lose equally many units (one hidden_size serves both), each its own.
    """
    x, w, r = op.x(0), op.x(1), op.x(2)
    first = op.flag("layout")  # the batch comes first
    yield Tie(x.axis(2), w.axis(2))
    yield Contract(x.axis(2), 0)
    yield Contract(r.axis(2), 2)
    yield Freeze(r.axis(0), "the directions of a recurrent layer")
    yield from _follow(op, r, 2, 0)
    for slot in (1, 2, 3, *([7] if op.op_type == "LSTM" else [])):
        if (tensor := op.optional(slot)) is not None:
            yield from _follow(op, tensor, 1, 0)
    initial = [op.optional(slot) for slot in STATES[op.op_type]]
    for state in (s for s in (*initial, *op.outputs[1:]) if s is not None):
        yield from op.tie(x, 0 if first else 1, state, 0 if first else 1)
        if state.uniform != 0.0:
            yield from _follow(op, state, 2, 1 if first else 0)
        else:
            yield Freeze(state.axis(2), "zeros, which are left out where units go")
    if (lengths := op.optional(4)) is not None:
        yield from op.tie(lengths, 0, x, 0 if first else 1)
    if (y := op.outputs[0]) is not None:
        yield from op.tie(x, 0 if first else 1, y, 0 if first else 2)
        yield from _follow(op, y, 3, 2 if first else 1)


def _follow(op: Op, tensor: Tensor, axis: int, by: int) -> Iterator[Relation]:
    """Tie an axis of gates or units to the units that R counts, each direction to its own."""
    r = op.x(2)
    directions, units = r.shape[0], r.shape[2]
    size = tensor.shape[axis]
    place = np.arange(directions * size)
    unit = place // size * units + place % size % units
    if directions == 1:
        yield Tie(tensor.axis(axis), r.axis(2), place, unit)
    else:
        joint = Axis(tensor.value, axis, by)
        yield Balance(joint, directions)
        yield Tie(joint, Axis(r.value, 2, 0), place, unit)
        yield Tie(tensor.axis(by), r.axis(0))
