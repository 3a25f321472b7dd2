"""How much one output of a candidate lost, sample by sample: 0 is nothing, 1 is everything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["METRICS", "Array", "Kind", "Measure", "Metric", "default_limit", "judged_by_labels"]

Array = NDArray[np.generic]
Floats = NDArray[np.float64]
# What is known of a loss before it is measured; decides how it is certified.
#   binary 0 or 1 · discordant -1, 0 or 1 · bounded within [0, 1] · signed within [-1, 1]
Kind = Literal["binary", "discordant", "bounded", "signed"]
_BROKEN = 1e100  # the change of an element that is no number any more


@dataclass(frozen=True, slots=True)
class Measure:
    """How one output is judged.

    Attributes
    ----------
    output : str
    metric : str
        A key of :data:`METRICS`.
    weight : float
        Share of this output in the loss.
    axis : int
        Where the classes are, for metrics of class scores.
    scale : float
        Typical size of the original's output (root mean square of one sample), for
        ``relative_l2``.
    threshold : float
        Above it a pixel belongs to a binary mask.
    """

    output: str
    metric: str
    weight: float = 1.0
    axis: int = -1
    scale: float = 1.0
    threshold: float = 0.5


@dataclass(frozen=True, slots=True)
class Metric:
    """A loss per sample.

    Attributes
    ----------
    loss : function of (Measure, before, after, labels)
        ``before`` and ``after`` have shape (samples, ...) and are alike in it; gives the losses,
        shape (samples,).
    by_class : function of the same arguments, optional
        Losses by class, shape (samples, classes), NaN where a sample says nothing of a class.
    kind : Kind
        Of an output with one decision per sample.
    default : float
        The most that may be lost where the user does not say.
    labels : str
        "needed", "used" where there are any, or "" where they are of no use.
    """

    loss: Callable[[Measure, Array, Array, Array | None], Floats]
    kind: Kind
    default: float
    by_class: Callable[[Measure, Array, Array, Array | None], Floats] | None = None
    labels: Literal["needed", "used", ""] = ""


def default_limit(measures: Sequence[Measure]) -> float:
    """Return the most that may be lost where the user does not say: the metrics' own, weighted."""
    return sum(m.weight * METRICS[m.metric].default for m in measures)


def judged_by_labels(measures: Sequence[Measure]) -> tuple[Measure, ...]:
    """Return those that labels judge, where there are any."""
    return tuple(m for m in measures if METRICS[m.metric].labels)


def _top(measure: Measure, scores: Array) -> NDArray[np.int64]:
    """Return the top class, -1 where the scores are not numbers."""
    scores = _floats(scores)
    broken = np.isnan(scores).any(axis=measure.axis)
    return np.where(broken, -1, scores.argmax(axis=measure.axis))


def _rows(values: Array) -> Floats:
    """Average everything but the samples; 0 where there is nothing."""
    rows = values.reshape(len(values), -1)
    return np.asarray(rows.sum(axis=1) / max(rows.shape[1], 1), np.float64)


def _floats(array: Array) -> Floats:
    return np.asarray(array, np.float64)


def _agreement(measure: Measure, before: Array, after: Array, _: Array | None) -> Floats:
    """Share of decisions (one per sample, or one per position) whose top class differs."""
    return _rows(_top(measure, before) != _top(measure, after))


def _agreement_by_class(
    measure: Measure, before: Array, after: Array, labels: Array | None
) -> Floats:
    classes = before.shape[measure.axis]
    return _spread(
        _agreement(measure, before, after, labels), _top(measure, before).ravel(), classes
    )


def _accuracy(measure: Measure, before: Array, after: Array, labels: Array | None) -> Floats:
    """1 where only the original is right, -1 where only the candidate is (mean over positions)."""
    assert labels is not None
    right, now = (
        top == labels.reshape(top.shape) for top in (_top(measure, before), _top(measure, after))
    )
    return _rows(right.astype(np.float64) - now)


def _accuracy_by_class(
    measure: Measure, before: Array, after: Array, labels: Array | None
) -> Floats:
    assert labels is not None
    losses = _accuracy(measure, before, after, labels)
    return _spread(losses, labels.astype(np.int64).ravel(), before.shape[measure.axis])


def _spread(losses: Floats, classes: NDArray[np.int64], count: int) -> Floats:
    """Put every sample's loss in its class's column; nothing where samples hold several."""
    table = np.full((len(losses), count), np.nan)
    if len(classes) == len(losses):
        known = np.flatnonzero((classes >= 0) & (classes < count))
        table[known, classes[known]] = losses[known]
    return table


def _kl(measure: Measure, before: Array, after: Array, _: Array | None) -> Floats:
    """Kullback-Leibler divergence from the original's class probabilities, at most 1 nat."""
    old, new = (_log_probabilities(_floats(a), measure.axis) for a in (before, after))
    with np.errstate(invalid="ignore"):
        terms = np.where(np.isneginf(old), 0.0, np.exp(old) * (old - new))
    return _capped(_rows(terms.sum(axis=measure.axis)))


def _log_probabilities(scores: Floats, axis: int) -> Floats:
    """Take logarithms of probabilities, normalise logits."""
    if scores.size and (scores >= 0).all() and np.allclose(scores.sum(axis=axis), 1.0, atol=1e-2):
        return np.asarray(np.log(np.maximum(scores, 1e-12)))
    top = scores.max(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        shifted = scores - np.where(np.isfinite(top), top, 0.0)
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def _relative_l2(measure: Measure, before: Array, after: Array, _: Array | None) -> Floats:
    """Norm of the change over the typical norm of the original's output, at most 1."""
    change = np.sqrt(_rows(_change(before, after) ** 2))
    return _capped(change / measure.scale)


def _cosine(_: Measure, before: Array, after: Array, __: Array | None) -> Floats:
    """One minus the cosine of the angle to the original's output, at most 1."""
    a = np.nan_to_num(_floats(before), posinf=0.0, neginf=0.0).reshape(len(before), -1)
    change = _change(before, after).reshape(len(before), -1)
    b = a + change
    with np.errstate(invalid="ignore"):
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    broken = (np.abs(change) >= _BROKEN).any(axis=1)
    same = (change == 0).all(axis=1)
    return _capped(np.where(same, 0.0, np.where(broken, 1.0, 1.0 - cosine)))


def _mean_iou(measure: Measure, before: Array, after: Array, labels: Array | None) -> Floats:
    """Lost intersection over union, averaged over the classes that a sample shows."""
    with np.errstate(invalid="ignore"):
        table = _iou_by_class(measure, before, after, labels)
    seen = ~np.isnan(table)
    total = np.where(seen, table, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(seen.sum(axis=1), 1))


def _iou_by_class(measure: Measure, before: Array, after: Array, labels: Array | None) -> Floats:
    """Compare masks with the original's; with labels, how well both match the true ones."""
    old, new = _mask(measure, before), _mask(measure, after)
    count = max(before.shape[measure.axis], 2)
    if labels is None:
        return 1.0 - _iou(old, new, count)
    true = labels.astype(np.int64).reshape(old.shape)
    # Pixels whose label is no class (255, say) count for nothing.
    old, new = (np.where((true >= 0) & (true < count), mask, -1) for mask in (old, new))
    lost = _iou(true, old, count) - _iou(true, new, count)
    shown = np.stack([(true == number).any(axis=1) for number in range(count)], axis=1)
    return np.where(shown, lost, np.nan)


def _mask(measure: Measure, scores: Array) -> NDArray[np.int64]:
    """Return the class of every pixel, shape (samples, pixels)."""
    if scores.shape[measure.axis] == 1:
        inside = np.where(np.isnan(_floats(scores)), -1, _floats(scores) > measure.threshold)
        return inside.astype(np.int64).reshape(len(scores), -1)
    return _top(measure, scores).reshape(len(scores), -1)


def _iou(a: NDArray[np.int64], b: NDArray[np.int64], count: int) -> Floats:
    """Intersection over union per sample and class; NaN where neither shows the class."""
    table = np.full((len(a), count), np.nan)
    for number in range(count):
        mine, other = a == number, b == number
        union = (mine | other).sum(axis=1)
        shown = union > 0
        table[shown, number] = (mine & other).sum(axis=1)[shown] / union[shown]
    return table


def _change(before: Array, after: Array) -> Floats:
    """Subtract; what was no number counts as unchanged, what is none any more as huge."""
    a, b = _floats(before), _floats(after)
    with np.errstate(invalid="ignore"):
        change = np.where((a == b) | np.isnan(a), 0.0, b - a)
    return np.nan_to_num(change, nan=_BROKEN, posinf=_BROKEN, neginf=-_BROKEN)


def _capped(losses: Floats) -> Floats:
    """Keep losses within [0, 1]; what is no number is lost."""
    return np.clip(np.nan_to_num(losses, nan=1.0), 0.0, 1.0)


METRICS: Mapping[str, Metric] = {
    "agreement": Metric(_agreement, "binary", 0.01, _agreement_by_class),
    "accuracy": Metric(_accuracy, "discordant", 0.01, _accuracy_by_class, "needed"),
    "kl": Metric(_kl, "bounded", 0.02),
    "relative_l2": Metric(_relative_l2, "bounded", 0.10),
    "cosine": Metric(_cosine, "bounded", 0.01),
    "mean_iou": Metric(_mean_iou, "bounded", 0.02, _iou_by_class, "used"),
}
