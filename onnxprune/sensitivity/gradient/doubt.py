"""Which groups a derivative says too little of: what a few exact removals say otherwise.

What the loss of a channel does is no straight line where much hangs on it, such as on the channels
of a stream. Groups where estimates and exact removals rank channels differently, beyond what so few
removals can show by chance, are better measured exactly, and so is what takes next to no time.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group
from onnxprune.sensitivity.agreement import FEWEST, correlation

__all__ = ["MOST", "Probed", "doubtful", "probes"]

Probed = Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

MOST = 32.0
"""Passes of the whole model that exact measurements may take, of all groups together."""

_ALL, _STREAM = 48, 16  # probes of all groups together, and of a group that many layers read
_ENOUGH = 0.95  # rank correlation
_SURE = 1.64  # standard errors: 19 of 20 groups that are ranked well enough are not doubted
_NOTHING = 1.0  # passes of the whole model


def probes(groups: Sequence[Group]) -> dict[str, int]:
    """Return of how many channels of each group the estimate is checked.

    Parameters
    ----------
    groups : sequence of Group
    """
    each = max(2, _ALL // max(len(groups), 1))
    return {g.name: min(g.size, max(each, _STREAM) if g.kind == "stream" else each) for g in groups}


def doubtful(groups: Sequence[Group], probed: Probed, work: Mapping[str, float]) -> list[Group]:
    """Choose the groups that are measured exactly.

    Parameters
    ----------
    groups : sequence of Group
    probed : mapping of group name to two float arrays, shape (probes,)
        Exact scores and estimates of the same channels.
    work : mapping of group name to float
        Passes of the whole model that an exact measurement takes; a channel's is one where it is
        left out.

    Returns
    -------
    list of Group
        Those that rank worst first, as many as `MOST` passes allow.
    """
    chosen, spent = [], 0.0
    for group in _wanted(groups, probed, work):
        passes = work.get(group.name, float(group.size))
        if spent + passes <= MOST:
            chosen.append(group)
            spent += passes
    return chosen


def _wanted(groups: Sequence[Group], probed: Probed, work: Mapping[str, float]) -> Iterator[Group]:
    ranks = {g.name: _below(*probed[g.name]) for g in groups if g.name in probed}
    weak = [g for g in groups if ranks.get(g.name) is not None]
    yield from sorted(weak, key=lambda g: ranks[g.name] or 0.0)
    cheap = [g for g in groups if g not in weak and work.get(g.name, g.size) <= _NOTHING]
    yield from sorted(cheap, key=lambda g: work.get(g.name, g.size))


def _below(exact: NDArray[np.float64], said: NDArray[np.float64]) -> float | None:
    """Return the rank correlation if it is too low for chance, by Fisher's transform."""
    rank = correlation(exact, said) if len(exact) >= FEWEST else None
    if rank is None:
        return None
    limit = np.arctanh(np.clip(rank, -0.999999, 0.999999)) + _SURE / np.sqrt(len(exact) - 3)
    return rank if np.tanh(limit) < _ENOUGH else None
