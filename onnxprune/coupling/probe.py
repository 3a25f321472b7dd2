"""Movement is probed, not described: run the operator on indices and see what lands where."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from onnxprune.coupling.relations import Axis, Free, Freeze, Positions, Relation, Split, Tie
from onnxprune.coupling.rules._registry import Op, Tensor
from onnxprune.runtime.single import single

__all__ = ["MIXES", "NOWHERE", "Pairs", "index_marks", "moved_marks", "pairs_on", "probe"]

NOWHERE = -1  # the mark of elements that do not come from the probed input
MIXES = "{op} mixes this axis with others"


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which positions of a source axis arrive at which positions of a target axis."""

    source: Positions
    target: Positions

    @property
    def source_decides(self) -> bool:
        """Each source position arrives at one target position only."""
        return len(self.source) == len(np.unique(self.source))

    @property
    def target_decides(self) -> bool:
        """Each target position comes from one source position only."""
        return len(self.target) == len(np.unique(self.target))

    @property
    def independent(self) -> bool:
        """Every source position arrives at every target position."""
        return len(self.source) == len(np.unique(self.source)) * len(np.unique(self.target))


def probe(op: Op, slots: tuple[int, ...]) -> Iterator[Relation]:
    """Yield the relations of an operator that only moves elements.

    Parameters
    ----------
    op : Op
        With known parameters (target shape, indices, sizes ...).
    slots : tuple of int
        The inputs whose elements move; the others are parameters.

    Yields
    ------
    Relation
        `Tie` where positions correspond, `Split` where one axis holds several, `Free` for
        positions that are copies, `Freeze` where a movement cannot be told by axes.
    """
    found = _Found()
    for slot in slots:
        for axis in op.x(slot).axes():
            if op.x(slot).shape[axis] > 1:
                yield from _one_axis(op, slot, axis, found)
    for joined, factors in found.splits.items():
        if len(factors) > 1:
            yield Split(joined, tuple(factors))
        else:
            factor, positions = factors[0]
            known = np.flatnonzero(positions != NOWHERE)
            yield Tie(joined, factor, known, positions[known])
    yield from _rest_of_sources(op, slots, found)
    yield from _rest_of_outputs(op, slots, found)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the probes of single axes have shown so far.

    ``told`` marks the positions of each axis that a tie or split speaks of, ``taken`` the
    positions of source axes that arrive where nothing can speak of them.
    """

    splits: dict[Axis, list[tuple[Axis, Positions]]] = field(default_factory=dict)
    told: dict[Axis, set[int]] = field(default_factory=lambda: defaultdict(set))
    taken: dict[Axis, set[int]] = field(default_factory=lambda: defaultdict(set))
    mixed: set[Axis] = field(default_factory=set)


def _one_axis(op: Op, slot: int, axis: int, found: _Found) -> Iterator[Relation]:
    """Follow one axis of one input to every axis of every output."""
    source = op.x(slot)
    here = source.axis(axis)
    for y, moved in zip(op.outputs, moved_marks(op, index_marks(source, axis), slot), strict=True):
        if y is None:
            continue
        told: set[int] = set()
        for b in y.axes():
            pairs, there = pairs_on(moved, b), y.axis(b)
            if y.shape[b] == 1 or (pairs.independent and not _single(pairs)):
                continue
            if pairs.source_decides and pairs.target_decides:
                yield Tie(here, there, pairs.source, pairs.target)
            elif pairs.target_decides:
                factor = (here, _map(y.shape[b], pairs.target, pairs.source))
                found.splits.setdefault(there, []).append(factor)
            elif pairs.source_decides:
                factor = (there, _map(source.shape[axis], pairs.source, pairs.target))
                found.splits.setdefault(here, []).append(factor)
            else:
                found.mixed.update((here, there))
                continue
            told.update(pairs.source.tolist())
            found.told[there].update(pairs.target.tolist())
        found.told[here] |= told
        found.taken[here] |= set(np.unique(moved[moved != NOWHERE]).tolist()) - told


def _rest_of_sources(op: Op, slots: tuple[int, ...], found: _Found) -> Iterator[Relation]:
    """Positions of inputs that arrive alone stay; those that arrive nowhere may go."""
    for axis in {op.x(s).axis(i): None for s in slots for i in op.x(s).axes()}:
        if axis in found.mixed and not found.told[axis]:
            yield Freeze(axis, MIXES.format(op=op.op_type))
        elif taken := sorted(found.taken[axis]):
            yield Freeze(axis, f"{op.op_type} takes these positions by number", np.array(taken))
        elif not found.told[axis]:
            yield Free(axis)


def _rest_of_outputs(op: Op, slots: tuple[int, ...], found: _Found) -> Iterator[Relation]:
    """Positions of outputs that no input's position speaks of: padding, copies, or fixed."""
    origins: list[list[NDArray[np.int64]]] = []
    for number, y in enumerate(op.outputs):
        for b in y.axes() if y is not None else ():
            assert y is not None
            axis, size = y.axis(b), y.shape[b]
            rest = np.setdiff1d(np.arange(size), list(found.told[axis]))
            if size == 1 or not len(rest):
                continue
            if found.mixed and len(rest) == size:
                yield Freeze(axis, MIXES.format(op=op.op_type))
                continue
            origins = origins or [moved_marks(op, _numbers(op.x(slot)), slot) for slot in slots]
            moved = [np.moveaxis(of_slot[number], b, 0) for of_slot in origins]
            copies = len(rest) == size and all((m == m[:1]).all() for m in moved)
            fixed = [p for p in rest.tolist() if any((m[p] != NOWHERE).any() for m in moved)]
            if fixed and not copies:
                reason = f"{op.op_type} fills these positions as a whole"
                yield Freeze(axis, reason, np.array(fixed))
            else:
                yield Free(axis)


def _single(pairs: Pairs) -> bool:
    """One position to one position: tied although that also looks independent."""
    return len(pairs.source) == 1


def index_marks(source: Tensor, axis: int) -> NDArray[np.int64]:
    """Let each element hold its index on one axis."""
    shape = [1] * source.rank
    shape[axis] = -1
    index = np.arange(source.shape[axis]).reshape(shape)
    return np.ascontiguousarray(np.broadcast_to(index, source.shape))


def _numbers(source: Tensor) -> NDArray[np.int64]:
    """Let each element hold a number of its own."""
    return np.arange(np.prod(source.shape, dtype=np.int64)).reshape(source.shape)


def moved_marks(op: Op, marks: NDArray[np.int64], slot: int) -> list[NDArray[np.int64]]:
    """Run the operator with marks in place of one input and nothing in the others."""
    feeds: dict[str, NDArray[np.generic]] = {}
    names = []
    for number, tensor in enumerate(op.inputs):
        name = "" if tensor is None else f"i{number}"
        names.append(name)
        if tensor is None:
            continue
        if number == slot:
            feeds[name] = marks
        elif tensor.data is not None and not _moves(op, number):
            feeds[name] = tensor.data
        else:
            feeds[name] = np.full(tensor.shape, NOWHERE, np.int64)
    if op.op_type == "Pad":
        feeds["i2"] = np.array(NOWHERE, np.int64)
        names = [*names[:2], "i2", *names[3:]] if len(names) > 1 else names
    outputs = [f"o{n}" if y is not None else "" for n, y in enumerate(op.outputs)]
    attributes = dict(op.attributes)
    if op.op_type == "Pad" and "value" in attributes:
        attributes["value"] = float(NOWHERE)
    node = helper.make_node(op.op_type, names, outputs, **attributes)  # type: ignore[arg-type]
    results = single(node, op.opset).run(None, {k: v for k, v in feeds.items() if k in names})
    found = iter(results)
    return [np.asarray(next(found)) if y is not None else np.empty(0, np.int64) for y in op.outputs]


def _moves(op: Op, slot: int) -> bool:
    """Concat moves every input; all other movement operators move their first."""
    return slot == 0 or op.op_type in ("Concat", "ConcatFromSequence")


def pairs_on(moved: NDArray[np.int64], axis: int) -> Pairs:
    """Collect the distinct (source, target) positions along one output axis."""
    size = moved.shape[axis]
    flat = np.moveaxis(moved, axis, -1).reshape(moved.size // max(size, 1), size)
    flat = _distinct_rows(flat)
    known = flat != NOWHERE
    keys = np.unique((flat * size + np.arange(size))[known])
    return Pairs(keys // size, keys % size)


def _distinct_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop repeated rows cheaply: most movements repeat a handful of patterns."""
    if len(rows) <= 1:
        return rows
    same = (rows[1:] == rows[:-1]).all(axis=1)
    return rows[np.concatenate(([True], ~same))]


def _map(size: int, at: Positions, value: Positions) -> Positions:
    positions = np.full(size, NOWHERE, np.int64)
    positions[at] = value
    return positions
