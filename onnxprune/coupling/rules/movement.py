"""Operators that only move elements: all of them are probed."""

from collections.abc import Iterator

from onnxprune.coupling.probe import probe
from onnxprune.coupling.relations import Free, Freeze, Relation
from onnxprune.coupling.rules._registry import Op, rule


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
    yield from probe(op, (0,))


@rule("Concat")
def concat(op: Op) -> Iterator[Relation]:
    """Every input moves."""
    yield from probe(op, tuple(range(len(op.inputs))))


@rule("Pad")
def pad(op: Op) -> Iterator[Relation]:
    """Padding with a constant adds positions; other modes copy neighbours."""
    mode = op.attributes.get("mode", b"constant")
    if mode == b"constant":
        yield from probe(op, (0,))
        return
    x, y = op.x(0), op.y()
    for axis in x.axes():
        if x.shape[axis] != y.shape[axis]:
            reason = "Pad copies neighbours along this axis"
            yield Freeze(x.axis(axis), reason)
            yield Freeze(y.axis(axis), reason)
        else:
            yield from op.tie(x, axis, y, axis)


@rule("Gather")
def gather(op: Op) -> Iterator[Relation]:
    """Constant indices move positions; computed ones choose among all of them."""
    x, indices, y = op.x(0), op.x(1), op.y()
    axis = op.integer("axis", 0) % x.rank
    if indices.constant and indices.data is not None:
        yield from probe(op, (0,))
        return
    yield Freeze(x.axis(axis), "Gather chooses among these positions at run time")
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
