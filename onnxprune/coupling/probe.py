"""Movement is probed, not described: run the operator on indices and see what lands where."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import helper
from onnx.reference import ReferenceEvaluator

from onnxprune.coupling.relations import Axis, Free, Freeze, Positions, Relation, Split, Tie
from onnxprune.coupling.rules._registry import Op

__all__ = ["probe"]

_NOWHERE = -1  # the mark of elements that do not come from the probed input


@dataclass(frozen=True, slots=True)
class _Pairs:
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
    sources = [op.x(slot) for slot in slots]
    splits: dict[Axis, list[tuple[Axis, Positions]]] = {}
    held: set[Axis] = set()
    mixed: set[Axis] = set()
    for slot, source in zip(slots, sources, strict=True):
        for axis in source.axes():
            if source.shape[axis] > 1:
                yield from _one_axis(op, slot, axis, splits, held, mixed)
    for joined, factors in splits.items():
        held.add(joined)
        held.update(factor for factor, _ in factors)
        if len(factors) > 1:
            yield Split(joined, tuple(factors))
        else:
            factor, positions = factors[0]
            known = np.flatnonzero(positions != _NOWHERE)
            yield Tie(joined, factor, known, positions[known])
    tensors = [*sources, *(y for y in op.outputs if y is not None)]
    for place in {t.axis(i): None for t in tensors for i in t.axes() if t.shape[i] > 1}:
        if place in held:
            continue
        if place in mixed:
            yield Freeze(place, f"{op.op_type} mixes this axis with others")
        else:
            yield Free(place)


def _one_axis(
    op: Op,
    slot: int,
    axis: int,
    splits: dict[Axis, list[tuple[Axis, Positions]]],
    held: set[Axis],
    mixed: set[Axis],
) -> Iterator[Relation]:
    """Follow one axis of one input to every axis of every output."""
    source = op.x(slot)
    here = source.axis(axis)
    outputs = _run(op, slot, axis)
    for y, moved in zip(op.outputs, outputs, strict=True):
        if y is None:
            continue
        for b in y.axes():
            if y.shape[b] == 1:
                continue
            pairs, there = _pairs(moved, b), y.axis(b)
            if not len(pairs.source) or (pairs.independent and not _single(pairs)):
                continue
            if pairs.source_decides and pairs.target_decides:
                held.update((here, there))
                yield Tie(here, there, pairs.source, pairs.target)
            elif pairs.target_decides:
                splits.setdefault(there, []).append(
                    (here, _map(y.shape[b], pairs.target, pairs.source))
                )
            elif pairs.source_decides:
                splits.setdefault(here, []).append(
                    (there, _map(source.shape[axis], pairs.source, pairs.target))
                )
            else:
                mixed.update((here, there))
        taken = np.unique(moved[moved != _NOWHERE])
        if 0 < len(taken) < source.shape[axis] and here not in held and here not in splits:
            yield Freeze(here, f"{op.op_type} takes these positions by number", taken)
            held.add(here)


def _single(pairs: _Pairs) -> bool:
    """One position to one position: tied although that also looks independent."""
    return len(pairs.source) == 1


def _run(op: Op, slot: int, axis: int) -> list[NDArray[np.int64]]:
    """Run the operator with each element of one input holding its index on ``axis``."""
    feeds: dict[str, NDArray[np.generic]] = {}
    names = []
    for number, tensor in enumerate(op.inputs):
        name = "" if tensor is None else f"i{number}"
        names.append(name)
        if tensor is None:
            continue
        if number == slot:
            shape = [1] * tensor.rank
            shape[axis] = -1
            index = np.arange(tensor.shape[axis]).reshape(shape)
            feeds[name] = np.ascontiguousarray(np.broadcast_to(index, tensor.shape))
        elif tensor.data is not None and not _moves(op, number):
            feeds[name] = tensor.data
        else:
            feeds[name] = np.full(tensor.shape, _NOWHERE, np.int64)
    if op.op_type == "Pad":
        feeds["i2"] = np.array(_NOWHERE, np.int64)
        names = [*names[:2], "i2", *names[3:]] if len(names) > 1 else names
    outputs = [f"o{n}" if y is not None else "" for n, y in enumerate(op.outputs)]
    attributes = dict(op.attributes)
    if op.op_type == "Pad" and "value" in attributes:
        attributes["value"] = float(_NOWHERE)
    node = helper.make_node(op.op_type, names, outputs, **attributes)  # type: ignore[arg-type]
    evaluator = ReferenceEvaluator(node, opsets={"": op.opset})
    results = evaluator.run(None, {k: v for k, v in feeds.items() if k in names})
    found = iter(results)
    return [np.asarray(next(found)) if y is not None else np.empty(0, np.int64) for y in op.outputs]


def _moves(op: Op, slot: int) -> bool:
    """Concat moves every input; all other movement operators move their first."""
    return slot == 0 or op.op_type in ("Concat", "ConcatFromSequence")


def _pairs(moved: NDArray[np.int64], axis: int) -> _Pairs:
    """Collect the distinct (source, target) positions along one output axis."""
    size = moved.shape[axis]
    flat = np.moveaxis(moved, axis, -1).reshape(-1, size)
    flat = _distinct_rows(flat)
    known = flat != _NOWHERE
    keys = np.unique((flat * size + np.arange(size))[known])
    return _Pairs(keys // size, keys % size)


def _distinct_rows(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Drop repeated rows cheaply: most movements repeat a handful of patterns."""
    if len(rows) <= 1:
        return rows
    same = (rows[1:] == rows[:-1]).all(axis=1)
    return rows[np.concatenate(([True], ~same))]


def _map(size: int, at: Positions, value: Positions) -> Positions:
    positions = np.full(size, _NOWHERE, np.int64)
    positions[at] = value
    return positions
