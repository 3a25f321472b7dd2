"""One solver closes all relations: union-find over positions, with a reading per split site."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.coupling.relations import NOTHING, Axis, Freeze, Positions, Relation, Split, Tie

__all__ = ["Frozen", "Solution", "solve"]

Labels = NDArray[np.int64]
_FREE = np.iinfo(np.int64).max  # instead of the number of a reason


@dataclass(frozen=True, slots=True)
class Frozen:
    """Why positions cannot go, and what would free them."""

    reason: str
    unlock: str
    axis: Axis


@dataclass(frozen=True, eq=False)
class Solution:
    """Classes of positions that stand or fall together, under one set of readings.

    Attributes
    ----------
    labels : mapping of Axis to int array
        For each axis that the solution touches, the class of each position.
    frozen : frozenset of int
        Classes that cannot go.
    reading : tuple of (Split, Axis)
        Which factor each split site follows; empty where none was in the way.
    """

    labels: Mapping[Axis, Labels]
    frozen: frozenset[int]
    reading: tuple[tuple[Split, Axis], ...] = ()


@dataclass
class _Atoms:
    """Positions of all axes, numbered through."""

    offsets: dict[Axis, int] = field(default_factory=dict)
    sizes: dict[Axis, int] = field(default_factory=dict)
    count: int = 0

    def add(self, axis: Axis, size: int) -> None:
        if axis not in self.offsets:
            self.offsets[axis] = self.count
            self.sizes[axis] = size
            self.count += size

    def of(self, axis: Axis, index: Positions | None = None) -> Labels:
        start = self.offsets[axis]
        return start + (np.arange(self.sizes[axis]) if index is None else index)


class _Base:
    """Everything that holds whatever reading is chosen."""

    def __init__(self, relations: Iterable[Relation], sizes: Mapping[Axis, int]) -> None:
        found = list(relations)
        self.atoms = _Atoms()
        for axis, size in sizes.items():
            self.atoms.add(axis, size)
        self._add_virtual(found)
        self._axes = list(self.atoms.offsets)
        self._starts = np.fromiter(self.atoms.offsets.values(), np.int64)
        self._edges: list[tuple[Labels, Labels]] = []
        for tie in (r for r in found if isinstance(r, Tie)):
            self._tie(tie.a, tie.b, tie.a_index, tie.b_index)
        self.labels: Labels = np.arange(self.atoms.count)
        self._sorted: tuple[Labels, Labels] | None = None
        self._reasons: list[Frozen] = []
        self._reason = np.full(self.atoms.count, _FREE)  # number of the reason, by position
        for freeze in (r for r in found if isinstance(r, Freeze)):
            if freeze.axis in self.atoms.offsets:
                why = Frozen(freeze.reason, freeze.unlock, freeze.axis.plain)
                self._freeze(self.atoms.of(freeze.axis, freeze.index), why)
        self.sites = [s for s in map(self._known, (r for r in found if isinstance(r, Split))) if s]
        self._settle()

    def _add_virtual(self, relations: Iterable[Relation]) -> None:
        """Size the axes that rules invent (a grouped convolution's groups) by their maps."""
        for relation in relations:
            pairs: list[tuple[Axis, Positions]] = []
            if isinstance(relation, Split):
                pairs = [f for f in relation.factors if "/" in f[0].value]
            elif isinstance(relation, Tie) and relation.b_index is not None:
                pairs = [(relation.b, relation.b_index)]
            for axis, positions in pairs:
                size = int(positions.max(initial=0)) + 1
                if axis not in self.atoms.offsets and size > 1:
                    self.atoms.add(axis, size)

    def _known(self, site: Split) -> Split | None:
        if site.axis not in self.atoms.offsets:
            return None
        factors = tuple(f for f in site.factors if f[0] in self.atoms.offsets)
        return Split(site.axis, factors) if factors else None

    def _tie(self, a: Axis, b: Axis, i: Positions | None, j: Positions | None) -> None:
        if a in self.atoms.offsets and b in self.atoms.offsets:
            self._edges.append((self.atoms.of(a, i), self.atoms.of(b, j)))

    def _freeze(self, atoms: Labels, why: Frozen) -> None:
        self._reason[atoms] = np.minimum(self._reason[atoms], len(self._reasons))
        self._reasons.append(why)

    def _settle(self) -> None:
        """Find what is frozen anyway, and the sites that this leaves without a choice."""
        while True:
            self._label()
            open_sites, changed = [], False
            for site in self.sites:
                live = [f for f in site.factors if not self.all_frozen(f[0])]
                if self.all_frozen(site.axis):
                    changed |= self._pass_on(site.axis, [f[0] for f in live])
                elif not live:
                    changed |= self._pass_on(site.factors[0][0], [site.axis])
                elif len(live) == 1:
                    axis, positions = live[0]
                    known = np.flatnonzero(positions >= 0)
                    self._edges.append(
                        (self.atoms.of(site.axis, known), self.atoms.of(axis, positions[known]))
                    )
                    changed = True
                else:
                    open_sites.append(Split(site.axis, tuple(live)))
            self.sites = open_sites
            if not changed:
                return

    def all_frozen(self, axis: Axis) -> bool:
        """Say whether no position of an axis can go."""
        return bool((self._best[self.of(axis)] < _FREE).all())

    def _pass_on(self, source: Axis, targets: list[Axis]) -> bool:
        """Freeze axes for the reason that another one is frozen."""
        why = self.why(source)
        for target in targets:
            self._freeze(self.atoms.of(target), why)
        return bool(targets)

    def why(self, axis: Axis) -> Frozen:
        """Return the reason of a frozen axis."""
        first = int(self._best[self.of(axis)].min(initial=_FREE))
        return self._reasons[first] if first < _FREE else Frozen("frozen", NOTHING, axis.plain)

    def _label(self) -> None:
        """Join what new edges connect, and give each class its first reason."""
        if self._edges:
            count = int(self.labels.max(initial=-1)) + 1
            a, b = (self.labels[np.concatenate(side)] for side in zip(*self._edges, strict=True))
            graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
            joined = connected_components(graph, directed=False)[1].astype(np.int64)
            self.labels = joined[self.labels]
            self._edges = []
        self._sorted = None
        self._best = np.full(int(self.labels.max(initial=-1)) + 1, _FREE)
        np.minimum.at(self._best, self.labels, self._reason)

    def members(self, classes: Sequence[int]) -> Iterator[tuple[Axis, Positions, Labels]]:
        """Yield where some classes sit: per axis the positions and their classes."""
        atoms = np.sort(np.concatenate([self._atoms_of(label) for label in classes]))
        axes, starts = self._axes, self._starts
        owner = np.searchsorted(starts, atoms, side="right") - 1
        bounds = np.flatnonzero(np.diff(owner, prepend=-1))
        for first, last in pairwise([*bounds.tolist(), len(atoms)]):
            number = int(owner[first])
            part = atoms[first:last]
            yield axes[number], part - starts[number], self.labels[part]

    def _atoms_of(self, label: int) -> Labels:
        if self._sorted is None:
            order = np.argsort(self.labels, kind="stable")
            self._sorted = (order, np.searchsorted(self.labels[order], np.arange(len(order) + 1)))
        order, bounds = self._sorted
        return order[bounds[label] : bounds[label + 1]]

    def is_frozen(self, label: int) -> bool:
        """Say whether a class cannot go."""
        return bool(self._best[label] < _FREE)

    def frozen_classes(self) -> frozenset[int]:
        return frozenset(np.flatnonzero(self._best < _FREE).tolist())

    def of(self, axis: Axis) -> Labels:
        start = self.atoms.offsets[axis]
        return self.labels[start : start + self.atoms.sizes[axis]]


def solve(
    relations: Iterable[Relation], sizes: Mapping[Axis, int]
) -> tuple[list[Solution], dict[Axis, Frozen]]:
    """Close the relations of a whole graph.

    Parameters
    ----------
    relations : iterable of Relation
    sizes : mapping of Axis to int
        Every axis of size > 1 that has a rule or a freeze.

    Returns
    -------
    solutions : list of Solution
        The first holds all classes that no open split site touches; each further one follows
        one reading, from one factor of one site outwards.
    frozen : dict of Axis to Frozen
        Axes of which no position can go under any reading, with the reason.
    """
    base = _Base(relations, sizes)
    index = _site_index(base)
    touched = frozenset(index)
    frozen = base.frozen_classes()
    labels = {axis: base.of(axis) for axis in base.atoms.offsets}
    solutions = [Solution(labels, frozen | touched)]
    covered: set[tuple[int, Axis]] = set()
    for number, site in enumerate(base.sites):
        for factor, _ in site.factors:
            if (number, factor) not in covered:
                solution, used = _follow(base, index, number, factor)
                covered |= used
                solutions.append(solution)
    blocked = {axis: base.why(axis) for axis in base.atoms.offsets if base.all_frozen(axis)}
    blocked = {axis.plain: why for axis, why in blocked.items()} | blocked
    return solutions, blocked


def _site_index(base: _Base) -> dict[int, list[tuple[int, Axis]]]:
    """Map each class to the sites it touches, and by which of their axes."""
    index: dict[int, list[tuple[int, Axis]]] = defaultdict(list)
    for number, site in enumerate(base.sites):
        for axis in (site.axis, *(factor for factor, _ in site.factors)):
            for label in np.unique(base.of(axis)).tolist():
                index[label].append((number, axis))
    return index


class _Merged:
    """A small union-find over classes of the base."""

    def __init__(self) -> None:
        self.parent: dict[int, int] = {}

    def find(self, label: int) -> int:
        parent, root = self.parent, label
        while (above := parent.get(root, root)) != root:
            root = above
        while (above := parent.get(label, root)) != root:
            parent[label], label = root, above
        return root

    def union(self, pairs: Iterable[tuple[int, int]]) -> None:
        for a, b in pairs:
            root = self.find(b)
            self.parent[self.find(a)] = self.parent[root] = root


def _follow(
    base: _Base, index: Mapping[int, list[tuple[int, Axis]]], start: int, factor: Axis
) -> tuple[Solution, set[tuple[int, Axis]]]:
    """Spread one reading: every site that it touches is read in the way that merges least."""
    merged = _Merged()
    chosen: dict[int, Axis] = {}
    waiting = [(start, factor)]
    while waiting:
        number, axis = waiting.pop()
        if number in chosen:
            continue
        chosen[number] = axis
        pairs = _pairs(base, number, axis)
        merged.union(pairs)
        for other in sorted(
            {n for pair in pairs for label in pair for n, _ in index.get(label, ())}
        ):
            if other not in chosen:
                waiting.append((other, _reading(base, other, merged)))
    live = {
        label
        for number, axis in chosen.items()
        for pair in _pairs(base, number, axis)
        for label in pair
    }
    dead = {
        label
        for number, axis in chosen.items()
        for other, _ in base.sites[number].factors
        if other != axis
        for label in np.unique(base.of(other)).tolist()
    }
    reading = tuple((base.sites[n], axis) for n, axis in chosen.items())
    return _collect(base, merged, live, dead, reading), set(chosen.items())


def _pairs(base: _Base, number: int, factor: Axis) -> set[tuple[int, int]]:
    site = base.sites[number]
    positions = dict(site.factors)[factor]
    known = np.flatnonzero(positions >= 0)
    whole, part = base.of(site.axis)[known], base.of(factor)[positions[known]]
    return set(zip(whole.tolist(), part.tolist(), strict=True))


def _reading(base: _Base, number: int, merged: _Merged) -> Axis:
    """Choose the factor that a spreading reading follows at one more site.

    Reached by a factor: that factor. Reached by the split axis: the factor that leaves the most
    classes apart, given what is already merged.
    """
    site = base.sites[number]
    factors = [factor for factor, _ in site.factors]
    reached = [
        f for f in factors if any(int(label) in merged.parent for label in np.unique(base.of(f)))
    ]
    candidates = reached or factors
    return max(candidates, key=lambda f: _classes_left(base, number, f, merged))


def _classes_left(base: _Base, number: int, factor: Axis, merged: _Merged) -> int:
    trial = _Merged()
    pairs = [(merged.find(a), merged.find(b)) for a, b in _pairs(base, number, factor)]
    trial.union(pairs)
    return len({trial.find(whole) for whole, _ in pairs})


def _collect(
    base: _Base,
    merged: _Merged,
    live: set[int],
    dead: set[int],
    reading: tuple[tuple[Split, Axis], ...],
) -> Solution:
    roots = {label: merged.find(label) for label in live}
    labels: dict[Axis, Labels] = {}
    for axis, places, found in base.members(sorted(live)):
        row = labels.setdefault(axis, np.full(base.atoms.sizes[axis], -1, np.int64))
        row[places] = [roots[label] for label in found.tolist()]
    frozen = {root for label, root in roots.items() if base.is_frozen(label) or label in dead}
    return Solution(labels, frozenset(frozen | {-1}), reading)
