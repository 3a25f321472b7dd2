"""The bench command: one model, two against each other, and the operators of one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx

from onnxprune.analysis import analyse
from onnxprune.bench.measure import measure, worst
from onnxprune.bench.narrower import narrower_feeds
from onnxprune.bench.table import save_table
from onnxprune.bench.values import BenchReport
from onnxprune.data.profiles import feeds_at
from onnxprune.data.samples import Samples
from onnxprune.data.specs import input_specs, named_dims
from onnxprune.errors import InputError, UsageError
from onnxprune.feeding import read_samples
from onnxprune.model.load import Model, load
from onnxprune.options import Options, Trials
from onnxprune.progress import Clock, Progress, Silent
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
    samples, shapes, _ = read_samples(models[0], specs, options)
    at = [
        (named_dims(specs, sizes), feeds)
        for sizes, feeds in (
            feeds_at(models[0].proto, specs, samples, shapes, profile, _FEEDS)
            for profile in options.profiles
        )
    ]
    if at and trials.batch > 1:
        msg = f"--batch {trials.batch} and --profile both give sizes: leave one of them out"
        raise UsageError(msg)
    timed = at or [(named_dims(specs, shapes), _feeds(samples, trials.batch))]
    fitted = [(dims, feeds, *narrower_feeds(models, feeds)) for dims, feeds in timed]
    if table is not None:
        _tabulate(first, options, table, clock)
    clock.stage("bench")
    reports = [_measured(models, *case, options, trials, clock) for case in fitted]
    return worst(reports) if at else reports[0]


def _measured(
    models: Sequence[Model],
    dims: Mapping[str, int],
    feeds: Sequence[Feeds],
    narrower: Sequence[Feeds],
    note: str,
    options: Options,
    trials: Trials,
    progress: Progress,
) -> BenchReport:
    try:
        report = measure(
            [m.runnable for m in models],
            feeds,
            narrower=narrower,
            names=[str(m.path) for m in models],
            threads=options.threads,
            provider=options.provider,
            pairs=trials.pairs,
            min_runs=trials.runs,
            warm_up=trials.warm_up,
            seed=options.seed,
            dims=dims,
            progress=progress,
        )
    except RunFailedError as error:
        paths = " or ".join(str(m.path) for m in models)
        msg = f"{paths}: onnxruntime cannot run this model on these inputs: {error}"
        raise InputError(msg) from error
    return replace(report, warnings=[note, *report.warnings]) if note else report


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
    save_table(pace.table, table)
