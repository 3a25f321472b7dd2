"""How well two rankings of the same channels agree: over all groups, and inside each.

Groups differ in what they are worth by orders of magnitude, so channels of all groups together
are easy to rank; which channel of a group goes first is decided inside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

__all__ = ["FEWEST", "Ranks", "compare", "correlation"]

FEWEST = 6
"""Channels of a group below which its rank correlation is mostly chance."""

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rank correlations of two rankings.

    Attributes
    ----------
    channels : int
        That both rank.
    pooled : float, optional
        Over the channels of all groups; None where scores of different groups do not compare.
    groups : int
        That count for the next two: with enough channels, not all tied.
    median, worst : float, optional
        Inside a group.
    weakest : str
        The group that is worst; "" where none counts.
    """

    channels: int
    pooled: float | None
    groups: int
    median: float | None
    worst: float | None
    weakest: str


def compare(pairs: Mapping[str, tuple[Scores, Scores]], *, pool: bool = True) -> Ranks:
    """Compare two rankings group by group.

    Parameters
    ----------
    pairs : mapping of group name to two float arrays, shape (channels,)
        What each ranking says of the same channels.
    pool : bool
        Whether scores of different groups compare.

    Returns
    -------
    Ranks
    """
    inside = {
        name: found
        for name, (first, second) in pairs.items()
        if len(first) >= FEWEST and (found := correlation(first, second)) is not None
    }
    nothing = np.zeros(0)
    sides = [np.concatenate([nothing, *(pair[side] for pair in pairs.values())]) for side in (0, 1)]
    weakest = min(inside, key=inside.__getitem__, default="")
    return Ranks(
        channels=len(sides[0]),
        pooled=correlation(sides[0], sides[1]) if pool else None,
        groups=len(inside),
        median=float(np.median([*inside.values()])) if inside else None,
        worst=inside.get(weakest),
        weakest=weakest,
    )


def correlation(first: Scores, second: Scores) -> float | None:
    """Return Spearman's rank correlation; None where one side cannot be ranked."""
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return None
    return float(spearmanr(first, second).statistic)
