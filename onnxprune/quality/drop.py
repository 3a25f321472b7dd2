"""The drop as it is reported: an estimate, its interval, the class that suffers most."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.quality.certificate import discordant_interval, share_interval
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise
from onnxprune.report.values import Drop, Judged

__all__ = ["describe", "drop_interval", "worst_class"]

_CONFIDENCE = 0.95
_FEWEST = 5  # samples of a class below which its own loss says nothing
_RESAMPLES = 2000


def describe(
    judge: Judge, promise: Promise, path: Sequence[Losses], plain: Losses, *, seed: int
) -> Drop:
    """Describe what a candidate lost.

    Parameters
    ----------
    judge : Judge
    promise : Promise
    path : sequence of Losses
        On the certification samples, of all candidates up to this one.
    plain : Losses
        Of the same cut before its layers were refitted.
    seed : int
        Of the interval.

    Returns
    -------
    Drop
    """
    losses = path[-1]
    return Drop(
        judge.metric,
        losses.drop,
        drop_interval(losses, seed=seed),
        losses.samples,
        worst_class(losses),
        promise.certificate(path),
        plain.drop,
        promise.limit,
        [Judged(m.output, m.metric, m.weight) for m in judge.measures],
    )


def drop_interval(losses: Losses, *, seed: int) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean loss.

    Parameters
    ----------
    losses : Losses
    seed : int
        Of the bootstrap.

    Returns
    -------
    (low, high) or None
        Exact (Clopper-Pearson) for losses of 0 and 1 and, conservatively, for paired labels; by
        studentised bootstrap over samples for others; None for a loss of the whole only.
    """
    values = losses.values
    if values is None:
        return None
    n, worse, better = len(values), int((values > 0).sum()), int((values < 0).sum())
    if losses.kind == "binary":
        return share_interval(worse, n, _CONFIDENCE)
    if losses.kind == "discordant":
        return discordant_interval(worse, better, n, _CONFIDENCE)
    return _bootstrap(values, seed)


def _bootstrap(values: NDArray[np.float64], seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    n, mean, spread = len(values), values.mean(), values.std()
    if spread == 0 or n < 2:
        return float(mean), float(mean)
    draws = values[rng.integers(0, n, (_RESAMPLES, n))]
    errors = draws.std(axis=1)
    t = np.where(errors > 0, (draws.mean(axis=1) - mean) / np.maximum(errors, spread * 1e-3), 0.0)
    low, high = np.quantile(t, (1 - (1 - _CONFIDENCE) / 2, (1 - _CONFIDENCE) / 2))
    return float(mean - low * spread), float(mean - high * spread)


def worst_class(losses: Losses) -> float | None:
    """Return the mean loss of the class that suffers most; None without (enough of) classes."""
    table = losses.by_class
    if table is None:
        return None
    seen = (~np.isnan(table)).sum(axis=0)
    means = np.nansum(table, axis=0)[seen >= _FEWEST] / seen[seen >= _FEWEST]
    return float(means.max()) if len(means) else None
