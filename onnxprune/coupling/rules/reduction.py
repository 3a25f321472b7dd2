"""Reductions: the axes that are summed away are exits, those that look at all are frozen."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Contract, Freeze, How, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, rule

_HOW: dict[str, How | None] = {
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum",
    "ReduceMean": "mean",
    "ReduceLogSum": "sum",
    "ReduceLogSumExp": None,
    "ReduceMax": None,
    "ReduceMin": None,
    "ReduceProd": None,
    "ArgMax": None,
    "ArgMin": None,
}


@rule(*_HOW)
def reduce(op: Op) -> Iterator[Relation]:
    """Kept axes pass through; reduced axes are contracted where a sum does it."""
    x, y, given = op.x(0), op.y(), op.optional(1)
    if given is not None and given.data is None:
        return  # axes that are known at run time only
    reduced = reduced_axes(op)
    kept = [axis for axis in x.axes() if axis not in reduced]
    keepdims = bool(op.integer("keepdims", 1))
    for place, axis in enumerate(kept):
        yield Tie(x.axis(axis), y.axis(axis if keepdims else place))
    for axis in reduced:
        how = _HOW[op.op_type]
        if how is None:
            yield Freeze(x.axis(axis), f"{op.op_type} looks at all of this axis")
        else:
            yield Tie(x.axis(axis), x.axis(axis))
            yield Contract(x.axis(axis), 0, how)


def reduced_axes(op: Op) -> list[int]:
    """Return the axes a reduction reduces, from its attribute or its second input."""
    x = op.x(0)
    if op.op_type in ("ArgMax", "ArgMin"):
        return [op.integer("axis", 0) % x.rank]
    given = op.attributes.get("axes")
    second = op.optional(1)
    if given is None and second is not None:
        given = None if second.data is None or second.data.size == 0 else second.data
    if given is None:
        return [] if op.flag("noop_with_empty_axes") else list(x.axes())
    return sorted({int(a) % x.rank for a in np.ravel(np.asarray(given))})


@rule("CumProd", "CumSum", "LRN", "MeanVarianceNormalization", "TopK", "Trilu")
@rule("Trilu", domain=MICROSOFT)
def along_axis(op: Op) -> Iterator[Relation]:
    """What runs along an axis freezes it and leaves the others alone."""
    x, y = op.x(0), op.y()
    frozen = _run_along(op)
    for axis in x.axes():
        for out in op.outputs:
            if out is not None and axis not in frozen:
                yield Tie(x.axis(axis), out.axis(axis))
        if axis in frozen:
            yield Freeze(x.axis(axis), f"{op.op_type} runs along this axis")
            yield Freeze(y.axis(axis), f"{op.op_type} runs along this axis")


def _run_along(op: Op) -> set[int]:
    """Return the axes along which an operator runs."""
    rank = op.x(0).rank
    match op.op_type:
        case "CumProd" | "CumSum":
            return _axis_input(op, 1)
        case "MeanVarianceNormalization":
            return {axis % rank for axis in op.integers("axes") or (0, 2, 3)}
        case "TopK":
            return {op.integer("axis", -1) % rank}
        case "Trilu":
            return {rank - 1, rank - 2}
        case _:
            return {1}


def _axis_input(op: Op, slot: int) -> set[int]:
    """Read an axis from an input; one that is known at run time only may be any."""
    rank, given = op.x(0).rank, op.x(slot)
    return set(range(rank)) if given.data is None else {int(given.data.ravel()[0]) % rank}


@rule("DFT")
def dft(op: Op) -> Iterator[Relation]:
    """Frequencies mix all of one axis; real and imaginary parts sit on the last one."""
    x, y = op.x(0), op.y()
    if op.opset < 20:
        along = {op.integer("axis", 1) % x.rank}
    else:
        along = _axis_input(op, 2) if op.optional(2) is not None else {x.rank - 2}
    yield from op.same(x, y, but=along | {x.rank - 1})


@rule("STFT")
def stft(op: Op) -> Iterator[Relation]:
    """Frames and frequencies mix the whole signal; signals are apart."""
    yield from op.tie(op.x(0), 0, op.y(), 0)


@rule("Det")
def determinant(op: Op) -> Iterator[Relation]:
    """One number per matrix; matrices are apart."""
    for axis in range(op.x(0).rank - 2):
        yield from op.tie(op.x(0), axis, op.y(), axis)


@rule("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss")
def loss(op: Op) -> Iterator[Relation]:
    """Classes are numbered; samples are apart unless they are averaged."""
    if op.attributes.get("reduction", b"mean") != b"none":
        return
    for axis in op.x(1).axes():
        x_axis = axis + (axis > 0)
        yield from op.tie(op.x(0), x_axis, op.y(), axis)
        yield from op.tie(op.x(1), axis, op.y(), axis)
        if len(op.outputs) > 1 and op.outputs[1] is not None:
            yield from op.tie(op.y(1), x_axis, op.y(), axis)
