"""Classes of positions sorted by footprint: which axes they lie on, and in which blocks."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis, Positions
from onnxprune.coupling.solver import Solution

__all__ = ["Footprint", "Member", "footprints"]

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Member:
    """Where a group's channels sit on one axis.

    ``positions`` has one row per channel: ``positions[c]`` are the places of channel ``c``.
    """

    axis: Axis
    positions: Positions


@dataclass(frozen=True, slots=True, eq=False)
class Footprint:
    """Classes with the same footprint; ``blocks`` says which block each class lies in."""

    members: tuple[Member, ...]
    blocks: Ints


@dataclass(frozen=True, slots=True)
class _Rows:
    """Positions of free classes, sorted by class, then axis, then position."""

    label: Ints
    axis: Ints
    position: Ints


def footprints(solution: Solution, blocks: Mapping[Axis, int]) -> list[Footprint]:
    """Sort the free classes of a solution into sets with the same footprint.

    Where an axis must stay balanced, the blocks that a class lies in are found. If the classes of
    different blocks leave different footprints, one of each is joined into one class, by number.

    Parameters
    ----------
    solution : Solution
    blocks : mapping of Axis to int
        How many blocks an axis has that must stay balanced.

    Returns
    -------
    list of Footprint
        Of at least two classes per block.
    """
    axes = list(solution.labels)
    rows = _rows(solution, axes)
    if not len(rows.label):
        return []
    counts = np.array([blocks.get(axis, 0) for axis in axes])
    widths = np.array([len(solution.labels[axis]) for axis in axes]) // np.maximum(counts, 1)
    found, odd = [], []
    for table, pattern in _tables(rows):
        footprint = _footprint(axes, table, pattern, counts, widths)
        if footprint is None:
            odd.append((table, pattern))
        else:
            found.append(footprint)
    for table, pattern in _paired(odd, counts, widths):
        footprint = _footprint(axes, table, pattern, counts, widths)
        if footprint is not None:
            found.append(footprint)
    return [f for f in found if len(f.blocks) > int(f.blocks.max(initial=0)) + 1]


def _rows(solution: Solution, axes: Sequence[Axis]) -> _Rows:
    sizes = [len(solution.labels[axis]) for axis in axes]
    if not sizes:
        empty = np.empty(0, np.int64)
        return _Rows(empty, empty, empty)
    label = np.concatenate([solution.labels[axis] for axis in axes])
    number = np.repeat(np.arange(len(axes)), sizes)
    position = np.arange(len(label)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    free = ~np.isin(label, np.fromiter(solution.frozen, np.int64, len(solution.frozen)))
    label, number, position = label[free], number[free], position[free]
    order = np.argsort(label, kind="stable")  # axes and positions ascend already
    return _Rows(label[order], number[order], position[order])


def _tables(rows: _Rows) -> Iterator[tuple[Ints, Ints]]:
    """Yield positions (classes, places) and the axis number of each place, by footprint."""
    starts = np.flatnonzero(np.diff(rows.label, prepend=-1))
    ends = np.append(starts, len(rows.label))[1:]
    sections = np.flatnonzero(
        (np.diff(rows.label, prepend=-1) != 0) | (np.diff(rows.axis, prepend=-1) != 0)
    )
    counts = np.diff(np.append(sections, len(rows.label)))
    mixed = _mix(rows.axis[sections] * 1_000_003 + counts)
    prints = np.add.reduceat(mixed, np.searchsorted(sections, starts))
    _, first, inverse = np.unique(prints, return_index=True, return_inverse=True)
    for kind in np.argsort(first).tolist():
        classes = np.flatnonzero(inverse == kind)
        begin, end = int(starts[classes[0]]), int(ends[classes[0]])
        table = rows.position[starts[classes][:, None] + np.arange(end - begin)]
        yield table[np.lexsort(table.T[::-1])], rows.axis[begin:end]


def _mix(keys: Ints) -> NDArray[np.uint64]:
    """Scramble keys so that sums of them tell footprints apart."""
    x = keys.astype(np.uint64)
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _footprint(
    axes: Sequence[Axis], table: Ints, pattern: Ints, counts: Ints, widths: Ints
) -> Footprint | None:
    """Form the members and blocks of classes; None where the blocks are not alike."""
    blocks = np.zeros(len(table), np.int64)
    balanced = np.flatnonzero(counts[pattern])
    if len(balanced):
        within = table[:, balanced] // widths[pattern[balanced]]
        _, blocks = np.unique(within, axis=0, return_inverse=True)
        blocks = blocks.reshape(-1).astype(np.int64)
        if len(set(np.bincount(blocks).tolist())) > 1:
            return None
        for number in np.unique(pattern[balanced]).tolist():
            held = within[:, pattern[balanced] == number].ravel()
            if len(set(np.bincount(held, minlength=counts[number]).tolist())) > 1:
                return None
    held_axes = {axes[number] for number in np.unique(pattern).tolist()}
    members = tuple(
        Member(axes[number], table[:, pattern == number])
        for number in dict.fromkeys(pattern.tolist())
        # A joint axis that its plain one ties together says nothing more.
        if axes[number].by < 0 or axes[number].plain not in held_axes
    )
    return Footprint(members, blocks)


def _paired(
    odd: Sequence[tuple[Ints, Ints]], counts: Ints, widths: Ints
) -> Iterator[tuple[Ints, Ints]]:
    """Join classes of different blocks, the n-th of each into one."""
    families: list[tuple[set[int], list[tuple[Ints, Ints]]]] = []
    for table, pattern in odd:
        held = {int(n) for n in pattern if counts[n]}
        near = [f for f in families if f[0] & held]
        families = [f for f in families if not f[0] & held]
        parts = [part for _, found in near for part in found]
        families.append((held.union(*(f[0] for f in near)), [*parts, (table, pattern)]))
    for _, parts in families:
        rows = [row for part in parts for row in _by_block(*part, counts, widths)]
        if len({len(table) for table, _ in rows}) == 1:
            table = np.concatenate([table for table, _ in rows], axis=1)
            pattern = np.concatenate([pattern for _, pattern in rows])
            order = np.argsort(pattern, kind="stable")
            yield table[:, order], pattern[order]


def _by_block(
    table: Ints, pattern: Ints, counts: Ints, widths: Ints
) -> Iterator[tuple[Ints, Ints]]:
    """Part classes of one footprint by the blocks that they lie in."""
    places: dict[bytes, list[int]] = defaultdict(list)
    balanced = np.flatnonzero(counts[pattern])
    within = table[:, balanced] // widths[pattern[balanced]]
    for row, blocks in enumerate(within):
        places[blocks.tobytes()].append(row)
    for rows in places.values():
        yield table[rows], pattern
