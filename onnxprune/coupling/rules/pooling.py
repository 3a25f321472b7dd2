"""Pooling and resampling: channels pass, places do not."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, rule

_WINDOWED = ("AveragePool", "LpPool", "MaxPool")


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
@rule("GridSample", domain=MICROSOFT)
def pooling(op: Op) -> Iterator[Relation]:
    """Batch and channels pass through; every place looks at its neighbours.

    Where the window is one place wide it looks at itself alone.
    """
    x, y = op.x(0), op.y()
    if any(extra is not None for extra in op.outputs[1:]):
        return  # MaxPool's indices count through all axes
    if op.op_type == "GridSample":
        yield from op.tie(op.x(1), 0, y, 0)
    if op.op_type != "MaxRoiPool":
        yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), y.axis(1))
    for axis in _apart(op):
        yield Tie(x.axis(axis), y.axis(axis))
    for axis in range(2, x.rank) if op.op_type == "GlobalAveragePool" else ():
        yield Tie(x.axis(axis), x.axis(axis))
        yield Contract(x.axis(axis), 0, "mean")  # what ReduceMean says, where places hold features


def _apart(op: Op) -> Iterator[int]:
    """Yield the axes along which windows are one place wide and one apart.

    They have no padding there: it must be narrower than the window.
    """
    kernel = op.integers("kernel_shape") if op.op_type in _WINDOWED else []
    strides = op.integers("strides") or [1] * len(kernel)
    for number, size in enumerate(kernel):
        if size == strides[number] == 1:
            yield number + 2


@rule("NhwcMaxPool", domain=MICROSOFT)
def pooling_with_channels_last(op: Op) -> Iterator[Relation]:
    """Batch and channels pass through."""
    for axis in (0, -1):
        yield from op.tie(op.x(0), axis, op.y(), axis)


@rule("Resize", "Upsample")
def resize(op: Op) -> Iterator[Relation]:
    """Axes that keep their size and their scale pass through."""
    x, y = op.x(0), op.y()
    crops = op.attributes.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
    for axis in x.axes():
        if x.shape[axis] == y.shape[axis] and _scale(op, axis) == 1.0 and not crops:
            yield Tie(x.axis(axis), y.axis(axis))
        else:
            yield Freeze(x.axis(axis), f"{op.op_type} over this axis")
            yield Freeze(y.axis(axis), f"{op.op_type} over this axis")


def _scale(op: Op, axis: int) -> float:
    """Return the scale of an axis, 1 where none is given: then sizes say it."""
    tensor = op.optional(1 if op.op_type == "Upsample" or op.opset < 11 else 2)
    given = op.attributes.get("scales", None if tensor is None else tensor.data)
    scales = np.ravel(np.asarray([] if given is None else given))
    axes = np.ravel(np.asarray(op.attributes.get("axes", op.x(0).axes()))) % op.x(0).rank
    found = scales[axes == axis] if len(scales) == len(axes) else scales[:0]
    return float(found[0]) if len(found) else 1.0
