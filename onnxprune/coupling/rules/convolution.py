"""Convolutions: filters make channels, the second weight axis reads them."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from onnxprune.coupling.relations import Axis, Balance, Contract, Relation, Split, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, Tensor, rule


@rule("Conv")
def conv(op: Op) -> Iterator[Relation]:
    """Output channels follow the filters; input channels follow the filters' second axis."""
    x, w, y = op.x(0), op.x(1), op.y()
    groups = op.integer("group", 1)
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(w.axis(0), y.axis(1))
    if (bias := op.optional(2)) is not None:
        yield Tie(bias.axis(0), y.axis(1))
    if groups == 1:
        yield Tie(x.axis(1), w.axis(1))
    else:
        yield from _grouped(op, groups, reads=(x, 1), makes=(y, 1))
    if x.shape[1] > groups:
        yield Contract(x.axis(1), 0)


@rule("FusedConv", domain=MICROSOFT)
def fused_conv(op: Op) -> Iterator[Relation]:
    """Conv, a sum with a fourth input, and an activation."""
    yield from conv(op)
    if (z := op.optional(3)) is not None:
        for axis in (0, 1):
            yield Tie(z.axis(axis), op.y().axis(axis))


@rule("DeformConv")
def deform_conv(op: Op) -> Iterator[Relation]:
    """Conv with sampling places of its own for each of ``offset_group`` blocks of channels."""
    x, w, offset, y = op.x(0), op.x(1), op.x(2), op.y()
    yield from conv(replace(op, inputs=(x, w, op.optional(3))))
    blocks, mask = op.integer("offset_group", 1), op.optional(4)
    channel = np.arange(x.shape[1])
    block = Axis(f"{op.name}/block", 0)
    if blocks > 1:
        yield Tie(x.axis(1), block, channel, channel // (x.shape[1] // blocks))
    for table in (t for t in (offset, mask) if t is not None):
        yield Tie(table.axis(0), y.axis(0))
        place = np.arange(table.shape[1])
        if blocks > 1:
            yield Tie(table.axis(1), block, place, place // (table.shape[1] // blocks))


@rule("ConvTranspose")
def conv_transpose(op: Op) -> Iterator[Relation]:
    """As Conv, with the weight's first two axes swapped."""
    x, w, y = op.x(0), op.x(1), op.y()
    groups = op.integer("group", 1)
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), w.axis(0))
    if (bias := op.optional(2)) is not None:
        yield Tie(bias.axis(0), y.axis(1))
    if groups == 1:
        yield Tie(w.axis(1), y.axis(1))
    else:
        yield from _grouped(op, groups, reads=(y, 1), makes=(x, 1))
    if x.shape[1] > groups:
        yield Contract(x.axis(1), 0)


@rule("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_pads(op: Op) -> Iterator[Relation]:
    """ConvTranspose with its padding as an input."""
    yield from conv_transpose(replace(op, inputs=(op.x(0), op.x(1), op.optional(3))))


def _grouped(
    op: Op, groups: int, *, reads: tuple[Tensor, int], makes: tuple[Tensor, int]
) -> Iterator[Relation]:
    """Both channel axes are groups x offset: whole groups go, or equally many of each group.

    ``reads`` is the side whose offsets the weight's second axis counts, group by group. Where a
    group holds one channel (depthwise), the group *is* the channel and nothing is summed.
    """
    group = Axis(f"{op.name}/group", 0)
    counted = Axis(op.x(1).value, 1, by=0)
    for (tensor, axis), piece in ((reads, counted), (makes, Axis(f"{op.name}/piece", 0))):
        position = np.arange(tensor.shape[axis])
        offset = len(position) // groups
        if offset == 1:
            yield Tie(tensor.axis(axis), group, position, position)
        else:
            yield Split(tensor.axis(axis), ((group, position // offset), (piece, position)))
            yield Balance(piece, groups)
