"""Turn the dims of attention heads before the refit, so that those that go are worth least.

First the whole model is turned without any cut: it must then still be the same function, and what
is not proven to be is left as it was. Then of each head as many dims are kept, the best, as the cut
keeps of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.coupling.keeps import WHOLE, Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.layers.attention import Pair, find_pairs
from onnxprune.layers.heads import Head, Turned, turned_heads
from onnxprune.layers.readers import dense_sites
from onnxprune.layers.rows import weight_blocks
from onnxprune.layers.sites import Site
from onnxprune.recovery.turn import Turn, turned
from onnxprune.rewrite.prove import Proven
from onnxprune.runtime.session import Feeds, batch_size

__all__ = ["proven", "proven_heads", "turn_heads", "unproven"]

Array = NDArray[np.float64]
_WORK = 1e11  # multiply-accumulates that a look at what heads are fed may take
_ENOUGH = 32  # samples that are looked at whatever they take


def proven_heads(
    found: Analysis, values: Collection[str], feeds: Sequence[Feeds], *, seed: int
) -> list[Turned]:
    """Find heads whose dims may be turned, and prove that they may.

    Parameters
    ----------
    found : Analysis
        Of what is cut.
    values : collection of str
        Only heads that one of these carries are looked at.
    feeds : sequence of Feeds
        Samples to fit on; of large models a part of them.
    seed : int

    Returns
    -------
    list of Turned
    """
    pairs = _pairs(found, values)
    most = max(int(_WORK / max(found.costs.total.macs, 1.0)), _ENOUGH)
    before = np.cumsum([0, *map(batch_size, feeds)])
    few = [feed for feed, count in zip(feeds, before, strict=False) if count < most]
    heads = turned_heads(found.view, found.traces[0], pairs, few, seed=seed)
    return _proven(found, heads)


def unproven(found: Analysis, cut: Proven, rotated: Collection[str]) -> list[str]:
    """Say which initializers cannot be shown to hold heads that may be turned.

    Whether they may be turned does not depend on the basis, so this takes no samples.

    Parameters
    ----------
    found : Analysis
        Of what is cut.
    cut : Proven
        Not refitted.
    rotated : collection of str
        Names, as a plan has them.

    Returns
    -------
    list of str
        One line for each.
    """
    heads = [Turned(p, _any(p)) for p in _pairs(found, {axis.value for axis in cut.keeps})]
    turn = replace(turn_heads(found, _proven(found, heads), cut.keeps), proven=True)
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    shown = turned(cut.model, found.view, sites, cut.keeps, [turn]).rotated
    missing = sorted(set(rotated) - set(shown))
    return [f"{name}: the plan turns heads in it that may not be turned" for name in missing]


def _any(pair: Pair) -> tuple[Head, ...]:
    """Return bases by chance, no plain rotations: what only keeps lengths is not enough."""
    rng, dims = np.random.default_rng(0), pair.ours.shape[1]
    found = []
    for _ in range(pair.shared.max() + 1):
        basis, scale = np.linalg.qr(rng.standard_normal((dims, dims)))[0], rng.uniform(0.5, 2, dims)
        none = np.zeros(dims)
        found.append(Head(basis * scale, basis / scale, none, np.zeros(dims + 1), none))
    return tuple(found[number] for number in pair.shared)


def _pairs(found: Analysis, values: Collection[str]) -> list[Pair]:
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    pairs = find_pairs(found.view, found.traces[0], sites, found.probes[0])
    return [pair for pair in pairs if pair.one.output in values]


def _proven(found: Analysis, heads: list[Turned]) -> list[Turned]:
    """Return the heads that may be turned."""
    if not heads or proven(found, heads):
        return heads
    return [one for one in heads if proven(found, [one])]


def proven(found: Analysis, heads: Sequence[Turned]) -> bool:
    """Say whether the model with all dims turned, and none cut, is the same function."""
    turn = turn_heads(found, heads, WHOLE)
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    whole = turned(found.view.real, found.view, sites, WHOLE, [turn]).model
    return not found.verifier.objection(found.verifier.error(whole, WHOLE), WHOLE)


def turn_heads(found: Analysis, heads: Sequence[Turned], keeps: Keeps) -> Turn:
    """Put the bases of heads together, layer by layer, to what a cut keeps of them.

    Parameters
    ----------
    found : Analysis
    heads : sequence of Turned
    keeps : mapping of Axis to mask
        Heads that lose nothing stay as they are; without any mask, all are turned.

    Returns
    -------
    Turn
    """
    turning = _Turning(found, keeps)
    for one in heads:
        turning.add(one)
    return Turn(turning.values, turning.made, turning.heard)


class _Basis:
    """What a layer's channels are multiplied by: those that no head holds stay as they are."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask, self._matrix = mask, np.eye(len(mask))

    def put(self, places: NDArray[np.int64], rows: Array) -> None:
        """Put the first dims of a head where the cut keeps some of it."""
        kept = places[self.mask[places]]
        self._matrix[kept] = 0.0
        self._matrix[np.ix_(kept, places)] = rows[: len(kept)]

    def kept(self) -> Array:
        """Return the rows of the channels that stay, shape (kept, channels)."""
        return np.asarray(self._matrix[self.mask])


class _Turning:
    """The bases of all layers while they are put together."""

    def __init__(self, found: Analysis, keeps: Keeps) -> None:
        self.found, self.keeps = found, keeps
        self._made: dict[int, tuple[Site, _Basis]] = {}
        self.heard: dict[int, tuple[Array, Array]] = {}

    def basis(self, value: str) -> _Basis:
        """Return that of a value of which nothing is turned yet."""
        shape = self.found.traces[0].shapes[value]
        mask = self.keeps.get(Axis(value, len(shape) - 1))
        return _Basis(np.ones(shape[-1], bool) if mask is None else mask)

    def maker(self, site: Site) -> _Basis:
        """Return that of what a layer makes."""
        value = site.node.outputs[0]
        return self._made.setdefault(site.node.index, (site, self.basis(value)))[1]

    def add(self, one: Turned) -> None:
        """Turn the heads of a pair that lose dims."""
        pair, ours = one.pair, self.maker(one.pair.one)
        theirs = self.basis(pair.other.source) if pair.read else self.maker(pair.other)
        inputs = self.basis(pair.other.source)
        for head, mine, its in zip(one.heads, pair.ours, pair.theirs, strict=True):
            kept = ours.mask[mine]
            narrowed = not self.keeps or not kept.all()
            if narrowed and np.array_equal(kept, theirs.mask[its]):
                ours.put(mine, head.ours)
                theirs.put(its, head.theirs)
                if pair.read:
                    inputs.put(its, head.ours)
        if pair.read:
            self.heard[pair.other.node.index] = self._heard(one, theirs.kept(), inputs.kept())

    def _heard(self, one: Turned, told: Array, seen: Array) -> tuple[Array, Array]:
        """Return a reader's weight on the kept dims, and what the others add on average."""
        site = one.pair.other
        weight = weight_blocks(site, site.weight_in(self.found.view))[0].astype(np.float64)
        mean = np.zeros(len(weight))
        for head, its in zip(one.heads, one.pair.theirs, strict=True):
            mean[its] = head.mean
        left = told @ weight
        return left, mean @ weight - (seen @ mean) @ left

    @property
    def made(self) -> dict[int, Array]:
        """The bases of what layers make, by node."""
        return {node: basis.kept() for node, (_, basis) in self._made.items()}

    @property
    def values(self) -> dict[str, Array]:
        """The same by the values that carry it, with the bias in and without."""
        return {
            value: basis.kept()
            for site, basis in self._made.values()
            for value in (site.node.outputs[0], site.output)
        }
