"""Where the positions of joint axes go when an operator moves elements."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.probe import NOWHERE, index_marks, moved_marks, pairs_on
from onnxprune.coupling.relations import Axis, Balance, Positions, Relation, Split, Tie
from onnxprune.coupling.rules._registry import Op, Tensor

__all__ = ["mixed_split", "moved_joint"]

MOVES = ("Flatten", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


def moved_joint(op: Op, joint: Axis, blocks: int) -> list[Relation]:
    """Follow the positions of an input's joint axis through a movement.

    Parameters
    ----------
    op : Op
    joint : Axis
        Of the first input.
    blocks : int

    Returns
    -------
    list of Relation
        Empty where the positions cannot be told by axes, or nothing moves.
    """
    x = op.x(0)
    known = all(tensor is None or tensor.data is not None for tensor in op.inputs[1:])
    if op.op_type not in MOVES or not known or x.value != joint.value:
        return []
    found: list[Relation] = []
    arrived = moved_marks(op, _joint_index(x, joint, blocks), 0)
    for y, moved in zip(op.outputs, arrived, strict=True):
        if y is None or not (moved != NOWHERE).any():
            continue
        relations = _arrivals(y, moved, joint, x.shape[joint.axis])
        if not relations:
            return []
        found += relations
    return found


def _arrivals(y: Tensor, moved: NDArray[np.int64], joint: Axis, width: int) -> list[Relation]:
    """Say where joint positions lie in one output."""
    pairs = {b: pairs_on(moved, b) for b in y.axes() if y.shape[b] > 1}
    held = {b: p for b, p in pairs.items() if not p.independent}
    if len(held) == 1:
        ((b, pair),) = held.items()
        if pair.source_decides and pair.target_decides and (np.diff(pair.target) > 0).all():
            return [Tie(joint, y.axis(b), pair.source, pair.target)]
    if len(held) == 2:
        for by, axis in (tuple(held), tuple(held)[::-1]):
            block, place = held[by], held[axis]
            outer = _constant_map(block.target, block.source // width)
            inner = _constant_map(place.target, place.source % width)
            if outer is None or inner is None or len(outer) != y.shape[by]:
                continue
            if (np.diff(outer) > 0).all() and (np.diff(inner) > 0).all():
                there = Axis(y.value, axis, by)
                across = np.arange(len(inner))
                source = (outer[:, None] * width + inner).ravel()
                target = (np.arange(len(outer))[:, None] * y.shape[axis] + across).ravel()
                return [Balance(there, len(outer)), Tie(joint, there, source, target)]
    return []


def _constant_map(key: Positions, value: Positions) -> Positions | None:
    """Return the one value of each key 0, 1, ..., None where a key has several."""
    both = np.unique(np.stack([key, value]), axis=1)
    if not np.array_equal(both[0], np.arange(both.shape[1])):
        return None
    return np.asarray(both[1])


def mixed_split(op: Op, relations: Sequence[Relation]) -> Iterator[Relation]:
    """Undo the freeze of an axis that holds several others *within each block* of a channel axis.

    GroupNormalization is written [n, groups, channels of the group x places]: the last axis alone
    mixes channels, told apart by the group it is channels and places again.
    """
    if op.op_type != "Reshape":
        yield from relations
        return
    for tie in (r for r in relations if isinstance(r, Tie)):
        whole, group, runs = tie.a, tie.b, tie.b_index
        if runs is None:
            continue
        source = whole.value == op.x(0).value
        here, there = (op.x(0), op.y()) if source else (op.y(), op.x(0))
        blocks, size = there.shape[group.axis], here.shape[whole.axis]
        if group.axis + 1 >= there.rank or not _equal_runs(runs, blocks, size):
            continue
        joint = Axis(there.value, group.axis + 1, group.axis)
        maps = _maps(op, here, there, joint, source=source)
        if maps is None:
            continue
        piece = Axis(f"{op.name}/piece", 0)
        held = [(piece if k == whole.axis else here.axis(k), m) for k, m in maps]
        yield from (r for r in relations if r is not tie and joint.plain not in _spoken_of(r))
        yield Split(whole, ((group, runs), (piece, np.arange(size))))
        yield Balance(piece, blocks)
        yield Balance(joint, blocks)
        yield Split(joint, tuple(held))
        return
    yield from relations


def _spoken_of(relation: Relation) -> Iterator[Axis]:
    match relation:
        case Tie(a, b):
            yield from (a, b)
        case Split(axis, factors):
            yield from (axis, *(factor for factor, _ in factors))
        case _:
            yield relation.axis


def _equal_runs(place: Positions, blocks: int, size: int) -> bool:
    return (
        blocks < size == len(place)
        and size % blocks == 0
        and np.array_equal(place, np.arange(size) // (size // blocks))
    )


def _maps(
    op: Op, here: Tensor, there: Tensor, joint: Axis, *, source: bool
) -> list[tuple[int, Positions]] | None:
    """Map each joint position of ``there`` to its position on every axis of ``here``."""
    blocks = there.shape[joint.by]
    total = blocks * there.shape[joint.axis]
    marks = _joint_index(there, joint, blocks)
    found = []
    arrived = None if source else moved_marks(op, marks, 0)[0]
    for k in here.axes():
        place = index_marks(here, k)
        where = moved_marks(op, place, 0)[0] if source else place
        numbers = marks if arrived is None else arrived
        positions = np.full(total, -1, np.int64)
        positions[numbers.ravel()] = where.ravel()
        if here.shape[k] > 1 and np.array_equal(positions[numbers], where):
            found.append((k, positions))
    return found or None


def _joint_index(tensor: Tensor, joint: Axis, blocks: int) -> NDArray[np.int64]:
    """Let each element hold its position on a joint axis."""
    run = tensor.shape[joint.by] // blocks
    width = tensor.shape[joint.axis]
    return index_marks(tensor, joint.by) // run * width + index_marks(tensor, joint.axis)
