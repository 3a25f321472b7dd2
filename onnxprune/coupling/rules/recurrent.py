"""Recurrent layers: a hidden unit is a row in every gate, and a column of the recurrence."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Contract, Relation, Tie
from onnxprune.coupling.rules._registry import Op, rule


@rule("LSTM", "GRU", "RNN")
def recurrent(op: Op) -> Iterator[Relation]:
    """Unit i sits in row i of each gate of W, R and B, in column i of R, and in every state.

    Both directions lose the same unit numbers: one hidden_size serves both.
    """
    x, w, r = op.x(0), op.x(1), op.x(2)
    y, *last = op.outputs
    first = op.flag("layout")  # the batch comes first
    yield Tie(x.axis(2), w.axis(2))
    yield Contract(x.axis(2), 0)
    yield Contract(r.axis(2), 2)
    for slot in (1, 2, 3, *([7] if op.op_type == "LSTM" else [])):
        tensor = op.optional(slot)
        if tensor is not None:
            position = np.arange(tensor.shape[1])
            yield Tie(tensor.axis(1), r.axis(2), position, position % r.shape[2])
    initial = [op.optional(slot) for slot in ((5, 6) if op.op_type == "LSTM" else (5,))]
    for state in (s for s in (*initial, *last) if s is not None):
        yield Tie(state.axis(2), r.axis(2))
        yield from op.tie(x, 0 if first else 1, state, 0 if first else 1)
    if y is not None:
        yield Tie(y.axis(3), r.axis(2))
        yield from op.tie(x, 0 if first else 1, y, 0 if first else 2)
