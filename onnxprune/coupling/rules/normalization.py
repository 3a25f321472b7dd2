"""Normalizations: which axis a statistic runs over decides what a cut changes."""

from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.coupling.relations import Axis, Balance, Contract, Freeze, How, Relation, Split, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, Tensor, rule

_TRAINING = "an export in evaluation mode"


@rule("BatchNormalization")
def batch_normalization(op: Op) -> Iterator[Relation]:
    """Per channel with stored statistics: every vector follows the channels."""
    x, y = op.x(0), op.y()
    if op.flag("training_mode") or any(extra is not None for extra in op.outputs[1:]):
        for tensor in (*op.present(), *op.outputs):
            for axis in tensor.axes() if tensor is not None else ():
                assert tensor is not None
                yield Freeze(
                    tensor.axis(axis), "BatchNormalization in training mode", unlock=_TRAINING
                )
        return
    for axis in x.axes():
        yield Tie(x.axis(axis), y.axis(axis))
    for vector in op.inputs[1:5]:
        if vector is not None:
            yield Tie(vector.axis(0), y.axis(1))


@rule("InstanceNormalization")
def instance_normalization(op: Op) -> Iterator[Relation]:
    """Statistics over the axes behind the channels, which are independent.

    GroupNormalization is written with groups for channels, and channels on the first axis behind.
    """
    x, y = op.x(0), op.y()
    for axis in (0, 1, 2):
        yield Tie(x.axis(axis), y.axis(axis))
    yield Contract(x.axis(2), 0, "norm")
    for vector in op.inputs[1:]:
        if vector is not None:
            yield Tie(vector.axis(0), y.axis(1))


@rule("LayerNormalization")
def layer_normalization(op: Op) -> Iterator[Relation]:
    """The last axis is normalized over: scale and bias follow it, its statistics change."""
    yield from _over_last_axis(op, op.inputs[:1], op.inputs[1:], "norm")


@rule("RMSNormalization", "SimplifiedLayerNormalization")
def rms_normalization(op: Op) -> Iterator[Relation]:
    """LayerNormalization by the mean square alone."""
    yield from _over_last_axis(op, op.inputs[:1], op.inputs[1:], "rms")


@rule("SkipLayerNormalization", domain=MICROSOFT)
def skip_layer_normalization(op: Op) -> Iterator[Relation]:
    """LayerNormalization of a sum of two, and a bias; the sum is the fourth output."""
    yield from _over_last_axis(op, op.inputs[:2], op.inputs[2:], "norm")


@rule("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def skip_rms_normalization(op: Op) -> Iterator[Relation]:
    """RMSNormalization of a sum of two, and a bias; the sum is the fourth output."""
    yield from _over_last_axis(op, op.inputs[:2], op.inputs[2:], "rms")


def _over_last_axis(
    op: Op, addends: Sequence[Tensor | None], vectors: Sequence[Tensor | None], how: How
) -> Iterator[Relation]:
    """All axes pass; the vectors follow the last one. Statistics have size 1 there."""
    x = op.x(0)
    if op.integer("axis", -1) % x.rank != x.rank - 1:
        return
    outputs = [y for y in op.outputs if y is not None and y.rank == x.rank]
    for tensor in (*outputs, *(a for a in addends if a is not None)):
        for back in range(1, min(tensor.rank, x.rank) + 1):
            yield from op.tie(tensor, -back, x, -back)
    for vector in vectors:
        if vector is not None and vector.rank == 1:
            yield from op.tie(vector, 0, x, -1)
    yield Contract(x.axis(-1), 0, how)


@rule("GroupNormalization")
def group_normalization(op: Op) -> Iterator[Relation]:
    """Statistics over each group: whole groups may go, or equally many channels of each."""
    x, y = op.x(0), op.y()
    groups = op.integer("num_groups", 1)
    size = x.shape[1] // groups
    position = np.arange(x.shape[1])
    group, piece = Axis(f"{op.name}/group", 0), Axis(f"{op.name}/piece", 0)
    for axis in (0, 1):
        yield Tie(x.axis(axis), y.axis(axis))
    if size == 1:
        yield Tie(x.axis(1), group, position, position)
    else:
        yield Contract(x.axis(1), 0, "norm", groups=groups)
    if min(groups, size) > 1:
        yield Split(x.axis(1), ((group, position // size), (piece, position)))
        yield Balance(piece, groups)
    # A scale per group is opset 18's; opset 21 has one per channel.
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
