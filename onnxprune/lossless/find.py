"""The lossless part of pruning: found, tried out, and counted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import keep_masks, narrow
from onnxprune.coupling.relations import Axis
from onnxprune.lossless.folding import Fold, folded
from onnxprune.lossless.free import foldable, free_channels
from onnxprune.lossless.proven import proven_constants
from onnxprune.lossless.ranges import Constants, seen_constants
from onnxprune.model.cost import Cost, fractions
from onnxprune.model.frontier import float_frontier
from onnxprune.model.upcast import upcast
from onnxprune.rewrite.prove import Proven, prove
from onnxprune.rewrite.verify import TOLERANCE, relative_error
from onnxprune.runtime.session import Feeds, RunFailedError, Session, with_outputs

__all__ = ["Free", "find_free", "fold"]

_FEWEST = 32  # samples below which "never" says little
_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Free:
    """Channels that can go without changing anything.

    Attributes
    ----------
    channels : mapping of group name to channel numbers
    proven : mapping of group name to channel numbers
        Those that no input can wake, by the weights alone.
    constants : Constants
        What such channels hold wherever they are, NaN at all other positions.
    saved : Cost
        What goes with all of them.
    samples : int
        That they were looked at on; 0 where only the weights were.
    """

    channels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    proven: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    constants: Constants = field(default_factory=dict)
    saved: Cost = field(default_factory=lambda: Cost(0, 0, 0))
    samples: int = 0


def find_free(found: Analysis, groups: Sequence[Group], indices: NDArray[np.int64]) -> Free:
    """Find the channels that can go for free, and try it out.

    Parameters
    ----------
    found : Analysis
    groups : sequence of Group
        That may be cut.
    indices : int array
        Samples to look at; with fewer than 32, or synthetic ones, the weights alone decide.

    Returns
    -------
    Free
        Only groups whose removal was proven and, on the samples, left the outputs as they were.
    """
    view, trace, coupling = found.view, found.traces[0], found.coupling
    known = proven_constants(view, trace, groups)
    proven = free_channels(view, trace, coupling, groups, known)
    channels, constants, samples = proven, known, 0
    if not found.samples.synthetic and len(indices) >= _FEWEST:
        samples = len(indices)
        axes = [m.axis for g in groups for m in g.members if m.axis in coupling.contracts]
        axes = [axis for axis in axes if axis.value not in coupling.collected.constants]
        feeds = list(found.samples.feeds(indices, _BATCH))
        seen = seen_constants(view, axes, coupling.collected.sizes, feeds)
        constants = {axis: _joined(known.get(axis), array) for axis, array in seen.items()}
        channels = free_channels(view, trace, coupling, groups, constants)
    if not channels:
        return Free(samples=samples)
    tried = _Tried(found, groups, constants, list(found.samples.feeds(indices[:_BATCH], _BATCH)))
    good = tried.good(channels)
    keeps = keep_masks(tried.removal(good), coupling.collected.sizes)
    return Free(
        good,
        {name: tuple(c for c in proven.get(name, ()) if c in gone) for name, gone in good.items()},
        _at(groups, good, _exits(found, constants)),
        found.costs.saved(fractions(keeps)),
        samples,
    )


def fold(found: Analysis, proven: Proven, constants: Constants) -> Fold:
    """Put the constants of removed free channels into the biases that they went into.

    Parameters
    ----------
    found : Analysis
    proven : Proven
        The cut; not changed.
    constants : Constants
        What `Free` says that they hold.

    Returns
    -------
    Fold
    """
    if not constants:
        return Fold(proven.model, (), ())
    sites = foldable(found.view, found.traces[0], found.coupling)
    return folded(found.view, found.traces[0], proven.model, proven.keeps, sites, constants)


def _joined(known: NDArray[np.float64] | None, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """Prefer what the weights say: it carries no rounding."""
    return seen if known is None else np.where(np.isnan(known), seen, known)


def _exits(found: Analysis, constants: Constants) -> Constants:
    """Leave the places that operators sum over."""
    return {axis: held for axis, held in constants.items() if axis in found.coupling.contracts}


def _at(
    groups: Sequence[Group], channels: Mapping[str, tuple[int, ...]], constants: Constants
) -> dict[Axis, NDArray[np.float64]]:
    """Leave of the constants only those of some channels."""
    left: dict[Axis, NDArray[np.float64]] = {}
    for group in (g for g in groups if g.name in channels):
        for member in group.members:
            if member.axis in constants:
                held = constants[member.axis]
                kept = left.setdefault(member.axis, np.full(len(held), np.nan))
                places = member.positions[list(channels[group.name])]
                kept[places] = held[places]
    return left


class _Tried:
    """Cuts free channels and compares outputs: what is said to change nothing must not."""

    def __init__(
        self,
        found: Analysis,
        groups: Sequence[Group],
        constants: Constants,
        feeds: Sequence[Feeds],
    ) -> None:
        self.found, self.groups, self.constants, self.feeds = found, groups, constants, feeds
        self.names = float_frontier(found.view, found.traces[0])
        session = Session(with_outputs(found.view.real, self.names))
        self.wanted = [session.run(feed, self.names) for feed in feeds]

    def removal(
        self, channels: Mapping[str, tuple[int, ...]]
    ) -> list[tuple[Group, tuple[int, ...]]]:
        return [(g, channels[g.name]) for g in self.groups if g.name in channels]

    def good(self, channels: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return the groups that hold together; else those that hold alone and together."""
        if self.holds(channels):
            return dict(channels)
        good: dict[str, tuple[int, ...]] = {}
        for name, numbers in channels.items():
            if self.holds({**good, name: numbers}):
                good[name] = numbers
        return good

    def holds(self, channels: Mapping[str, tuple[int, ...]]) -> bool:
        proven = prove(self.found, self.removal(channels))
        if proven.guilty:
            return False
        constants = _at(self.groups, channels, _exits(self.found, self.constants))
        model = fold(self.found, proven, constants).model
        session = Session(with_outputs(upcast(model), self.names))
        try:
            runs = [session.run(narrow(feed, proven.keeps), self.names) for feed in self.feeds]
        except RunFailedError:
            return False
        pairs = zip(runs, (narrow(w, proven.keeps) for w in self.wanted), strict=True)
        return all(relative_error(run, wanted) <= TOLERANCE for run, wanted in pairs)
