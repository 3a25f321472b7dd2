"""Recovery as a stage: refit, and keep it only where held-out samples say that it helps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.data.splits import Splits
from onnxprune.layers.readers import dense_sites
from onnxprune.model.frontier import float_frontier
from onnxprune.model.upcast import upcast
from onnxprune.progress import Progress
from onnxprune.recovery.refit import refit
from onnxprune.recovery.turn import Turn, find_turns, turned
from onnxprune.rewrite.keeps import Keeps, narrow
from onnxprune.rewrite.prove import Proven
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.sensitivity.output import OutputChange

__all__ = ["Recovered", "enough", "plain", "recover"]

_BATCH = 32
_FOLDS = 4
_FEWEST = 4  # samples below which least squares only learns them by heart
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


def enough(splits: Splits) -> bool:
    """Say whether there are samples enough to refit on."""
    return len(splits.fit) >= _FEWEST


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
    if not enough(splits) or not proven.removed:
        return plain(proven)
    # Every fold of the cross-validation needs samples of its own.
    fit = list(found.samples.feeds(splits.fit, min(_BATCH, len(splits.fit) // _FOLDS)))
    select = list(found.samples.feeds(splits.select, _BATCH))
    judge = _Judge(found, proven.keeps, select)
    before = judge.error(proven.model)
    sweeps = _Sweeps(found, proven, fit, judge, before, seed, progress)
    deadline = time.monotonic() + time_limit / 2
    turns = find_turns(found.view, found.traces[0], found.coupling, proven.removed, fit, seed=seed)
    best = sweeps.run(_turned(found, proven, turns, before), turns, deadline) if turns else None
    if best is None or best.after is None or not best.after < before:
        best = sweeps.run(Recovered(proven.model, before=before, after=before), (), deadline)
    return best


def _turned(found: Analysis, proven: Proven, turns: Sequence[Turn], before: float) -> Recovered:
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    student = turned(proven.model, found.view, sites, proven.keeps, turns)
    return Recovered(
        student.model, tuple(student.refitted), tuple(student.added), before, float("inf")
    )


@dataclass(frozen=True)
class _Sweeps:
    """Repeated refits, each kept only if it lowers the error on the selection samples."""

    found: Analysis
    proven: Proven
    fit: Sequence[Feeds]
    judge: "_Judge"
    before: float
    seed: int
    progress: Progress

    def run(self, best: Recovered, turns: Sequence[Turn], deadline: float) -> Recovered:
        for sweep in range(_SWEEPS):
            tried = refit(
                self.found.view,
                self.found.traces[0],
                self.found.coupling.collected,
                best.model,
                self.proven.keeps,
                self.fit,
                turns,
                seed=self.seed + sweep,
                progress=self.progress,
            )
            error = self.judge.error(tried.model)
            if not error < (best.after or 0.0):
                break
            added = (*best.added, *tried.added)
            names = dict.fromkeys((*best.refitted, *tried.refitted))
            kept = tuple(name for name in names if name not in added)
            best = Recovered(tried.model, kept, added, self.before, error)
            if time.monotonic() > deadline:
                break
        return best


class _Judge:
    """Output error against the original on samples that nothing is fitted on."""

    def __init__(self, found: Analysis, keeps: Keeps, feeds: Sequence[Feeds]) -> None:
        self._names = float_frontier(found.view, found.traces[0])
        original = _run(found.view.real, self._names, feeds)
        self._change = OutputChange([narrow(outputs, keeps) for outputs in original])
        self._feeds = [narrow(feed, keeps) for feed in feeds]

    def error(self, model: onnx.ModelProto) -> float:
        outputs = _run(upcast(model), self._names, self._feeds)
        vectors = [self._change.vector(n, out) for n, out in enumerate(outputs)]
        return float((np.concatenate(vectors).astype(np.float64) ** 2).sum())


def _run(
    model: onnx.ModelProto, names: Sequence[str], feeds: Sequence[Feeds]
) -> list[dict[str, NDArray[np.generic]]]:
    session = Session(with_outputs(model, names))
    return [session.run(feed, names) for feed in feeds]
