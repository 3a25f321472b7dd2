"""Classes of positions sorted by footprint: which axes they lie on, and in which blocks."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis, Positions
from onnxprune.coupling.solver import Solution

__all__ = ["Footprint", "Member", "block_shares", "footprints"]

Ints = NDArray[np.int64]
NOWHERE = -1


@dataclass(frozen=True, slots=True)
class Member:
    """Where a group's channels sit on one axis.

    ``positions`` has one row per channel: ``positions[c]`` are the places of channel ``c``, -1
    where it has none here (the channels of other blocks may).
    """

    axis: Axis
    positions: Positions

    @property
    def count(self) -> int:
        """How many positions all channels hold together."""
        return int((self.positions >= 0).sum())

    def total(self, values: NDArray[Any]) -> NDArray[Any]:
        """Sum what lies at each channel's positions.

        Parameters
        ----------
        values : float array, shape (..., size of the axis)

        Returns
        -------
        float array, shape (..., channels)
        """
        nothing = np.zeros((*values.shape[:-1], 1), values.dtype)
        return np.asarray(np.concatenate([values, nothing], -1)[..., self.positions].sum(axis=-1))


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

    Where an axis must stay balanced, the blocks that a class lies in are found; the classes of
    different blocks may then differ in footprint.

    Parameters
    ----------
    solution : Solution
    blocks : mapping of Axis to int
        How many blocks an axis has that must stay balanced.

    Returns
    -------
    list of Footprint
        Of which some classes may go and some stay.
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
    found += _joined(axes, odd, counts, widths)
    return [f for f in found if len(f.blocks) > block_shares(f.blocks).sum()]


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
    balanced = np.flatnonzero(counts[pattern])
    if not len(balanced):
        return Footprint(_members(axes, table, pattern), np.zeros(len(table), np.int64))
    within = table[:, balanced] // widths[pattern[balanced]]
    pure = np.ones(len(table), bool)  # classes in one block of each axis, or in all alike
    for number in np.unique(pattern[balanced]).tolist():
        mine = within[:, pattern[balanced] == number]
        alike = np.arange(mine.shape[1]) * counts[number] // mine.shape[1]
        even = mine.shape[1] % counts[number] == 0
        pure &= (mine == mine[:, :1]).all(axis=1) | (even & (mine == alike).all(axis=1))
    for chosen in (np.ones(len(table), bool), pure):  # what lies across blocks may have to stay
        if chosen.any() and _even(table[chosen], pattern, counts, widths):
            _, blocks = np.unique(within[chosen], axis=0, return_inverse=True)
            blocks = blocks.reshape(-1).astype(np.int64)
            if block_shares(blocks).sum() < len(blocks):
                return Footprint(_members(axes, table[chosen], pattern), blocks)
    return None


def block_shares(blocks: Ints) -> Ints:
    """Return how many of each block make the smallest equal share of all blocks.

    Parameters
    ----------
    blocks : int array, shape (channels,)
        The block that each channel lies in.

    Returns
    -------
    int array, shape (blocks,)
        All ones where the blocks are equal.
    """
    sizes = np.bincount(blocks)
    return np.asarray(sizes // np.gcd.reduce(sizes))


def _even(table: Ints, pattern: Ints, counts: Ints, widths: Ints) -> bool:
    """Say whether each balanced axis holds as many positions in every block."""
    for number in np.unique(pattern[counts[pattern] > 0]).tolist():
        places = table[:, pattern == number]
        held = places[places >= 0] // widths[number]
        if len(set(np.bincount(held, minlength=counts[number]).tolist())) > 1:
            return False
    return True


def _members(axes: Sequence[Axis], table: Ints, pattern: Ints) -> tuple[Member, ...]:
    held = {axes[number] for number in np.unique(pattern).tolist()}
    return tuple(
        Member(axes[number], table[:, pattern == number])
        for number in dict.fromkeys(pattern.tolist())
        # A joint axis that its plain one ties together says nothing more.
        if axes[number].by < 0 or axes[number].plain not in held
    )


def _joined(
    axes: Sequence[Axis], odd: Sequence[tuple[Ints, Ints]], counts: Ints, widths: Ints
) -> Iterator[Footprint]:
    """Put classes together whose blocks differ in footprint."""
    families: list[tuple[set[int], list[tuple[Ints, Ints]]]] = []
    for table, pattern in odd:
        held = {int(n) for n in pattern if counts[n]}
        near = [f for f in families if f[0] & held]
        families = [f for f in families if not f[0] & held]
        parts = [part for _, found in near for part in found]
        families.append((held.union(*(f[0] for f in near)), [*parts, (table, pattern)]))
    for _, parts in families:
        rows = [row for part in parts for row in _by_block(*part, counts, widths)]
        table, pattern = _stacked(rows)
        if _even(table, pattern, counts, widths):
            blocks = np.repeat(np.arange(len(rows)), [len(part) for part, _ in rows])
            yield Footprint(_members(axes, table, pattern), blocks)


def _stacked(rows: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    """Write tables of different columns one below the other, -1 where a column is missing."""
    keys = [
        [(n, pattern[:j].tolist().count(n)) for j, n in enumerate(pattern.tolist())]
        for _, pattern in rows
    ]
    columns = sorted({key for found in keys for key in found})
    place = {key: number for number, key in enumerate(columns)}
    parts = []
    for (table, _), found in zip(rows, keys, strict=True):
        part = np.full((len(table), len(columns)), NOWHERE)
        part[:, [place[key] for key in found]] = table
        parts.append(part)
    return np.concatenate(parts), np.array([number for number, _ in columns])


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
