"""The linear layers that read a group's channels, with the second moments of what they read.

A recurrent layer counts as several: each sum in it is linear in the layer's input and state.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group, Member
from onnxprune.coupling.relations import Contract
from onnxprune.layers.moments import Key, Moments, key_of, moments_of
from onnxprune.layers.recurrent import Recurrence, Sum, find_recurrences
from onnxprune.layers.rows import weight_blocks
from onnxprune.layers.sites import Site, affine_of, find_sites
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace

__all__ = ["Reader", "collect_readers", "dense_sites", "read_wholly"]

Array = NDArray[np.float64]
Places = NDArray[np.int64]
_WIDEST = 5000  # inputs of a layer beyond which its moments take too long to invert


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads a group.

    Attributes
    ----------
    site : Site or Sum
    moments : float array, shape (D, D)
        Of its inputs, about their mean.
    mean : float array, shape (D,)
    weight : float array, shape (D, O)
    places : int array, shape (channels, inputs per channel)
        Which inputs belong to each channel of the group; -1 for channels that it does not read.
    worth : float array, shape (O,)
        What a unit of squared error of each output counts: one over the variance of all of them,
        of the sum with their skip where they meet one, unless more is known; a normalization behind
        the layer counts as if it were folded in.
    own : int array, shape (channels, outputs per channel), optional
        Which outputs go with each channel: the gates of a unit. -1 where none do.
    """

    site: Site | Sum
    moments: Array
    mean: Array
    weight: Array
    places: Places
    worth: Array
    own: Places | None = None

    def inputs(self, channels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which inputs belong to some channels, shape (inputs,)."""
        found = self.places[channels].ravel()
        return np.asarray(found[found >= 0])


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """Where a layer finds the channels of a group among its inputs, and among its outputs."""

    layer: Site | Sum
    places: Places
    own: Places | None = None


def collect_readers(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    seed: int,
) -> dict[str, list[Reader]]:
    """Find the readers of every group that only dense linear and recurrent layers read.

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
        Groups with other readers (normalizations, attention products), and with fewer than two
        rows per input of a reader (almost everything would seem replaceable), are left out.
    """
    layers = _Layers(
        view,
        {s.node.index: s for s in dense_sites(view, trace, coupling)},
        {layer.node.index: layer for layer in find_recurrences(view)},
    )
    readings = {g.name: found for g in groups if (found := layers.readings(coupling, g))}
    wanted = {key_of(r.layer): r.layer for found in readings.values() for r in found}
    if not wanted:
        return {}
    seen = moments_of(view, trace, list(wanted.values()), feeds, seed)
    return {
        name: [_reader(view, r, seen) for r in found]
        for name, found in readings.items()
        if all(seen[key_of(r.layer)][0].enough for r in found)
    }


def read_wholly(
    view: View, trace: Trace, sites: Sequence[Site], feeds: Sequence[Feeds], *, seed: int
) -> dict[int, Reader]:
    """Return layers with the moments of all that they read, each input a channel.

    Parameters
    ----------
    view, trace
        Of the original.
    sites : sequence of Site
        That are no convolutions.
    feeds : sequence of Feeds
    seed : int

    Returns
    -------
    dict of node index to Reader
        Layers with fewer than two rows per input are left out.
    """
    if not sites:
        return {}
    seen = moments_of(view, trace, sites, feeds, seed)
    readings = [
        _Reading(site, np.arange(weight_blocks(site, site.weight_in(view)).shape[1])[:, None])
        for site in sites
    ]
    return {
        found.layer.node.index: _reader(view, found, seen)
        for found in readings
        if seen[key_of(found.layer)][0].enough
    }


def dense_sites(view: View, trace: Trace, coupling: Coupling) -> list[Site]:
    """Return the layers that sum over all channels of their input."""
    return [s for s in find_sites(view, trace, coupling.collected) if _dense(view, s)]


def _dense(view: View, site: Site) -> bool:
    if site.node.attributes.get("group", 1) != 1:
        return False
    width: int = weight_blocks(site, site.weight_in(view)).shape[1]
    return width <= _WIDEST


@dataclass(frozen=True)
class _Layers:
    """What can be solved for, by node."""

    view: View
    sites: Mapping[int, Site]
    recurrences: Mapping[int, Recurrence]

    def readings(self, coupling: Coupling, group: Group) -> list[_Reading]:
        """Pair each exit of a group with its layers; empty if one of them is not linear."""
        found: list[_Reading] = []
        for member in group.members:
            for node, contract in coupling.contracts.get(member.axis, ()):
                here = list(self._readings(node, contract, member))
                if not here:
                    return []
                found += here
        return _merged(found)

    def _readings(self, node: int, contract: Contract, member: Member) -> Iterator[_Reading]:
        site, layer = self.sites.get(node), self.recurrences.get(node)
        partial = (member.positions < 0).any()  # it reads the channels of some blocks only
        if contract.how != "sum" or partial:
            return
        if site is not None and site.source == member.axis.value:
            taps = int(np.prod(site.weight_in(self.view).shape[2:]))  # 1 for all but convolutions
            places = member.positions[:, :, None] * taps + np.arange(taps)
            yield _Reading(site, places.reshape(len(member.positions), -1))
        elif layer is not None and layer.node.inputs[0] == member.axis.value:
            for found in layer.sums(self.view):
                if found.part.reads:
                    yield _Reading(found, member.positions)
        elif layer is not None and layer.node.inputs[2] == member.axis.value:
            yield from _recurred(self.view, layer, member.positions)


def _merged(readings: Sequence[_Reading]) -> list[_Reading]:
    """Join what a layer finds in several places, as its input and as its state; empty if uneven."""
    found: dict[Key, _Reading] = {}
    for one in readings:
        known = found.setdefault(key_of(one.layer), one)
        if known is not one:
            places = np.hstack([known.places, one.places])
            own = known.own if one.own is None else one.own
            found[key_of(one.layer)] = replace(known, places=places, own=own)
            inputs = np.unique(places[places >= 0])
            partial = (places >= 0).any(axis=1) != (places >= 0).all(axis=1)
            if partial.any() or len(inputs) < (places >= 0).sum():
                return []
    return list(found.values())


def _recurred(view: View, layer: Recurrence, positions: Places) -> Iterator[_Reading]:
    """Yield where the sums of a layer find the units that they themselves go into."""
    cells = layer.taught(view)
    for found in layer.sums(view):
        if not found.part.state:
            continue
        cell = cells[found.direction]
        units = positions - found.direction * cell.units
        here = (units >= 0) & (units < cell.units)
        first = cell.weight.shape[1] * found.part.reads
        gates = np.arange(found.part.last - found.part.first) * cell.units
        own = np.where(here, units + gates, -1)
        yield _Reading(found, np.where(here, units + first, -1), own)


def _reader(view: View, reading: _Reading, seen: Mapping[Key, tuple[Moments, float]]) -> Reader:
    layer = reading.layer
    if isinstance(layer, Sum):
        weight = layer.layer.taught(view)[layer.direction].block(layer.part)[0]
    else:
        weight = weight_blocks(layer, layer.weight_in(view))[0]
    scale = np.ones(weight.shape[1])
    if isinstance(layer, Site) and layer.norm is not None:
        scale = affine_of(view, layer.norm)[0]
    inputs, spread = seen[key_of(layer)]
    return Reader(
        layer,
        inputs.centred(),
        inputs.mean,
        weight.astype(np.float64),
        reading.places,
        scale**2 / max(spread, 1e-12),
        reading.own,
    )
