"""What is done to cut models: all are repaired, those that may be written finished and timed."""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.bench.clock import race
from onnxprune.bench.measure import measure, worst
from onnxprune.bench.values import BenchReport
from onnxprune.coupling.keeps import Keeps, narrow
from onnxprune.data.splits import Splits
from onnxprune.lossless.find import fold
from onnxprune.lossless.folding import Fold
from onnxprune.lossless.ranges import Constants
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.recovery.recover import Recovered, recover, recover_again
from onnxprune.rewrite.prove import Proven

__all__ = ["finished", "raced", "repaired", "timed"]

_LAPS = 5  # fresh sessions of both models: sessions of one model differ, too
_NONE: Constants = MappingProxyType({})


def repaired(
    found: Analysis,
    proven: Proven,
    splits: Splits,
    options: Options,
    progress: Progress,
    constants: Constants = _NONE,
) -> Recovered:
    """Fold what removed channels always held, and refit the layers unless the options say no."""
    folded = fold(found, proven, constants)
    if not options.recover:
        return Recovered(folded.model, folded.changed, folded.added)
    progress.stage("recover")
    done = recover(
        found,
        replace(proven, model=folded.model),
        splits,
        seed=options.seed,
        time_limit=options.time_limit,
        progress=progress,
    )
    if done.before is not None and done.after is not None:
        before, after = done.before**0.5, done.after**0.5
        progress.note(f"refitting: output change {before:.3f} -> {after:.3f} (relative, held out)")
    return _joined(folded, done)


def finished(
    found: Analysis,
    proven: Proven,
    splits: Splits,
    options: Options,
    progress: Progress,
    done: Recovered,
    constants: Constants = _NONE,
) -> Recovered:
    """Refit what may be written once more, on the selection samples too."""
    if done.way is None:
        return done
    progress.stage("recover")
    folded = fold(found, proven, constants)
    start = replace(proven, model=folded.model)
    again = recover_again(found, start, splits, done, seed=options.seed, progress=progress)
    return _joined(folded, again)


def _joined(folded: Fold, done: Recovered) -> Recovered:
    """Name what either step changed or added."""
    added = tuple(dict.fromkeys((*folded.added, *done.added)))
    names = dict.fromkeys((*folded.changed, *done.refitted))
    return replace(done, refitted=tuple(n for n in names if n not in added), added=added)


def timed(
    found: Analysis, model: onnx.ModelProto, keeps: Keeps, options: Options, progress: Progress
) -> BenchReport:
    """Time a model against the original; of several profiles, the worst is what counts."""
    progress.stage("bench")
    found = found.original
    original = found.model.runnable if found.native else found.view.real
    runnable = found.runnable(model)
    reports = [
        measure(
            [original, runnable],
            [profile.feed],
            narrower=[narrow(profile.feed, keeps)],
            names=["original", "pruned"],
            threads=options.threads,
            provider=options.provider,
            seed=options.seed,
            dims=profile.dims,
            progress=progress,
        )
        for profile in found.timed_at()
    ]
    return worst(reports) if found.profiles else reports[0]


def raced(
    found: Analysis, pair: Sequence[tuple[onnx.ModelProto, Keeps]], options: Options
) -> float:
    """Return the ratio of two cut models' times, roughly; of several profiles, the worst."""
    models = [found.runnable(model) for model, _ in pair]
    slowest = 0.0
    for profile in found.timed_at():
        feeds = [narrow(profile.feed, keeps) for _, keeps in pair]
        laps = [
            race(models, feeds, threads=options.threads, provider=options.provider)
            for _ in range(_LAPS)
        ]
        slowest = max(slowest, float(np.median([first / second for first, second in laps])))
    return slowest
