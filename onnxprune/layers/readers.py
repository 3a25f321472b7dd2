"""The linear layers that read a group's channels, with the second moments of what they read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group, Member
from onnxprune.layers.rows import input_rows, output_rows, places_of, weight_blocks
from onnxprune.layers.sites import Site, find_sites
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, batch_size, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Reader", "collect_readers", "dense_sites"]

Array = NDArray[np.float64]
_WIDEST = 5000  # inputs of a layer beyond which its moments take too long to invert
_ROWS = 2  # rows per input that moments need


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a group.

    Attributes
    ----------
    site : Site
    moments : float array, shape (D, D)
        Of its inputs, about their mean.
    mean : float array, shape (D,)
    weight : float array, shape (D, O)
    places : int array, shape (channels, inputs per channel)
        Which inputs belong to each channel of the group.
    spread : float
        Variance of its outputs, of the sum with their skip where they meet one.
    """

    site: Site
    moments: Array
    mean: Array
    weight: Array
    places: NDArray[np.int64]
    spread: float


def collect_readers(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    seed: int,
) -> dict[str, list[Reader]]:
    """Find the readers of every group that only dense linear layers read.

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
    dict of group name to list of Reader
        Groups with other readers (normalizations, attention products, recurrences), and with
        fewer than two rows per input of a reader (almost everything would seem replaceable), are
        left out.
    """
    sites = {s.node.index: s for s in dense_sites(view, trace, coupling)}
    pairs = {g.name: found for g in groups if (found := _pairs(coupling, g, sites))}
    wanted = {site.node.index: site for found in pairs.values() for site, _ in found}
    if not wanted:
        return {}
    inputs, spreads = _moments(view, trace, list(wanted.values()), feeds, seed)
    return {
        name: [_reader(view, s, m, inputs[s.node.index], spreads[s.node.index]) for s, m in found]
        for name, found in pairs.items()
        if all(inputs[s.node.index].enough for s, _ in found)
    }


def dense_sites(view: View, trace: Trace, coupling: Coupling) -> list[Site]:
    """Return the layers that sum over all channels of their input."""
    return [s for s in find_sites(view, trace, coupling.collected) if _dense(view, s)]


def _dense(view: View, site: Site) -> bool:
    if site.node.attributes.get("group", 1) != 1:
        return False
    width: int = weight_blocks(site, site.weight_in(view)).shape[1]
    return width <= _WIDEST


def _pairs(
    coupling: Coupling, group: Group, sites: Mapping[int, Site]
) -> list[tuple[Site, Member]]:
    """Pair each exit of a group with its site; empty if one of them is no linear layer."""
    found = []
    for member in group.members:
        for node, contract in coupling.contracts.get(member.axis, ()):
            site = sites.get(node)
            if contract.how != "sum" or site is None or site.source != member.axis.value:
                return []
            if (member.positions < 0).any():  # it reads the channels of some blocks only
                return []
            found.append((site, member))
    return found


class _Sums:
    """Streaming first and second moments; only the diagonal of the second unless ``full``."""

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.n = 0
        self.first: Array = np.zeros(1)
        self.second: Array = np.zeros(1)

    def add(self, rows: NDArray[np.float32]) -> None:
        self.n += len(rows)
        self.first = self.first + rows.sum(axis=0, dtype=np.float64)
        square = rows.T @ rows if self.full else (rows.astype(np.float64) ** 2).sum(axis=0)
        self.second = self.second + square

    @property
    def enough(self) -> bool:
        return self.n >= _ROWS * len(self.first)

    @property
    def mean(self) -> Array:
        return self.first / self.n

    def centred(self) -> Array:
        outer = np.outer(self.mean, self.mean) if self.full else self.mean**2
        return np.asarray(self.second / self.n - outer)


def _moments(
    view: View, trace: Trace, sites: Sequence[Site], feeds: Sequence[Feeds], seed: int
) -> tuple[dict[int, _Sums], dict[int, float]]:
    """Sum up the inputs of layers, and the variance of their outputs with the skips."""
    rng = np.random.default_rng(seed)
    samples = sum(map(batch_size, feeds))
    places = {s.node.index: places_of(trace, s, rng, samples) for s in sites}
    sums = {s.node.index: _Sums(full=True) for s in sites}
    outs = {s.node.index: _Sums(full=False) for s in sites}
    names = list(dict.fromkeys(n for s in sites for n in (s.source, s.total or s.output)))
    inner = [name for name in names if name not in view.inputs]
    session = Session(with_outputs(view.real, inner))
    for feed in feeds:
        values = {**feed, **session.run(feed, inner)}
        for site in sites:
            at, weight = places[site.node.index], site.weight_in(view)
            sums[site.node.index].add(input_rows(site, values[site.source], weight, at)[0])
            outs[site.node.index].add(output_rows(values[site.total or site.output], at))
    return sums, {index: float(total.centred().sum()) for index, total in outs.items()}


def _reader(view: View, site: Site, member: Member, inputs: _Sums, spread: float) -> Reader:
    weight = site.weight_in(view)
    matrix = weight_blocks(site, weight)[0].astype(np.float64)
    taps = int(np.prod(weight.shape[2:]))  # 1 where the layer is no convolution
    places = (member.positions[:, :, None] * taps + np.arange(taps)).reshape(
        len(member.positions), -1
    )
    return Reader(site, inputs.centred(), inputs.mean, matrix, places, max(spread, 1e-12))
