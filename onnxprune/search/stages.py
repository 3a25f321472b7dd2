"""What is done to every cut model: repaired and timed."""

import onnx

from onnxprune.analysis import Analysis
from onnxprune.bench.measure import measure
from onnxprune.data.splits import Splits
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.recovery.recover import Recovered, plain, recover
from onnxprune.report.values import BenchReport
from onnxprune.rewrite.prove import Proven

__all__ = ["repaired", "timed"]


def repaired(
    found: Analysis, proven: Proven, splits: Splits, options: Options, progress: Progress
) -> Recovered:
    """Refit a cut model, unless the options say otherwise."""
    if not options.recover:
        return plain(proven)
    progress.stage("recover")
    done = recover(
        found,
        proven,
        splits,
        seed=options.seed,
        time_limit=options.time_limit,
        progress=progress,
    )
    if done.before is not None and done.after is not None:
        before, after = done.before**0.5, done.after**0.5
        progress.note(f"refitting: output change {before:.3f} -> {after:.3f} (relative, held out)")
    return done


def timed(
    found: Analysis, model: onnx.ModelProto, options: Options, progress: Progress
) -> BenchReport:
    """Time a model against the original."""
    progress.stage("bench")
    return measure(
        [found.model.path if found.native else found.view.real, found.runnable(model)],
        [found.stated_feed()],
        names=["original", "pruned"],
        threads=options.threads,
        provider=options.provider,
        seed=options.seed,
        dims=found.dims,
        progress=progress,
    )
