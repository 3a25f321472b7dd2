"""Second-order elimination: which channels the others can stand in for, and how well.

A channel may go cheaply not because it does little but because the rest can do it. Greedy
group-OBS:
from the second moments of what a group's readers read, remove in each step the channel whose loss,
with everything else refitted, hurts the readers' outputs least (Schur updates keep the inverse).
One pass over the samples gives the order and the exact local error at every width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.coupling.groups import Coupling, Group, Member
from onnxprune.layers.rows import Places, input_rows, output_rows, places_of, weight_blocks
from onnxprune.layers.sites import Site, find_sites
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Elimination", "eliminate", "reconstruct"]

Array = NDArray[np.float64]
_RIDGE = 1e-3  # of the mean diagonal of the second moments
_WIDEST = 5000  # inputs of a layer beyond which its moments take too long to invert
_ROWS = 2  # rows per input that moments need
_STEPS = 256  # of an elimination; larger groups lose several channels a step


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """One group's removal order.

    Attributes
    ----------
    order : int array, shape (channels,)
        The first to go first.
    errors : float array, shape (channels + 1,)
        Local error with the first k gone and the readers refitted, relative to the variance of
        the readers' outputs, summed over readers.
    plain : float array, shape (channels + 1,)
        The same without refitting.
    """

    order: NDArray[np.int64]
    errors: Array
    plain: Array


@dataclass(eq=False)
class Reader:
    """A layer that reads a group: second moments, weight (D, O), a row of places per channel."""

    moments: Array
    weight: Array
    places: NDArray[np.int64]
    spread: float


def reconstruct(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    seed: int,
) -> dict[str, Elimination]:
    """Order the channels of every group whose readers are all linear layers.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : sequence of Group
    feeds : sequence of Feeds
    seed : int
        Of the output positions that are looked at.

    Returns
    -------
    dict of group name to Elimination
        Groups with other readers (normalizations, attention products, recurrences) are left out.
    """
    sites = {
        s.node.index: s
        for s in find_sites(view, trace, coupling.collected)
        if _width(view, s) is not None
    }
    readers = {g.name: found for g in groups if (found := _readers(coupling, g, sites))}
    wanted = {site.node.index: site for found in readers.values() for site, _ in found}
    if not wanted:
        return {}
    moments, spreads = _moments(view, trace, list(wanted.values()), feeds, seed)
    readers = {n: r for n, r in readers.items() if all(s.node.index in moments for s, _ in r)}
    eliminated: dict[str, Elimination] = {}
    for group in groups:
        if group.name in readers:
            parts = [
                _reader(view, site, member, moments[site.node.index], spreads[site.node.index])
                for site, member in readers[group.name]
            ]
            eliminated[group.name] = eliminate(parts, group.blocks)
    return eliminated


def _width(view: View, site: Site) -> int | None:
    """Return how many inputs a dense layer sums over; None if it is grouped or too wide."""
    if site.node.attributes.get("group", 1) != 1:
        return None
    width = weight_blocks(site, site.weight_in(view)).shape[1]
    return width if width <= _WIDEST else None


def _readers(
    coupling: Coupling, group: Group, sites: Mapping[int, Site]
) -> list[tuple[Site, Member]]:
    """Pair each exit of a group with its site; empty if one of them is no linear layer."""
    found = []
    for member in group.members:
        for node, contract in coupling.contracts.get(member.axis, ()):
            site = sites.get(node)
            if contract.how != "sum" or site is None or site.source != member.axis.value:
                return []
            found.append((site, member))
    return found


def _moments(
    view: View, trace: Trace, sites: Sequence[Site], feeds: Sequence[Feeds], seed: int
) -> tuple[dict[int, Array], dict[int, float]]:
    """Collect centred second moments of inputs, and the variance of outputs with their skips.

    Inputs with fewer rows than twice their width are left out: with so few, almost everything
    seems replaceable.
    """
    rng = np.random.default_rng(seed)
    places = {s.node.index: places_of(trace, s, rng) for s in sites}
    sums = {s.node.index: _Sums() for s in sites}
    outs = {s.node.index: _Sums() for s in sites}
    names = list(dict.fromkeys(n for s in sites for n in (s.source, s.total or s.output)))
    inner = [name for name in names if name not in view.inputs]
    session = Session(with_outputs(view.real, inner))
    for feed in feeds:
        values = {**feed, **session.run(feed, inner)}
        for site in sites:
            at: Places | None = places[site.node.index]
            weight = site.weight_in(view)
            sums[site.node.index].add(input_rows(site, values[site.source], weight, at)[0])
            outs[site.node.index].add(
                output_rows(values[site.total or site.output], at), full=False
            )
    return (
        {i: t.centred() for i, t in sums.items() if t.n >= _ROWS * len(t.first)},
        {index: float(total.centred().sum()) for index, total in outs.items()},
    )


class _Sums:
    """Streaming first and second moments; only the diagonal of the second unless ``full``."""

    def __init__(self) -> None:
        self.n = 0
        self.first: Array = np.zeros(1)
        self.second: Array = np.zeros(1)

    def add(self, rows: NDArray[np.float32], *, full: bool = True) -> None:
        self.n += len(rows)
        self.first = self.first + rows.sum(axis=0, dtype=np.float64)
        square = rows.T @ rows if full else (rows.astype(np.float64) ** 2).sum(axis=0)
        self.second = self.second + square

    def centred(self) -> Array:
        mean = self.first / self.n
        outer = np.outer(mean, mean) if self.second.ndim == 2 else mean**2
        return np.asarray(self.second / self.n - outer)


def _reader(view: View, site: Site, member: Member, moments: Array, spread: float) -> Reader:
    weight = site.weight_in(view)
    matrix = weight_blocks(site, weight)[0]
    taps = int(np.prod(weight.shape[2:]))  # 1 where the layer is no convolution
    places = (member.positions[:, :, None] * taps + np.arange(taps)).reshape(
        len(member.positions), -1
    )
    return Reader(moments, matrix.astype(np.float64), places, max(spread, 1e-12))


def eliminate(readers: Sequence[Reader], blocks: NDArray[np.int64]) -> Elimination:
    """Remove channels one after the other, always the cheapest with the rest refitted.

    Where channels lie in blocks that must stay equally wide, the cheapest of each goes in turn.

    Parameters
    ----------
    readers : sequence of Reader
        All layers that read the group; judged together.
    blocks : int array, shape (channels,)
        The block of each channel.

    Returns
    -------
    Elimination
    """
    states = [_State(reader) for reader in readers]
    alive = np.ones(len(blocks), bool)
    order: list[int] = []
    errors = [0.0]
    while alive.any():
        left = np.flatnonzero(alive)
        scores = np.sum([state.scores(left) for state in states], axis=0)
        for channel in _cheapest(left[np.argsort(scores, kind="stable")], blocks):
            cost = sum(state.remove(channel) for state in states)
            alive[channel] = False
            order.append(channel)
            errors.append(errors[-1] + max(float(cost), 0.0))
    sequence = np.asarray(order, np.int64)
    return Elimination(sequence, np.asarray(errors), _plain(readers, sequence))


def _cheapest(ranked: NDArray[np.int64], blocks: NDArray[np.int64]) -> list[int]:
    """Take the first channels, or the first of each block where there are several."""
    if blocks.any():
        _, first = np.unique(blocks[ranked], return_index=True)
        ranked = ranked[np.sort(first)]
        return [int(channel) for channel in ranked]
    return [int(channel) for channel in ranked[: max(1, len(blocks) // _STEPS)]]


class _State:
    """One reader during elimination: the inverse moments and the refitted weight."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        size = len(reader.moments)
        ridge = _RIDGE * max(float(np.diag(reader.moments).mean()), 1e-12)
        self.inverse = linalg.inv(reader.moments + ridge * np.eye(size))
        self.weight = reader.weight.copy()

    def scores(self, channels: NDArray[np.int64]) -> Array:
        places = self.reader.places[channels]
        weights = self.weight[places]
        blocks = self.inverse[places[:, :, None], places[:, None, :]]
        solved = np.linalg.solve(blocks, weights)
        # Rounding may leave a channel that cannot go any cheaper than for nothing.
        costs: Array = (weights * solved).sum(axis=(1, 2)) / self.reader.spread
        return np.asarray(np.maximum(costs, 0.0))

    def remove(self, channel: int) -> float:
        at = self.reader.places[channel]
        block = self.inverse[np.ix_(at, at)]
        weights = self.weight[at]
        solved = np.linalg.solve(block, weights)
        cost = float((weights * solved).sum() / self.reader.spread)
        column = self.inverse[:, at]
        self.weight -= column @ solved
        self.inverse -= column @ np.linalg.solve(block, column.T)
        # What is gone must never come back through rounding.
        self.weight[at] = 0.0
        self.inverse[at, :] = 0.0
        self.inverse[:, at] = 0.0
        self.inverse[at, at] = 1.0
        return cost


def _plain(readers: Sequence[Reader], order: NDArray[np.int64]) -> Array:
    """Error of zeroing the first k channels of an order, nothing refitted."""
    total = np.zeros(len(order) + 1)
    for reader in readers:
        # With S = sum of W_c' X_c over the channels gone, adding channel c adds
        # 2 tr(W_c' H_cG W_G) + tr(W_c' H_cc W_c).
        against = np.zeros_like(reader.weight)  # H @ W over what is gone
        error = 0.0
        for k, channel in enumerate(order.tolist(), start=1):
            at = reader.places[channel]
            weights = reader.weight[at]
            reach = reader.moments[:, at] @ weights
            error += float((weights * (2 * against[at] + reach[at])).sum())
            against += reach
            total[k] += max(error, 0.0) / reader.spread
    return total
