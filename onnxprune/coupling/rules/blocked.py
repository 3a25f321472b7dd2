"""Weights in blocks of a few bits: a block with its scale goes as a whole."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import Axis, Contract, Freeze, Relation, Split, Tie
from onnxprune.coupling.rules._registry import Op, Tensor, rule

_MS = "com.microsoft"


@rule("MatMulNBits", domain=_MS)
def blocked_matmul(op: Op) -> Iterator[Relation]:
    """Y = A B' with B [N, blocks, bytes]: outputs are free, inputs go in whole blocks."""
    a, b, y = op.x(0), op.x(1), op.y()
    if op.optional(4) is not None:
        return  # g_idx sorts inputs into blocks
    count, blocks = b.shape[:2]
    inputs = np.arange(a.shape[-1])
    row, block = b.axis(0), b.axis(1)
    for i in range(a.rank - 1):
        yield from op.tie(a, i, y, i)
    yield Tie(row, y.axis(-1))
    if blocks == 1:
        yield Freeze(a.axis(-1), "MatMulNBits keeps all its inputs in one block")
    yield Tie(a.axis(-1), block, inputs, inputs // op.integer("block_size", 32))
    yield Contract(a.axis(-1), 0)
    if (bias := op.optional(5)) is not None:
        yield Tie(bias.axis(0), y.axis(-1))
    for slot in (2, 3):
        side = op.optional(slot)
        if side is not None:
            yield from _per_block(op, side, row, block, count, blocks)


def _per_block(
    op: Op, side: Tensor, row: Axis, block: Axis, count: int, blocks: int
) -> Iterator[Relation]:
    """Scales, or zero points of which a byte may hold several; as a table or as one row."""
    wide = int(np.prod(side.shape)) // count
    number = np.arange(blocks)
    per_byte = -(-blocks // wide)
    column = block if per_byte == 1 else Axis(f"{op.name}/byte", 0)
    if per_byte > 1:
        yield Tie(block, column, number, number // per_byte)
    if side.rank == 1:
        place = np.arange(count * wide)
        if wide == 1:
            yield Tie(side.axis(0), row)
        else:
            maps = ((row, place // wide), (column, place % wide))
            yield Split(side.axis(0), maps)
        return
    yield Tie(side.axis(0), row)
    if wide > 1:
        yield Tie(side.axis(1), column)


@rule("GatherBlockQuantized", domain=_MS)
def blocked_gather(op: Op) -> Iterator[Relation]:
    """Rows are chosen at run time; the features of a row go in whole blocks."""
    data, indices, y = op.x(0), op.x(1), op.y()
    axis = op.integer("quantize_axis", 1) % data.rank
    if op.integer("gather_axis", 0) != 0 or data.rank != 2 or axis != 1:
        return
    features = np.arange(y.shape[-1])
    block = features // op.integer("block_size", 128)
    for i in indices.axes():
        yield from op.tie(indices, i, y, i)
    yield Freeze(data.axis(0), "GatherBlockQuantized chooses among these rows at run time")
    for side in (data, *op.inputs[2:]):
        if side is None:
            continue
        if side is not data:
            yield from op.tie(side, 0, data, 0)
        yield from _packed(op, side, y.axis(-1), features, block)


def _packed(
    op: Op, side: Tensor, feature: Axis, features: np.ndarray, block: np.ndarray
) -> Iterator[Relation]:
    """Positions of a table that hold several features, or one number per block of them."""
    width, blocks = side.shape[1], int(block[-1]) + 1
    if width == 1:
        return
    if width >= blocks and width > blocks:
        yield Tie(feature, side.axis(1), features, features // (len(features) // width))
    else:
        yield Tie(feature, side.axis(1), features, block // -(-blocks // width))
