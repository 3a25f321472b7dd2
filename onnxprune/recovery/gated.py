"""Least squares in front of a clipping activation: what it hides need not be matched.

Where the original lies below the activation's lower bound, any output below it will do. The goal
is therefore redrawn in turns with the weights: the original where the activation lets it through,
elsewhere the student's own output, moved no further than to the bound (Zhang et al. 2015, the
nonlinear case of asymmetric reconstruction).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.recovery.ridge import Moments, Pooled, Solution, System, bias_of, pool

__all__ = ["Bounds", "solve_gated"]

Array = NDArray[np.float64]
Rows = NDArray[np.float32]
Pairs = Sequence[tuple[Rows, Rows]]
_TURNS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Between which values, per output, the activation lets its input through.

    Both arrays have shape (groups, 1, O).
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]


def solve_gated(
    pairs: Pairs,
    moments: Moments,
    bounds: Bounds,
    linear: Solution,
    start: Array,
    *,
    centred: bool,
) -> Solution:
    """Improve on a linear solution by redrawing the goals that the activation hides.

    Parameters
    ----------
    pairs : sequence of (rows, goals)
        Shapes (groups, n, D) and (groups, n, O), one pair per feed.
    moments : Moments
        Of all pairs.
    bounds : Bounds
    linear : Solution
        Of the same problem with the goals as they are; its ridge is used again.
    start : float array, shape (groups, D, O)
        What weights are shrunk towards.
    centred : bool
        Whether a bias is solved for.

    Returns
    -------
    Solution
        The linear one where redrawing does not lower the error behind the activation on a pair
        that it was not fitted on.
    """
    if len(pairs) > 1:
        rest = pool(moments.without(*pairs[0]), [0], centred)
        plain, gated = _turns(pairs[1:], rest, bounds, linear, start, centred)
        if not _error(pairs[0], bounds, gated) < _error(pairs[0], bounds, plain):
            return linear
    whole = pool(moments, range(len(moments.counts)), centred)
    return _turns(pairs, whole, bounds, linear, start, centred)[1]


def _turns(
    pairs: Pairs, fit: Pooled, bounds: Bounds, linear: Solution, start: Array, centred: bool
) -> tuple[Solution, Solution]:
    """Solve for the goals as they are, then in turns for redrawn ones; return both."""
    system = System(fit, linear.ridge)
    plain = gated = _solved(system, fit, linear, start, centred)
    for _ in range(_TURNS):
        drawn = [(rows, _redrawn(rows, goals, bounds, gated)) for rows, goals in pairs]
        gated = _solved(system, _aimed(fit, drawn, centred), linear, start, centred)
    return plain, gated


def _solved(system: System, fit: Pooled, linear: Solution, start: Array, centred: bool) -> Solution:
    weights = system.solve(fit.xy, start)
    return replace(linear, weights=weights, bias=bias_of(fit, weights, centred))


def _aimed(fit: Pooled, pairs: Pairs, centred: bool) -> Pooled:
    """Return the same problem with other goals."""
    xy = np.zeros(fit.xy.shape)
    y = np.zeros(fit.y.shape)
    for rows, goals in pairs:
        xy += rows.transpose(0, 2, 1) @ goals
        y += goals.sum(axis=1) / fit.n
    if centred:
        xy = xy - fit.n * fit.x[:, :, None] * y[:, None, :]
    return replace(fit, xy=xy, y=y)


def _redrawn(rows: Rows, goals: Rows, bounds: Bounds, solution: Solution) -> Rows:
    now = _outputs(rows, solution)
    below, above = np.minimum(now, bounds.low), np.maximum(now, bounds.high)
    return np.where(goals <= bounds.low, below, np.where(goals >= bounds.high, above, goals))


def _error(pair: tuple[Rows, Rows], bounds: Bounds, solution: Solution) -> float:
    """Squared error behind the activation."""
    rows, goals = pair
    now = np.clip(_outputs(rows, solution), bounds.low, bounds.high)
    return float(((now - np.clip(goals, bounds.low, bounds.high)) ** 2).sum())


def _outputs(rows: Rows, solution: Solution) -> Rows:
    weights, bias = solution.weights.astype(np.float32), solution.bias.astype(np.float32)
    outputs: Rows = rows @ weights + bias[:, None, :]
    return outputs
