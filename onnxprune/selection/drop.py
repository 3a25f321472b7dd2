"""Quality lost against the original, on samples that nothing was chosen on."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from onnxprune.model.frontier import float_frontier
from onnxprune.model.view import View
from onnxprune.report.values import Drop
from onnxprune.runtime.session import Feeds, Session
from onnxprune.runtime.trace import Trace

__all__ = ["class_scores", "measure_drop"]

Array = NDArray[np.generic]
_SCORES = re.compile(
    r"logit|prob|score|class|label|pred|softmax|output|dense|identity|partitionedcall|^y$|^\d+$",
    re.IGNORECASE,
)
_FEATURES = re.compile(r"embed|hidden|feature|state(?!ful)|pool", re.IGNORECASE)
_LOST = 1e6  # the change of an element that is no number any more
_FEWEST = 5  # samples of a class below which its own disagreement says nothing
_RESAMPLES = 2000


def class_scores(view: View, trace: Trace) -> str | None:
    """Guess which output holds class scores: two axes, behind Softmax or with a name that says so.

    Returns
    -------
    str or None
        The output's name (or that of the last float tensor before a class number), None where
        nothing looks like class scores.
    """
    for name in float_frontier(view, trace):
        shape = trace.shapes.get(name, ())
        if len(shape) != 2 or shape[1] < 2 or trace.dtypes[name].kind != "f":
            continue
        producer = view.producers.get(name)
        behind = producer is not None and producer.op_type in ("Softmax", "LogSoftmax")
        if behind or (_SCORES.search(name) and not _FEATURES.search(name)):
            return name
    return None


def measure_drop(
    before: Session, after: Session, feeds: Sequence[Feeds], scores: str | None, *, seed: int
) -> Drop:
    """Compare two models on held-out samples.

    Parameters
    ----------
    before, after : Session
    feeds : sequence of Feeds
    scores : str, optional
        The output with class scores; without it all float outputs are compared by relative L2.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Drop
        ``disagreement``: share of samples whose top class differs, with the exact (Clopper-Pearson)
        95 % interval. ``relative_l2``: norm of the change over norm of the output, with the
        bootstrap 95 % interval over samples.
    """
    pairs = [(before.run(feed), after.run(feed)) for feed in feeds]
    if scores is not None:
        old, new = (
            np.concatenate([_top(side[scores]) for side in sides])
            for sides in zip(*pairs, strict=True)
        )
        return _disagreement(old, new)
    return _relative(pairs, seed)


def _disagreement(old: NDArray[np.int64], new: NDArray[np.int64]) -> Drop:
    differ = old != new
    found = stats.binomtest(int(differ.sum()), len(differ)).proportion_ci(0.95, method="exact")
    classes = [differ[old == c] for c in np.unique(old)]
    worst = max((float(c.mean()) for c in classes if len(c) >= _FEWEST), default=None)
    interval = (float(found.low), float(found.high))
    return Drop("disagreement", float(differ.mean()), interval, len(differ), worst)


def _top(scores: Array) -> NDArray[np.int64]:
    """Return the top class of every sample, -1 where the scores are not numbers."""
    return np.where(np.isnan(scores).any(axis=-1), -1, scores.argmax(axis=-1)).ravel()


def _relative(pairs: Sequence[tuple[dict[str, Array], dict[str, Array]]], seed: int) -> Drop:
    names = [n for n, a in pairs[0][0].items() if getattr(a, "dtype", np.dtype(bool)).kind in "fV"]
    # Outputs of different size and scale count alike.
    scale = {n: _mean_square([old[n] for old, _ in pairs]) or 1.0 for n in names}
    change, whole = [], []
    for old, new in pairs:
        rows = max((len(old[n]) for n in names if old[n].ndim), default=1)
        none = np.zeros(rows)
        change.append(sum((_energy(_change(old[n], new[n]), rows) / scale[n] for n in names), none))
        whole.append(sum((_energy(_finite(old[n]), rows) / scale[n] for n in names), none))
    c, w = np.concatenate(change), np.concatenate(whole)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(c), (_RESAMPLES, len(c)))
    draws = np.sqrt(c[picks].sum(axis=1) / np.maximum(w[picks].sum(axis=1), 1e-300))
    low, high = np.quantile(draws, (0.025, 0.975))
    value = float(np.sqrt(c.sum() / max(w.sum(), 1e-300)))
    return Drop("relative_l2", value, (float(low), float(high)), len(c), None)


def _mean_square(arrays: Sequence[Array]) -> float:
    return float((np.concatenate([_finite(a).ravel() for a in arrays]) ** 2).mean())


def _energy(values: NDArray[np.float64], rows: int) -> NDArray[np.float64]:
    """Mean square of every sample; of all at once where the output does not go by samples."""
    if values.ndim and len(values) == rows:
        return np.asarray((values.reshape(rows, -1) ** 2).mean(axis=1))
    return np.full(rows, (values**2).mean())


def _finite(array: Array) -> NDArray[np.float64]:
    return np.nan_to_num(array.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def _change(old: Array, new: Array) -> NDArray[np.float64]:
    """Subtract; what was no number counts as unchanged, what has another shape now as lost."""
    if new.shape != old.shape:
        return _finite(old)
    a, b = old.astype(np.float64), new.astype(np.float64)
    with np.errstate(invalid="ignore"):
        change = np.where((a == b) | np.isnan(a), 0.0, b - a)
    return np.nan_to_num(change, nan=_LOST, posinf=_LOST, neginf=-_LOST)
