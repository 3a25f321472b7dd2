"""Ridge least squares towards given weights, the ridge chosen by cross-validation.

All arrays carry a leading axis of independent problems (the groups of a convolution) that share
one ridge.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

__all__ = ["Moments", "Pooled", "Solution", "System", "bias_of", "pool", "solve"]

Array = NDArray[np.float64]
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the mean diagonal
_JUDGED = 128  # outputs that choose the ridge: what suits these suits the others
_WIDE = 1000  # D beyond which only one fold is held out: every solve takes D^3


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
        """Add rows (groups, n, D) with targets (groups, n, O) to a fold."""
        turned, ones = rows.transpose(0, 2, 1), np.ones((1, rows.shape[1]), np.float32)
        products = (
            turned @ rows,
            turned @ targets,
            (ones @ rows)[:, 0],
            (ones @ targets)[:, 0],
            (ones @ (targets * targets))[:, 0],
        )
        parts = [product.astype(np.float64) for product in products]
        sums = (self.xx, self.xy, self.x, self.y, self.yy)
        if fold == len(self.counts):
            self.counts.append(rows.shape[1])
            for total, part in zip(sums, parts, strict=True):
                total.append(part)
        else:
            self.counts[fold] += rows.shape[1]
            for total, part in zip(sums, parts, strict=True):
                total[fold] += part

    def without(self, rows: NDArray[np.float32], targets: NDArray[np.float32]) -> "Moments":
        """Return the sums of all folds in one, less those of some rows that are in them."""
        found = Moments(1)
        found.add(0, rows, targets)
        found.counts[0] = sum(self.counts) - found.counts[0]
        for parts, ours in (
            (found.xx, self.xx),
            (found.xy, self.xy),
            (found.x, self.x),
            (found.y, self.y),
            (found.yy, self.yy),
        ):
            parts[0] = reduce(np.add, ours) - parts[0]
        return found

    def judged(self) -> tuple["Moments", NDArray[np.int64]]:
        """Return the same sums of some outputs only, spread over all, and which these are."""
        count = self.y[0].shape[1]
        few = np.unique(np.linspace(0, count - 1, min(count, _JUDGED)).astype(np.int64))
        if len(few) == count:
            return self, few
        xy, y, yy = ([part[..., few] for part in parts] for parts in (self.xy, self.y, self.yy))
        return Moments(self.folds, self.counts, self.xx, xy, self.x, y, yy), few


@dataclass(frozen=True, slots=True)
class Pooled:
    """Sums over some folds; ``xx`` and ``xy`` about the means where a bias is solved for.

    Shapes: xx (groups, D, D), xy (groups, D, O), x (groups, D), y and yy (groups, O).
    """

    n: int
    xx: Array
    xy: Array
    x: Array
    y: Array
    yy: Array


@dataclass(frozen=True, slots=True)
class Solution:
    """Weights (groups, D, O), bias (groups, O), and errors relative to the targets' spread.

    ``before`` is the error on held-out folds of the given weights with their best bias, ``after``
    of the new ones with ``ridge``.
    """

    weights: Array
    bias: Array
    before: float
    after: float
    ridge: float


def solve(moments: Moments, start: Array, *, centred: bool) -> Solution:
    """Minimise |Y - XW - b|^2 / n + ridge |W - W0|^2.

    Parameters
    ----------
    moments : Moments
    start : float array, shape (groups, D, O)
        W0: what the weights are shrunk towards.
    centred : bool
        Whether a bias is solved for.

    Returns
    -------
    Solution
        The ridge is the one with the least error over held-out folds; of wide problems over one.
        Both errors are of outputs spread over all.
    """
    folds = range(len(moments.counts))
    seen, few = moments.judged()
    given = start[:, :, few]
    errors = np.zeros(len(_RIDGES) + 1)
    spread = 0.0
    for held in folds if start.shape[1] <= _WIDE else folds[:1]:
        fit = pool(seen, [f for f in folds if f != held] or folds, centred)
        test = pool(seen, [held], centred=False)
        spread += float(test.yy.sum() - (test.n * test.y**2).sum() if centred else test.yy.sum())
        errors[-1] += _error(test, given, bias_of(fit, given, centred))
        for number, ridge in enumerate(_RIDGES):
            weights = System(fit, ridge).solve(fit.xy, given)
            errors[number] += _error(test, weights, bias_of(fit, weights, centred))
    best = int(np.argmin(errors[:-1]))
    whole = pool(moments, folds, centred)
    weights = System(whole, _RIDGES[best]).solve(whole.xy, start)
    scale = max(spread, 1e-30)
    return Solution(
        weights,
        bias_of(whole, weights, centred),
        float(errors[-1] / scale),
        float(errors[best] / scale),
        _RIDGES[best],
    )


def pool(moments: Moments, folds: Sequence[int], centred: bool) -> Pooled:
    """Sum over folds, about the means if ``centred``."""
    n = sum(moments.counts[f] for f in folds)
    sums = (moments.xx, moments.xy, moments.x, moments.y, moments.yy)
    xx, xy, x, y, yy = (reduce(np.add, [part[f] for f in folds]) for part in sums)
    x, y = x / n, y / n
    if centred:
        xx, xy = _about(xx, n * x, x), _about(xy, n * x, y)
    return Pooled(n, xx, xy, x, y, yy)


def _about(products: Array, first: Array, second: Array) -> Array:
    """Take an outer product off, with one more array of that size and no other."""
    outer = first[:, :, None] * second[:, None, :]
    return np.subtract(products, outer, out=outer)


def bias_of(fit: Pooled, weights: Array, centred: bool) -> Array:
    """Return the best bias (groups, O) of some weights; zeros where none is solved for."""
    if not centred:
        return np.zeros(fit.y.shape)
    return np.asarray(fit.y - (fit.x[:, None, :] @ weights)[:, 0])


class System:
    """The left-hand side of a ridge problem, factored once for any number of right-hand sides."""

    def __init__(self, fit: Pooled, ridge: float) -> None:
        self._n, self._square = fit.n, fit.xx / fit.n
        diagonal = np.diagonal(self._square, axis1=1, axis2=2).mean(axis=1)
        level = np.maximum(diagonal, max(float(diagonal.mean()) * 1e-6, 1e-12))
        damped = self._square.copy()
        every = np.arange(self._square.shape[1])
        damped[:, every, every] += ridge * level[:, None]
        self._factor: Array | None = None
        # A ridge too small to outweigh rounding leaves no positive definite matrix.
        with suppress(np.linalg.LinAlgError):
            self._factor = np.asarray(np.linalg.cholesky(damped), np.float64)

    def solve(self, xy: Array, start: Array) -> Array:
        """Return the weights; ``start`` itself where the problem cannot be solved."""
        if self._factor is None:
            return start
        gap = xy / self._n - self._square @ start
        if len(gap) == 1:
            step: Array = linalg.cho_solve((self._factor[0], True), gap[0])
            return start + step[None]
        half = np.linalg.solve(self._factor, gap)
        return start + np.linalg.solve(self._factor.transpose(0, 2, 1), half)


def _error(test: Pooled, weights: Array, bias: Array) -> float:
    """Squared error over raw sums of a fold."""
    cross = (weights * test.xy).sum()
    square = (weights * (test.xx @ weights)).sum()
    through = (test.x[:, None, :] @ weights)[:, 0]
    means = test.n * ((bias**2).sum() - 2 * (bias * test.y).sum() + 2 * (bias * through).sum())
    return float(test.yy.sum() - 2 * cross + square + means)
