"""What the held-out samples prove: "the drop is at most alpha", with a stated confidence.

Learn then test (Angelopoulos et al., arXiv:2110.01052) with a fixed sequence of candidates, from
the least to the most pruned: each is tested at the full level, until one fails. The samples count
as drawn at random from all the inputs that matter. For samples drawn without replacement from a
finite pool the bounds hold as well and are conservative: sums then scatter less (Hoeffding 1963,
section 6), so that the size of the pool need not be known.
"""

from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from onnxprune.quality.losses import Losses
from onnxprune.quality.metrics import Kind

__all__ = [
    "certified_length",
    "discordant_interval",
    "fewest_samples",
    "p_value",
    "samples_needed",
    "share_interval",
    "upper_bound",
]

_MOST = 10**7


def p_value(losses: Losses, alpha: float) -> float:
    """Return the evidence against "the mean loss is above alpha"; small is good.

    Parameters
    ----------
    losses : Losses
        Per sample, of a candidate that these samples had no part in making or choosing.
    alpha : float

    Returns
    -------
    float
        Super-uniform where the mean loss is above alpha: exact binomial for losses of 0 and 1,
        Clopper-Pearson on both discordant counts for accuracy, Hoeffding-Bentkus for any others
        within [0, 1] (and for [-1, 1], halved). 1 for losses that are not per sample.
    """
    values = losses.values
    if values is None or losses.kind is None or not len(values):
        return 1.0
    n = len(values)
    match losses.kind:
        case "binary":
            return _binary(n, float(values.sum()), alpha)
        case "discordant":
            return _discordant(n, int((values > 0).sum()), int((values < 0).sum()), alpha)
        case "bounded":
            return _bounded(n, float(values.mean()), alpha)
        case "signed":
            return _bounded(n, float((values.mean() + 1) / 2), (alpha + 1) / 2)


def certified_length(path: Sequence[Losses], alpha: float, confidence: float) -> int:
    """Test candidates in a fixed order until one fails.

    Parameters
    ----------
    path : sequence of Losses
        On the certification samples, of candidates in an order that these had no part in.
    alpha : float
        The most that may be lost.
    confidence : float
        That no candidate among the returned ones loses more.

    Returns
    -------
    int
        How many candidates, from the first, are certified.
    """
    for number, losses in enumerate(path):
        if not p_value(losses, alpha) <= 1 - confidence:
            return number
    return len(path)


def samples_needed(losses: Losses, alpha: float, confidence: float) -> int | None:
    """Estimate how many certification samples would certify a candidate, were it to go on so.

    Returns
    -------
    int or None
        None where no number would do: the observed loss is not below alpha, or not per sample.
    """
    values, kind = losses.values, losses.kind
    if values is None or kind is None or not values.mean() < alpha:
        return None
    up, down = float((values > 0).mean()), float((values < 0).mean())
    mean = float(values.mean())
    return _least(kind, up, down, mean, alpha, confidence)


def fewest_samples(kind: Kind, alpha: float, confidence: float) -> int | None:
    """Return how many certification samples it takes where nothing at all is lost."""
    return _least(kind, 0.0, 0.0, 0.0, alpha, confidence) if alpha > 0 else None


def upper_bound(losses: Losses, confidence: float) -> float | None:
    """Return the smallest drop that the samples certify; None where there is none below 1."""
    if not p_value(losses, 1.0 - 1e-9) <= 1 - confidence:
        return None
    low, high = -1.0 if losses.kind in ("discordant", "signed") else 0.0, 1.0 - 1e-9
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(losses, middle) <= 1 - confidence else (middle, high)
    return high


def _least(
    kind: Kind, up: float, down: float, mean: float, alpha: float, confidence: float
) -> int | None:
    """Find the number of samples that certify these shares of losses and this mean."""

    def evidence(n: int) -> float:
        match kind:
            case "binary":
                return _binary(n, np.ceil(up * n), alpha)
            case "discordant":
                return _discordant(n, int(np.ceil(up * n)), int(down * n), alpha)
            case "bounded":
                return _bounded(n, mean, alpha)
            case "signed":
                return _bounded(n, (mean + 1) / 2, (alpha + 1) / 2)

    low, high = 1, 1
    while evidence(high) > 1 - confidence:
        low, high = high, 2 * high
        if high > _MOST:
            return None
    while high - low > max(1, low // 1000):
        middle = (low + high) // 2
        low, high = (low, middle) if evidence(middle) <= 1 - confidence else (middle, high)
    return high


def share_interval(hits: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a share."""
    found = stats.binomtest(hits, n).proportion_ci(confidence, method="exact")
    return float(found.low), float(found.high)


def discordant_interval(worse: int, better: int, n: int, confidence: float) -> tuple[float, float]:
    """Return an interval of the difference of two paired shares, at least of this confidence.

    Each discordant count has its exact interval, at half the error.
    """
    half = (1 + confidence) / 2
    (low_w, high_w), (low_b, high_b) = (share_interval(k, n, half) for k in (worse, better))
    return low_w - high_b, high_w - low_b


def _binary(n: int, hits: float, alpha: float) -> float:
    return float(stats.binom.cdf(hits, n, alpha))


def _discordant(n: int, worse: int, better: int, alpha: float) -> float:
    """Find the error at which the upper bound of the drop is alpha: each count takes half."""

    def excess(error: float) -> float:
        upper = 1.0 if worse == n else float(stats.beta.isf(error / 2, worse + 1, n - worse))
        lower = float(stats.beta.ppf(error / 2, better, n - better + 1)) if better else 0.0
        return upper - lower - alpha

    if excess(1.0) > 0:
        return 1.0
    least = 1e-12
    return least if excess(least) <= 0 else float(optimize.brentq(excess, least, 1.0))


def _bounded(n: int, mean: float, alpha: float) -> float:
    """Hoeffding's and Bentkus's inequalities, whichever is tighter (valid as one p-value)."""
    below = min(mean, alpha)
    hoeffding = float(np.exp(-n * _divergence(below, alpha)))
    bentkus = float(np.e * stats.binom.cdf(np.ceil(n * mean), n, alpha))
    return min(1.0, hoeffding, bentkus)


def _divergence(a: float, b: float) -> float:
    """Relative entropy of two coins."""
    if b <= 0 or b >= 1:
        return 0.0 if a >= b else float("inf")
    first = a * np.log(a / b) if a > 0 else 0.0
    second = (1 - a) * np.log((1 - a) / (1 - b)) if a < 1 else 0.0
    return float(first + second)
