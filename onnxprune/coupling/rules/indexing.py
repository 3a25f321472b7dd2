"""Operators that look up or write places by number: the axes they do not number pass."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, Tensor, rule

_CHOOSES = "{op} chooses among these positions at run time"
_UNLOCK = "nothing: any position may be asked for"


def _chosen(op: Op, *tensors: Tensor, axis: int) -> Iterator[Freeze]:
    for tensor in tensors:
        yield Freeze(tensor.axis(axis), _CHOOSES.format(op=op.op_type), unlock=_UNLOCK)


@rule("GatherND")
@rule("GatherND", domain=MICROSOFT)
def gather_nd(op: Op) -> Iterator[Relation]:
    """Index tuples choose among the leading axes; the axes behind them pass."""
    x, indices, y = op.x(0), op.x(1), op.y()
    batch = op.integer("batch_dims", 0)
    chosen = batch + indices.shape[-1]
    for i in range(batch):
        yield from op.tie(x, i, y, i)
        yield from op.tie(indices, i, y, i)
    for i in range(batch, indices.rank - 1):
        yield from op.tie(indices, i, y, i)
    for i in range(batch, chosen):
        yield from _chosen(op, x, axis=i)
    for i in range(chosen, x.rank):
        yield from op.tie(x, i, y, i - chosen + indices.rank - 1)


@rule("ScatterND")
def scatter_nd(op: Op) -> Iterator[Relation]:
    """Index tuples choose among the leading axes; the axes behind them pass."""
    x, indices, updates, y = op.x(0), op.x(1), op.x(2), op.y()
    chosen = indices.shape[-1]
    for i in range(chosen):
        yield from _chosen(op, x, y, axis=i)
    for i in range(chosen, x.rank):
        yield from op.tie(x, i, y, i)
        yield from op.tie(updates, i - chosen + indices.rank - 1, y, i)


@rule("GatherElements")
def gather_elements(op: Op) -> Iterator[Relation]:
    """Each index chooses along one axis; the other axes run in step where all are read."""
    x, indices, y = op.x(0), op.x(1), op.y()
    axis = op.integer("axis", 0) % x.rank
    yield from op.tie(indices, axis, y, axis)
    for i in x.axes():
        if i != axis and x.shape[i] == indices.shape[i]:
            yield from (Tie(x.axis(i), tensor.axis(i)) for tensor in (indices, y))
    yield from _chosen(op, x, axis=axis)


@rule("Scatter", "ScatterElements")
def scatter_elements(op: Op) -> Iterator[Relation]:
    """Each index chooses along one axis; the other axes run in step where all are written."""
    x, indices, updates, y = op.x(0), op.x(1), op.x(2), op.y()
    axis = op.integer("axis", 0) % x.rank
    for i in x.axes():
        if i != axis and x.shape[i] == indices.shape[i]:
            for tensor in (indices, updates, y):
                yield Tie(x.axis(i), tensor.axis(i))
    yield from _chosen(op, x, y, axis=axis)


@rule("TensorScatter")
def tensor_scatter(op: Op) -> Iterator[Relation]:
    """Writes a stretch of one axis of a cache, where each sample says."""
    cache, update, at, y = op.x(0), op.x(1), op.optional(2), op.y()
    axis = op.integer("axis", -2) % cache.rank
    for tensor in (cache, update):
        yield from op.same(tensor, y, but=(axis,))
    if at is not None:
        yield from op.tie(at, 0, y, 0)
    yield from _chosen(op, cache, y, axis=axis)


@rule("Compress")
def compress(op: Op) -> Iterator[Relation]:
    """A constant condition moves positions; a computed one chooses among all of them."""
    x, condition, y = op.x(0), op.x(1), op.y()
    if "axis" not in op.attributes:
        return  # through all axes
    axis = op.integer("axis", 0) % x.rank
    yield from op.same(x, y, but=(axis,))
    if condition.data is None or not condition.constant:
        yield from _chosen(op, x, y, axis=axis)
        return
    place = np.arange(condition.shape[0])
    taken = np.flatnonzero(condition.data)
    yield Tie(x.axis(axis), condition.axis(0), place, place)
    yield Tie(y.axis(axis), x.axis(axis), np.arange(len(taken)), taken)


@rule("OneHot")
def one_hot(op: Op) -> Iterator[Relation]:
    """Every index gets a row of its own; the new axis counts classes."""
    indices, y = op.x(0), op.y()
    axis = op.integer("axis", -1) % y.rank
    for i in indices.axes():
        yield from op.tie(indices, i, y, i + (i >= axis))
    yield Freeze(y.axis(axis), "OneHot numbers its classes along this axis")


@rule("ReverseSequence")
def reverse_sequence(op: Op) -> Iterator[Relation]:
    """Time runs backwards up to each sample's length."""
    x, lengths, y = op.x(0), op.x(1), op.y()
    yield from op.same(x, y, but=(op.integer("time_axis", 0),))
    yield from op.tie(lengths, 0, x, op.integer("batch_axis", 1))


@rule("RoiAlign")
@rule("CropAndResize", domain=MICROSOFT)
def roi_align(op: Op) -> Iterator[Relation]:
    """Regions come out one by one; channels pass."""
    x, regions, batch, y = op.x(0), op.x(1), op.x(2), op.y()
    yield from op.tie(x, 1, y, 1)
    yield from op.tie(regions, 0, y, 0)
    yield from op.tie(batch, 0, y, 0)
    yield from _chosen(op, x, axis=0)
