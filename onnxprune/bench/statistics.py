"""What rounds of readings say: a ratio, its interval, and which clock to believe.

Latency is skewed by whatever else the machine does: medians, never means or minima.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from onnxprune.bench.readings import Round

__all__ = ["UNSTEADY", "Estimate", "choose", "clocks", "estimate", "variation", "verdict"]

CONFIDENCE = 0.99
LEAST_CHANGE = 0.01  # below this a change is noise to anyone who deploys a model
UNSTEADY = 0.025  # coefficient of variation over pairs that is worth a warning (trtexec's)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Second over first, its 99 % interval, and the coefficient of variation over pairs."""

    ratio: float
    low: float
    high: float
    cv: float


def estimate(logs: NDArray[np.float64]) -> Estimate:
    """Return the ratio and its t-interval over the log ratios of independent pairs.

    Parameters
    ----------
    logs : ndarray of shape (pairs,)
        ``log(second / first)``, at least two.
    """
    center = float(np.mean(logs))
    width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * stats.sem(logs))
    ends = math.exp(center - width), math.exp(center + width)
    return Estimate(math.exp(center), *ends, variation(np.exp(logs)))


def verdict(found: Estimate) -> str:
    """Return ``faster``, ``slower``, or ``no measurable change`` (unclear, or under 1 %)."""
    if found.low <= 1 <= found.high or abs(found.ratio - 1) < LEAST_CHANGE:
        return "no measurable change"
    return "faster" if found.ratio < 1 else "slower"


def choose(wall: Estimate, cpu: Estimate | None) -> tuple[str, str | None]:
    """Return the clock to believe, ``wall`` or ``cpu``, and why if it is not the wall clock.

    Clocks that differ by less than a change that matters do not part, however tight they are.
    """
    if cpu is None:
        return "wall", None
    apart = abs(math.log(wall.ratio / cpu.ratio)) >= math.log1p(LEAST_CHANGE)
    if apart and (wall.low > cpu.high or cpu.low > wall.high):
        return "cpu", (
            f"the wall clock says {wall.ratio:.3f} and one-thread CPU time {cpu.ratio:.3f}: "
            "the ratio is read from CPU time"
        )
    if wall.cv > UNSTEADY and cpu.cv < wall.cv:
        return "cpu", (
            f"wall time varied by {wall.cv:.1%} over session pairs, one-thread CPU time by "
            f"{cpu.cv:.1%}: the ratio is read from CPU time"
        )
    return "wall", None


def clocks(rounds: Sequence[Round]) -> tuple[Estimate | None, Estimate | None]:
    """Estimate the ratio by the wall clock and by CPU time; None where there is no such ratio."""
    if len(rounds[0]) < 2:
        return None, None
    wall = estimate(np.array([_log_ratio(a.wall, b.wall) for a, b in rounds]))
    seen = all(r.cpu_seen for pair in rounds for r in pair)
    cpu = estimate(np.array([_log_ratio(a.cpu, b.cpu) for a, b in rounds])) if seen else None
    return wall, cpu


def _log_ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return math.log(np.median(second) / np.median(first))


def variation(values: NDArray[np.float64]) -> float:
    """Return the coefficient of variation."""
    return float(np.std(values, ddof=1) / np.mean(values))
