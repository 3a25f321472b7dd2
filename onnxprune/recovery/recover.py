"""Recovery as a stage: refit, and keep it only where held-out samples say that it helps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.data.splits import Splits
from onnxprune.model.frontier import float_frontier
from onnxprune.model.upcast import upcast
from onnxprune.progress import Progress
from onnxprune.recovery.refit import Refit, refit
from onnxprune.rewrite.prove import Proven
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.sensitivity.output import OutputChange

__all__ = ["Recovered", "plain", "recover"]

_BATCH = 32
_FEWEST = 8  # samples below which least squares only learns them by heart
_SWEEPS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """What recovery made of a cut model.

    Attributes
    ----------
    model : ModelProto
    refitted, added : tuple of str
        Initializers that were solved for, and biases that were added.
    before, after : float, optional
        Relative squared output error on the selection samples; None where nothing was tried.
    """

    model: onnx.ModelProto
    refitted: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None


def plain(proven: Proven) -> Recovered:
    """Leave a cut model as it is."""
    return Recovered(proven.model)


def recover(
    found: Analysis,
    proven: Proven,
    splits: Splits,
    *,
    seed: int,
    time_limit: float,
    progress: Progress,
) -> Recovered:
    """Refit the layers of a cut model to the original on the fitting samples.

    A second sweep mends what the first one left, as long as the error on the selection samples
    falls; a sweep that does not help is dropped.

    Parameters
    ----------
    found : Analysis
    proven : Proven
    splits : Splits
    seed : int
    time_limit : float
        Seconds; no further sweep begins that would pass it.
    progress : Progress

    Returns
    -------
    Recovered
    """
    fit = list(found.samples.feeds(splits.fit, _BATCH))
    if len(splits.fit) < _FEWEST or not proven.removed:
        return plain(proven)
    select = list(found.samples.feeds(splits.select, _BATCH))
    judge = _Judge(found, select)
    before = judge.error(proven.model)
    best = Recovered(proven.model, before=before, after=before)
    start = time.monotonic()
    for sweep in range(_SWEEPS):
        tried = _sweep(found, proven, best.model, fit, seed + sweep, progress)
        error = judge.error(tried.model)
        if not error < (best.after or 0.0):
            break
        names = tuple(dict.fromkeys((*best.refitted, *tried.refitted)))
        added = (*best.added, *tried.added)
        names = tuple(name for name in names if name not in added)
        best = Recovered(tried.model, names, added, before, error)
        if time.monotonic() - start > time_limit / 2:
            break
    return best


def _sweep(
    found: Analysis,
    proven: Proven,
    student: onnx.ModelProto,
    fit: Sequence[Feeds],
    seed: int,
    progress: Progress,
) -> Refit:
    return refit(
        found.view,
        found.traces[0],
        found.coupling.collected,
        student,
        proven.keeps,
        fit,
        seed=seed,
        progress=progress,
    )


class _Judge:
    """Output error against the original on samples that nothing is fitted on."""

    def __init__(self, found: Analysis, feeds: Sequence[Feeds]) -> None:
        self._feeds = feeds
        self._names = float_frontier(found.view, found.traces[0])
        self._change = OutputChange(self._run(found.view.real))

    def error(self, model: onnx.ModelProto) -> float:
        vectors = [self._change.vector(n, out) for n, out in enumerate(self._run(model))]
        return float((np.concatenate(vectors).astype(np.float64) ** 2).sum())

    def _run(self, model: onnx.ModelProto) -> list[dict[str, np.ndarray]]:
        session = Session(with_outputs(upcast(model), self._names))
        return [session.run(feed, self._names) for feed in self._feeds]
