"""Operators that only move elements: all of them are probed."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.probe import probe
from onnxprune.coupling.relations import CONSTANT, Free, Freeze, Positions, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, rule

_CHOOSES = "nothing: any position may be asked for"
_PADS = "an export that pads with a constant, or other axes"


@rule(
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)
def movement(op: Op) -> Iterator[Relation]:
    """The first input moves; the others say how."""
    if all(tensor is None or tensor.data is not None for tensor in op.inputs[1:]):
        yield from probe(op, (0,))
    elif op.op_type == "Slice":
        yield from _moving_window(op)


def _moving_window(op: Op) -> Iterator[Relation]:
    """A slice whose place is known at run time only leaves the axes it does not name alone."""
    x, y, given = op.x(0), op.y(), op.optional(3)
    if given is None or given.data is None:
        return
    sliced = {int(axis) % x.rank for axis in given.data}
    for axis in x.axes():
        if axis in sliced:
            for tensor in (x, y):
                yield Freeze(
                    tensor.axis(axis), "Slice chooses its positions at run time", unlock=CONSTANT
                )
        else:
            yield Tie(x.axis(axis), y.axis(axis))


@rule("Concat")
def concat(op: Op) -> Iterator[Relation]:
    """Every input moves."""
    yield from probe(op, tuple(range(len(op.inputs))))


@rule("ExpandDims", domain=MICROSOFT)
def expand_dims(op: Op) -> Iterator[Relation]:
    """One more axis, of size 1."""
    x, y, given = op.x(0), op.y(), op.x(1).data
    if given is not None:
        new = int(given) % y.rank
        for axis in x.axes():
            yield Tie(x.axis(axis), y.axis(axis + (axis >= new)))


@rule("Pad")
@rule("Pad", domain=MICROSOFT)
def pad(op: Op) -> Iterator[Relation]:
    """Padding with a constant adds positions; other modes copy neighbours."""
    mode = op.attributes.get("mode", b"constant")
    x, y, pads = op.x(0), op.y(), _pads(op)
    if pads is None:
        return
    if mode == b"constant" and (pads >= 0).all():
        yield from probe(op, (0,))
        return
    for axis, (before, after) in enumerate(pads.tolist()):
        if before or after:
            what = "copies neighbours along" if mode != b"constant" else "crops"
            for tensor in (x, y):
                yield Freeze(tensor.axis(axis), f"Pad {what} this axis", unlock=_PADS)
        else:
            yield Tie(x.axis(axis), y.axis(axis))


def _pads(op: Op) -> Positions | None:
    """Return (before, after) of every axis, None where they are known at run time only."""
    slots = [op.optional(slot) for slot in (1, 3)]
    if any(tensor is not None and tensor.data is None for tensor in slots):
        return None
    given, axes = (None if tensor is None else tensor.data for tensor in slots)
    given = np.asarray(op.attributes["pads"] if given is None else given, np.int64)
    pads = np.zeros((op.x(0).rank, 2), np.int64)
    pads[slice(None) if axes is None else np.asarray(axes, np.int64)] = given.reshape(2, -1).T
    return pads


@rule("Gather")
def gather(op: Op) -> Iterator[Relation]:
    """Constant indices move positions; computed ones choose among all of them."""
    x, indices, y = op.x(0), op.x(1), op.y()
    axis = op.integer("axis", 0) % x.rank
    if indices.constant and indices.data is not None and indices.rank <= 1:
        yield from probe(op, (0,))
        return
    how = "by a table" if indices.constant else "at run time"
    yield Freeze(x.axis(axis), f"Gather chooses among these positions {how}", unlock=_CHOOSES)
    for i in x.axes():
        if i != axis:
            yield from op.tie(x, i, y, i if i < axis else i + indices.rank - 1)
    for i in indices.axes():
        yield from op.tie(indices, i, y, axis + i)


@rule("ConstantOfShape")
def constant_of_shape(op: Op) -> Iterator[Relation]:
    """Copies of one number: any length will do."""
    for axis in op.y().axes():
        yield Free(op.y().axis(axis))


@rule("Col2Im")
def col2im(op: Op) -> Iterator[Relation]:
    """Each channel's block of columns becomes one channel of the image."""
    x, y = op.x(0), op.y()
    yield Tie(x.axis(0), y.axis(0))
    if y.shape[1] == 1:
        yield Freeze(x.axis(1), "Col2Im makes its only channel of this axis")
        return
    place = np.arange(x.shape[1])
    yield Tie(x.axis(1), y.axis(1), place, place // (x.shape[1] // y.shape[1]))


@rule("CenterCropPad")
def center_crop_pad(op: Op) -> Iterator[Relation]:
    """Axes that keep their size pass; the others lose or gain on both sides of their middle."""
    x, y = op.x(0), op.y()
    for axis in x.axes():
        if x.shape[axis] == y.shape[axis]:
            yield Tie(x.axis(axis), y.axis(axis))
        else:
            for tensor in (x, y):
                yield Freeze(tensor.axis(axis), "CenterCropPad counts from the middle of this axis")
