"""The commands, each one function: its arguments are the options, its docstring the help."""

import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from onnxprune import __version__
from onnxprune.choices import read_options
from onnxprune.cli.arguments import (
    AllowInterfaceChange,
    Batch,
    Branches,
    Cache,
    Confidence,
    Data,
    Dim,
    DryRun,
    Exclude,
    Force,
    InputShape,
    Jobs,
    Json,
    Labels,
    Latency,
    LatencyTable,
    Loader,
    Macs,
    MaxDrop,
    MaybeTarget,
    Method,
    Metric,
    MultipleOf,
    NoVerify,
    Pairs,
    Params,
    Pareto,
    PlanFile,
    Profile,
    Provider,
    Quiet,
    Recover,
    ReportPage,
    RequireCertificate,
    Runs,
    Samples,
    SavePlan,
    Seed,
    Size,
    Source,
    Switches,
    Table,
    Target,
    Threads,
    TimeLimit,
    WarmUp,
)
from onnxprune.cli.program import answer, exit_code, json_path, keep_apart
from onnxprune.errors import UsageError, VerificationError
from onnxprune.options import Options, Trials

__all__ = ["app", "main"]

_DEFAULTS, _TRIALS = Options(), Trials()

app = typer.Typer(
    name="onnxprune",
    help="Make an ONNX model smaller and faster by removing whole channels.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"onnxprune {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Hold the options that belong to no command."""


@app.command()
def run(
    source: Source,
    target: MaybeTarget = None,
    *,
    macs: Macs = None,
    params: Params = None,
    size: Size = None,
    latency: Latency = None,
    max_drop: MaxDrop = None,
    data: Data = None,
    loader: Loader = None,
    metric: Metric = None,
    labels: Labels = None,
    confidence: Confidence = _DEFAULTS.confidence,
    require_certificate: RequireCertificate = False,
    exclude: Exclude = None,
    allow_interface_change: AllowInterfaceChange = False,
    multiple_of: MultipleOf = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    recover: Recover = _DEFAULTS.recover,
    branches: Branches = _DEFAULTS.branches,
    switches: Switches = _DEFAULTS.switches,
    method: Method = _DEFAULTS.method,
    jobs: Jobs = _DEFAULTS.jobs,
    time_limit: TimeLimit = _DEFAULTS.time_limit,
    threads: Threads = _DEFAULTS.threads,
    provider: Provider = _DEFAULTS.provider,
    latency_table: LatencyTable = None,
    cache: Cache = None,
    input_shape: InputShape = None,
    dim: Dim = None,
    profile: Profile = None,
    json: Json = None,
    report: ReportPage = None,
    save_plan: SavePlan = None,
    pareto: Pareto = None,
    dry_run: DryRun = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Go the whole way: measure the channels of IN, remove what matters least, write OUT."""
    if target is None and not dry_run:
        msg = "OUT is missing: say where the pruned model goes, or give --dry-run"
        raise UsageError(msg)
    options = read_options(locals())
    keep_apart((source, data), OUT=target, json=json_path(json), report=report, save_plan=save_plan)
    from onnxprune import pipeline

    work = partial(
        pipeline.run, source, target, options,
        save_plan=save_plan, pareto=pareto, dry_run=dry_run, force=force,
    )  # fmt: skip
    written = {"plan": save_plan, "front": pareto, "model": None if dry_run else target}
    answer(work, json, quiet, written, report)


@app.command()
def inspect(
    source: Source,
    *,
    data: Data = None,
    loader: Loader = None,
    exclude: Exclude = None,
    allow_interface_change: AllowInterfaceChange = False,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    input_shape: InputShape = None,
    dim: Dim = None,
    no_verify: NoVerify = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show which channels IN has, what is frozen and why. Nothing is written."""
    options = read_options(locals())
    keep_apart((source, data), json=json_path(json))
    from onnxprune import pipeline

    work = partial(pipeline.inspect, source, options, verify=not no_verify)
    answer(work, json, quiet)


@app.command()
def sensitivity(
    source: Source,
    *,
    data: Data = None,
    loader: Loader = None,
    metric: Metric = None,
    labels: Labels = None,
    exclude: Exclude = None,
    allow_interface_change: AllowInterfaceChange = False,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    recover: Recover = _DEFAULTS.recover,
    method: Method = _DEFAULTS.method,
    jobs: Jobs = _DEFAULTS.jobs,
    time_limit: TimeLimit = _DEFAULTS.time_limit,
    cache: Cache = None,
    input_shape: InputShape = None,
    dim: Dim = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Measure what every channel of IN is worth, and how far to trust that. Nothing is cut."""
    options = read_options(locals())
    keep_apart((source, data), json=json_path(json))
    from onnxprune import pipeline

    answer(partial(pipeline.sensitivity, source, options), json, quiet)


@app.command()
def apply(
    source: Source,
    target: Target,
    plan: PlanFile,
    *,
    data: Data = None,
    loader: Loader = None,
    metric: Metric = None,
    labels: Labels = None,
    confidence: Confidence = _DEFAULTS.confidence,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    threads: Threads = _DEFAULTS.threads,
    provider: Provider = _DEFAULTS.provider,
    input_shape: InputShape = None,
    dim: Dim = None,
    profile: Profile = None,
    json: Json = None,
    report: ReportPage = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Cut IN as a plan says and write OUT."""
    options = read_options(locals())
    keep_apart((source, plan, data), OUT=target, json=json_path(json), report=report)
    from onnxprune import pipeline

    work = partial(pipeline.apply, source, target, plan, options, force=force)
    answer(work, json, quiet, {"model": target}, report)


@app.command()
def verify(
    source: Source,
    target: Target,
    plan: PlanFile,
    *,
    data: Data = None,
    loader: Loader = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    input_shape: InputShape = None,
    dim: Dim = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Prove that OUT is what a plan makes of IN, and that this equals IN with channels masked."""
    options = read_options(locals())
    keep_apart((source, target, plan, data), json=json_path(json))
    from onnxprune import pipeline

    work = partial(pipeline.verify, source, target, plan, options)
    if not answer(work, json, quiet).ok:
        msg = f"'{target}' is not what '{plan}' makes of '{source}'; cut it anew with apply"
        raise VerificationError(msg)


@app.command()
def bench(
    first: Annotated[Path, typer.Argument(metavar="A", help="A model.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="B", help="The model to compare it with.")
    ] = None,
    *,
    data: Data = None,
    loader: Loader = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    threads: Threads = _DEFAULTS.threads,
    provider: Provider = _DEFAULTS.provider,
    batch: Batch = _TRIALS.batch,
    pairs: Pairs = _TRIALS.pairs,
    runs: Runs = _TRIALS.runs,
    warm_up: WarmUp = _TRIALS.warm_up,
    time_limit: TimeLimit = _DEFAULTS.time_limit,
    table: Table = None,
    cache: Cache = None,
    input_shape: InputShape = None,
    dim: Dim = None,
    profile: Profile = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Time one model, or two against each other."""
    options = read_options(locals())
    trials = Trials(pairs=pairs, runs=runs, warm_up=warm_up, batch=batch)
    keep_apart((first, second, data), json=json_path(json), table=table)
    from onnxprune import pipeline

    work = partial(pipeline.bench, first, second, options, trials=trials, table=table)
    answer(work, json, quiet, {"latency table": table})


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        What follows the program's name; those of this process by default.

    Raises
    ------
    SystemExit
        Always, with one of the exit codes of `onnxprune.errors`, 0, or 130 when interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be in any script
    sys.exit(exit_code(app, arguments))
