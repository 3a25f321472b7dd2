"""Ridge least squares towards given weights, the ridge chosen by cross-validation."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

__all__ = ["Moments", "Solution", "solve"]

Array = NDArray[np.float64]
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the mean diagonal


@dataclass
class Moments:
    """Sums from which every least-squares problem and its held-out error follow.

    Kept per fold, so that cross-validation needs no second pass over the rows.
    """

    folds: int
    counts: list[int] = field(default_factory=list)
    xx: list[Array] = field(default_factory=list)
    xy: list[Array] = field(default_factory=list)
    x: list[Array] = field(default_factory=list)
    y: list[Array] = field(default_factory=list)
    yy: list[Array] = field(default_factory=list)

    def add(self, fold: int, rows: NDArray[np.float32], targets: NDArray[np.float32]) -> None:
        """Add rows (n, D) with targets (n, O) to a fold."""
        parts = (
            (rows.T @ rows).astype(np.float64),
            (rows.T @ targets).astype(np.float64),
            rows.sum(axis=0, dtype=np.float64),
            targets.sum(axis=0, dtype=np.float64),
            (targets.astype(np.float64) ** 2).sum(axis=0),
        )
        sums = (self.xx, self.xy, self.x, self.y, self.yy)
        if fold == len(self.counts):
            self.counts.append(len(rows))
            for total, part in zip(sums, parts, strict=True):
                total.append(part)
        else:
            self.counts[fold] += len(rows)
            for total, part in zip(sums, parts, strict=True):
                total[fold] += part


@dataclass(frozen=True, slots=True)
class _Centred:
    n: int
    xx: Array
    xy: Array
    x: Array
    y: Array
    yy: Array


@dataclass(frozen=True, slots=True)
class Solution:
    """Weights (D, O), bias (O,), and errors on held-out folds relative to the targets' spread.

    ``before`` is the error of the given weights with their best bias, ``after`` of the new ones.
    """

    weights: Array
    bias: Array
    before: float
    after: float


def solve(moments: Moments, start: Array, *, centred: bool) -> Solution:
    """Minimise |Y - XW - b|^2 / n + ridge |W - W0|^2.

    Parameters
    ----------
    moments : Moments
    start : float array, shape (D, O)
        W0: what the weights are shrunk towards.
    centred : bool
        Whether a bias is solved for.

    Returns
    -------
    Solution
        The ridge is the one with the least error over held-out folds.
    """
    folds = range(len(moments.counts))
    errors = np.zeros(len(_RIDGES) + 1)
    spread = 0.0
    for held in folds:
        fit = _pool(moments, [f for f in folds if f != held] or list(folds), centred)
        test = _pool(moments, [held], centred=False)
        spread += float(test.yy.sum() - (test.n * test.y**2).sum() if centred else test.yy.sum())
        errors[-1] += _error(test, start, _bias(fit, start, centred))
        for number, weights in enumerate(_path(fit, start)):
            errors[number] += _error(test, weights, _bias(fit, weights, centred))
    best = int(np.argmin(errors[:-1]))
    whole = _pool(moments, list(folds), centred)
    weights = _path(whole, start)[best]
    scale = max(spread, 1e-30)
    return Solution(
        weights,
        _bias(whole, weights, centred),
        float(errors[-1] / scale),
        float(errors[best] / scale),
    )


def _pool(moments: Moments, folds: list[int], centred: bool) -> _Centred:
    n = sum(moments.counts[f] for f in folds)
    xx, xy = (sum(part[f] for f in folds) for part in (moments.xx, moments.xy))
    x, y = (sum(part[f] for f in folds) / n for part in (moments.x, moments.y))
    yy = sum(moments.yy[f] for f in folds)
    if centred:
        xx = xx - n * np.outer(x, x)
        xy = xy - n * np.outer(x, y)
    return _Centred(n, np.asarray(xx), np.asarray(xy), np.asarray(x), np.asarray(y), np.asarray(yy))


def _bias(fit: _Centred, weights: Array, centred: bool) -> Array:
    return fit.y - fit.x @ weights if centred else np.zeros(weights.shape[1])


def _path(fit: _Centred, start: Array) -> list[Array]:
    """Solve for every ridge; one too small to outweigh rounding leaves the weights as they are."""
    square = fit.xx / fit.n
    gap = fit.xy / fit.n - square @ start
    level = max(float(np.diag(square).mean()), 1e-12)
    found = []
    for ridge in _RIDGES:
        damped = square + ridge * level * np.eye(len(square))
        try:
            found.append(start + linalg.cho_solve(linalg.cho_factor(damped, lower=True), gap))
        except linalg.LinAlgError:
            found.append(start)
    return found


def _error(test: _Centred, weights: Array, bias: Array) -> float:
    """Squared error over raw sums of a fold."""
    cross = (weights * test.xy).sum()
    square = (weights * (test.xx @ weights)).sum()
    means = test.n * (
        (bias**2).sum() - 2 * (bias * test.y).sum() + 2 * (bias * (test.x @ weights)).sum()
    )
    return float(test.yy.sum() - 2 * cross + square + means)
