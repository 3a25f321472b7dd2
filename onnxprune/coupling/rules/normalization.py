"""Normalizations: which axis a statistic runs over decides what a cut changes."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Axis, Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import Op, rule


@rule("BatchNormalization")
def batch_normalization(op: Op) -> Iterator[Relation]:
    """Per channel with stored statistics: every vector follows the channels."""
    x, y = op.x(0), op.y()
    if op.flag("training_mode") or any(extra is not None for extra in op.outputs[1:]):
        for tensor in (*op.present(), *op.outputs):
            for axis in tensor.axes() if tensor is not None else ():
                assert tensor is not None
                yield Freeze(tensor.axis(axis), "BatchNormalization in training mode")
        return
    for axis in x.axes():
        yield Tie(x.axis(axis), y.axis(axis))
    for vector in op.inputs[1:5]:
        if vector is not None:
            yield Tie(vector.axis(0), y.axis(1))


@rule("InstanceNormalization")
def instance_normalization(op: Op) -> Iterator[Relation]:
    """Statistics over the spatial axes of each channel: channels are independent."""
    x, y = op.x(0), op.y()
    for axis in (0, 1):
        yield Tie(x.axis(axis), y.axis(axis))
    for vector in op.inputs[1:]:
        if vector is not None:
            yield Tie(vector.axis(0), y.axis(1))


@rule("LayerNormalization")
def layer_normalization(op: Op) -> Iterator[Relation]:
    """The last axis is normalized over: scale and bias follow it, its statistics change."""
    x, y = op.x(0), op.y()
    axis = op.integer("axis", -1) % x.rank
    if axis != x.rank - 1 or any(extra is not None for extra in op.outputs[1:]):
        return
    for i in x.axes():
        yield Tie(x.axis(i), y.axis(i))
    for vector in op.inputs[1:]:
        if vector is not None and vector.rank == 1:
            yield from op.tie(vector, 0, y, -1)
    yield Contract(x.axis(-1), 0, "norm")


@rule("GroupNormalization")
def group_normalization(op: Op) -> Iterator[Relation]:
    """Statistics over each group: whole groups may go."""
    x, y = op.x(0), op.y()
    groups = op.integer("num_groups", 1)
    size = x.shape[1] // groups
    position = np.arange(x.shape[1])
    for axis in (0, 1):
        yield Tie(x.axis(axis), y.axis(axis))
    if groups == 1:
        yield Freeze(x.axis(1), "GroupNormalization has one group only")
    # A scale per group is opset 18's; opset 21 has one per channel.
    group = Axis(f"{op.name}/group", 0)
    yield Tie(x.axis(1), group, position, position // size)
    for vector in op.inputs[1:]:
        if vector is not None and vector.shape[0] == x.shape[1]:
            yield Tie(vector.axis(0), y.axis(1))
        elif vector is not None:
            yield Tie(vector.axis(0), group)


@rule("LpNormalization")
def lp_normalization(op: Op) -> Iterator[Relation]:
    """The norm is a sum: what is zero adds nothing to it."""
    x, y = op.x(0), op.y()
    for axis in x.axes():
        yield Tie(x.axis(axis), y.axis(axis))
    yield Contract(x.axis(op.integer("axis", -1)), 0)


@rule("Softmax", "LogSoftmax", "Hardmax")
def softmax(op: Op) -> Iterator[Relation]:
    """Every position on the axis changes all others; the other axes are independent."""
    x, y = op.x(0), op.y()
    axis = op.integer("axis", -1 if op.opset >= 13 else 1) % x.rank
    for i in x.axes():
        if i == axis or (op.opset < 13 and i > axis):
            yield Freeze(x.axis(i), f"{op.op_type} over this axis")
            yield Freeze(y.axis(i), f"{op.op_type} over this axis")
        else:
            yield Tie(x.axis(i), y.axis(i))
