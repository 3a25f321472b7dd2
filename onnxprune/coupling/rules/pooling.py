"""Pooling and resampling: channels pass, places do not."""

from collections.abc import Iterator

from onnxprune.coupling.relations import Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import Op, rule


@rule(
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
    "GridSample",
    "MaxRoiPool",
)
def pooling(op: Op) -> Iterator[Relation]:
    """Batch and channels pass through; every place looks at its neighbours."""
    x, y = op.x(0), op.y()
    if op.op_type != "MaxRoiPool":
        yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), y.axis(1))


@rule("Resize", "Upsample")
def resize(op: Op) -> Iterator[Relation]:
    """Axes that keep their size pass through."""
    x, y = op.x(0), op.y()
    for axis in x.axes():
        if x.shape[axis] == y.shape[axis]:
            yield Tie(x.axis(axis), y.axis(axis))
        else:
            yield Freeze(x.axis(axis), f"{op.op_type} over this axis")
