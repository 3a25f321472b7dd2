"""Which widths pay: fitting staircases to measured times."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["STEPS", "stairs"]

STEPS = (1, 4, 8, 16, 32)
_BETTER = 0.5  # share of the plain line's squared error that a staircase must not exceed
_CLIFF = 0.05  # a relative extra that is worth avoiding


def stairs(widths: Sequence[int], times: Sequence[float]) -> tuple[int, float]:
    """Find the step of a staircase, and what widths off multiples of 4 take more.

    A width takes as long as the next multiple of the step. Every candidate is fitted by least
    squares to the multiples of 4; what the other widths take beyond it is the cliff
    (convolutions leave their fast layout there).

    Parameters
    ----------
    widths : sequence of int
        At least three multiples of 4 among them.
    times : sequence of float
        Of the same length.

    Returns
    -------
    step : int
        One of 1, 4, 8, 16 and 32. 1 unless a staircase explains the times much better.
    cliff : float
        Relative; 0 where it is small.
    """
    w, t = np.asarray(widths), np.asarray(times, np.float64)
    even = w % 4 == 0
    found = {step: _fit(w[even], t[even], step) for step in STEPS}
    best = min(STEPS, key=lambda step: found[step][0])
    step = best if found[best][0] <= _BETTER * found[1][0] else 1
    base, slope = found[step][1]
    extra = t[~even] / (base + slope * _tops(w[~even], step)) - 1
    if not len(extra) or extra.min() < _CLIFF:  # a true cliff shows at every such width
        return step, 0.0
    return max(step, 4), float(np.median(extra))


def _fit(
    w: NDArray[np.int64], t: NDArray[np.float64], step: int
) -> tuple[float, NDArray[np.float64]]:
    """Return the relative squared error of a staircase, and its base and slope."""
    matrix = np.stack([np.ones(len(w)), _tops(w, step)], axis=1)
    solution, *_ = np.linalg.lstsq(matrix / t[:, None], np.ones(len(t)), rcond=None)
    return float(((matrix @ solution / t - 1) ** 2).sum()), np.asarray(solution, np.float64)


def _tops(w: NDArray[np.int64], step: int) -> NDArray[np.float64]:
    return np.asarray(-(-w // step) * step, np.float64)
