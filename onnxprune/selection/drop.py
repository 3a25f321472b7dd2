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
_SCORES = re.compile(r"logit|prob|score|class|label|pred|softmax|output|dense|^y$|^\d+$", re.I)
_FEATURES = re.compile(r"embed|hidden|feature|state|pool", re.I)
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
        old = np.concatenate([a[scores].argmax(axis=-1).ravel() for a, _ in pairs])
        new = np.concatenate([b[scores].argmax(axis=-1).ravel() for _, b in pairs])
        return _disagreement(old, new)
    return _relative(pairs, seed)


def _disagreement(old: NDArray[np.int64], new: NDArray[np.int64]) -> Drop:
    differ = old != new
    found = stats.binomtest(int(differ.sum()), len(differ)).proportion_ci(0.95, method="exact")
    classes = [differ[old == c] for c in np.unique(old)]
    worst = max((float(c.mean()) for c in classes if len(c) >= _FEWEST), default=None)
    interval = (float(found.low), float(found.high))
    return Drop("disagreement", float(differ.mean()), interval, len(differ), worst)


def _relative(pairs: Sequence[tuple[dict[str, Array], dict[str, Array]]], seed: int) -> Drop:
    change, whole = [], []
    for old, new in pairs:
        names = [n for n, a in old.items() if getattr(a, "dtype", np.dtype(bool)).kind == "f"]
        rows = max((len(old[n]) for n in names if old[n].ndim), default=1)
        c, w = np.zeros(rows), np.zeros(rows)
        for name in names:
            a, b = old[name].astype(np.float64), new[name].astype(np.float64)
            per_sample = a.ndim > 0 and len(a) == rows
            scale = float((a**2).mean()) or 1.0  # outputs of different size and scale count alike
            for total, values in ((c, (b - a) ** 2), (w, a**2)):
                share = values.reshape(rows, -1).mean(axis=1) if per_sample else values.mean()
                total += share / scale  # noqa: PLW2901 (adds in place)
        change.append(c)
        whole.append(w)
    c, w = np.concatenate(change), np.concatenate(whole)
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(c), (_RESAMPLES, len(c)))
    draws = np.sqrt(c[picks].sum(axis=1) / np.maximum(w[picks].sum(axis=1), 1e-300))
    low, high = np.quantile(draws, (0.025, 0.975))
    value = float(np.sqrt(c.sum() / max(w.sum(), 1e-300)))
    return Drop("relative_l2", value, (float(low), float(high)), len(c), None)
