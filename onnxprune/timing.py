"""The bench command: one model, two against each other, and the operators of one."""

from pathlib import Path

import onnx

from onnxprune.analysis import analyse, read_samples
from onnxprune.bench.measure import measure
from onnxprune.bench.table import save_table
from onnxprune.data.samples import Samples
from onnxprune.data.specs import input_specs, named_dims
from onnxprune.errors import InputError, UsageError
from onnxprune.model.load import load
from onnxprune.options import Options, Trials
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.report.values import BenchReport
from onnxprune.runtime.session import Feeds, RunFailedError, check_provider
from onnxprune.selection.pace import set_pace

__all__ = ["bench"]

_FEEDS = 4


def bench(
    first: Path | onnx.ModelProto,
    second: Path | onnx.ModelProto | None,
    options: Options,
    *,
    trials: Trials | None = None,
    table: Path | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Time one model, or two against each other on the same inputs.

    Parameters
    ----------
    first : Path or ModelProto
    second : Path or ModelProto, optional
    options : Options
    trials : Trials, optional
    table : Path, optional
        Where the times of the first model's operators go, for ``run --latency-table``.
    progress : Progress, optional

    Returns
    -------
    BenchReport

    Raises
    ------
    InputError, UsageError
        If a model or the inputs cannot be used, or there is no such provider.
    """
    clock = Clock(progress or Silent())
    trials = trials or Trials()
    check_provider(options.provider)
    clock.stage("load")
    models = [load(path) for path in (first, second) if path is not None]
    specs = input_specs(models[0].proto)
    samples, shapes = read_samples(models[0], specs, options)
    feeds = _feeds(samples, trials.batch)
    if table is not None:
        _tabulate(first, options, table, clock)
    clock.stage("bench")
    try:
        return measure(
            [m.runnable for m in models],
            feeds,
            names=[str(m.path) for m in models],
            threads=options.threads,
            provider=options.provider,
            pairs=trials.pairs,
            min_runs=trials.runs,
            warm_up=trials.warm_up,
            seed=options.seed,
            dims=named_dims(specs, shapes),
            progress=clock,
        )
    except RunFailedError as error:
        paths = " or ".join(str(m.path) for m in models)
        msg = f"{paths}: onnxruntime cannot run this model on these inputs: {error}"
        raise InputError(msg) from error


def _feeds(samples: Samples, batch: int) -> list[Feeds]:
    """Join samples to a few feeds of a batch, some of them repeatedly if there are too few."""
    fixed = samples.fixed_batch
    if batch > 1 and (not samples.stacked or fixed not in {None, batch}):
        why = f"the model fixes it at {fixed}" if fixed else "the data are whole feeds"
        msg = f"--batch {batch} cannot be had: {why}"
        raise UsageError(msg)
    chosen = [k % len(samples) for k in range(_FEEDS * batch)]
    return list(samples.feeds(chosen, batch))[:_FEEDS]


def _tabulate(
    source: Path | onnx.ModelProto, options: Options, table: Path, progress: Progress
) -> None:
    """Measure every operator at every width that it might be given."""
    found = analyse(source, options, progress)
    pace = set_pace(found, found.coupling.groups, options, progress)
    save_table(pace.table.with_fit(found.model.sha256, pace.fit), table)
