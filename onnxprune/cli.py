"""The command line: arguments become values, one call does the work, its report is printed."""

import io
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, TypeVar

import typer

from onnxprune import __version__
from onnxprune.arguments import (
    Data,
    Dim,
    DryRun,
    Exclude,
    Force,
    InputShape,
    Json,
    Loader,
    Macs,
    MaybeTarget,
    MultipleOf,
    NoVerify,
    Params,
    PlanFile,
    Provider,
    Quiet,
    Recover,
    Samples,
    SavePlan,
    Seed,
    Size,
    Source,
    Target,
    Threads,
    TimeLimit,
    read_dims,
    read_shapes,
)
from onnxprune.errors import OnnxPruneError, UsageError, VerificationError
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.report.values import BenchReport, Inspection, Report, VerifyReport

__all__ = ["app", "main"]

AnyReport = TypeVar("AnyReport", Report, Inspection, BenchReport, VerifyReport)
_DEFAULTS = Options()
_INTERRUPTED = 130

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
    data: Data = None,
    loader: Loader = None,
    exclude: Exclude = None,
    multiple_of: MultipleOf = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    recover: Recover = _DEFAULTS.recover,
    time_limit: TimeLimit = _DEFAULTS.time_limit,
    threads: Threads = _DEFAULTS.threads,
    provider: Provider = _DEFAULTS.provider,
    input_shape: InputShape = None,
    dim: Dim = None,
    json: Json = None,
    save_plan: SavePlan = None,
    dry_run: DryRun = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Go the whole way: measure the channels of IN, remove what matters least, write OUT."""
    if (macs, params, size) == (None, None, None):
        msg = "nothing to reach: give --macs, --params or --size a ratio, such as --macs 0.5"
        raise UsageError(msg)
    if target is None and not dry_run:
        msg = "OUT is missing: say where the pruned model goes, or give --dry-run"
        raise UsageError(msg)
    options = Options(
        data=data,
        loader=loader,
        macs=macs,
        params=params,
        size=size,
        exclude=tuple(exclude or ()),
        multiple_of=multiple_of,
        input_shapes=read_shapes(input_shape),
        dims=read_dims(dim),
        samples=samples,
        seed=seed,
        threads=threads,
        provider=provider,
        time_limit=time_limit,
        recover=recover,
    )
    _keep_apart({"--json": _path(json), "--save-plan": save_plan}, (source, target, data))
    from onnxprune import pipeline

    work = partial(
        pipeline.run, source, target, options, save_plan=save_plan, dry_run=dry_run, force=force
    )
    _answer(work, json, quiet, {"plan": save_plan, "model": None if dry_run else target})


@app.command()
def inspect(
    source: Source,
    *,
    data: Data = None,
    loader: Loader = None,
    exclude: Exclude = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    input_shape: InputShape = None,
    dim: Dim = None,
    no_verify: NoVerify = False,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Show which channels IN has, what is frozen and why. Nothing is written."""
    options = Options(
        data=data,
        loader=loader,
        exclude=tuple(exclude or ()),
        input_shapes=read_shapes(input_shape),
        dims=read_dims(dim),
        samples=samples,
        seed=seed,
    )
    _keep_apart({"--json": _path(json)}, (source, data))
    from onnxprune import pipeline

    work = partial(pipeline.inspect, source, options, verify=not no_verify)
    _answer(work, json, quiet)


@app.command()
def apply(
    source: Source,
    target: Target,
    plan: PlanFile,
    *,
    data: Data = None,
    loader: Loader = None,
    samples: Samples = _DEFAULTS.samples,
    seed: Seed = _DEFAULTS.seed,
    threads: Threads = _DEFAULTS.threads,
    provider: Provider = _DEFAULTS.provider,
    input_shape: InputShape = None,
    dim: Dim = None,
    json: Json = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Cut IN as a plan says and write OUT."""
    options = Options(
        data=data,
        loader=loader,
        input_shapes=read_shapes(input_shape),
        dims=read_dims(dim),
        samples=samples,
        seed=seed,
        threads=threads,
        provider=provider,
    )
    _keep_apart({"--json": _path(json)}, (source, target, plan, data))
    from onnxprune import pipeline

    work = partial(pipeline.apply, source, target, plan, options, force=force)
    _answer(work, json, quiet, {"model": target})


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
    options = Options(
        data=data,
        loader=loader,
        input_shapes=read_shapes(input_shape),
        dims=read_dims(dim),
        samples=samples,
        seed=seed,
    )
    _keep_apart({"--json": _path(json)}, (source, target, plan, data))
    from onnxprune import pipeline

    work = partial(pipeline.verify, source, target, plan, options)
    if not _answer(work, json, quiet).ok:
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
    input_shape: InputShape = None,
    dim: Dim = None,
    json: Json = None,
    quiet: Quiet = False,
) -> None:
    """Time one model, or two against each other."""
    options = Options(
        data=data,
        loader=loader,
        input_shapes=read_shapes(input_shape),
        dims=read_dims(dim),
        samples=samples,
        seed=seed,
        threads=threads,
        provider=provider,
    )
    _keep_apart({"--json": _path(json)}, (first, second, data))
    from onnxprune import pipeline

    work = partial(pipeline.bench, first, second, options)
    _answer(work, json, quiet)


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
    sys.exit(_exit_code(arguments))


def _exit_code(arguments: Sequence[str] | None) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="onnxprune", standalone_mode=False)
    except OnnxPruneError as error:
        return _complain(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = "onnxprune" if context is None else context.command_path
        text = error.format_message().rstrip(".")
        return _complain(f"{text}; see '{path} --help'", error.exit_code)
    except Exception:
        traceback.print_exc()
        return _complain("this is a defect of onnxprune, please report it with the trace above", 1)
    if code == _INTERRUPTED:
        return _complain("interrupted", _INTERRUPTED)
    return 0


def _complain(text: str, code: int) -> int:
    print(f"error: {' '.join(text.splitlines())}", file=sys.stderr)
    return code


def _answer(
    work: Callable[..., AnyReport],
    json: str | None,
    quiet: bool,
    written: Mapping[str, Path | None] | None = None,
) -> AnyReport:
    """Do the work with progress on stderr, then write the JSON and print the table."""
    from onnxprune.report.json import dumps, to_json, write
    from onnxprune.report.progress import ConsoleProgress

    with nullcontext(Silent()) if quiet else ConsoleProgress(sys.stderr) as progress:
        report = work(progress=progress)
    paths = {**(written or {}), "report": _path(json)}
    if paths["report"] is not None:
        write(to_json(report), paths["report"])
    try:
        if json == "-":
            sys.stdout.write(dumps(to_json(report)))
        if not quiet:
            _show(report, sys.stderr if json == "-" else sys.stdout, paths)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; at exit Python would complain about what it could not flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return report


def _show(
    report: Report | Inspection | BenchReport | VerifyReport,
    stream: TextIO,
    paths: Mapping[str, Path | None],
) -> None:
    from onnxprune.report.console import print_report

    written = [f"{what} {path}" for what, path in paths.items() if path is not None]
    print_report(report, stream, written=written)


def _path(json: str | None) -> Path | None:
    return None if json in {None, "-"} else Path(str(json))


def _keep_apart(outputs: Mapping[str, Path | None], others: Sequence[Path | None]) -> None:
    """Refuse, before minutes of work, an output that cannot be written or would destroy a file."""
    taken = [path.resolve() for path in others if path is not None]
    for option, path in outputs.items():
        if path is None:
            continue
        if path.resolve() in taken:
            msg = f"{option} {path} would overwrite another file of this command"
            raise UsageError(msg)
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a directory" if path.is_dir() else "lies in a directory that does not exist"
            msg = f"{option} {path} {what}"
            raise UsageError(msg)
        taken.append(path.resolve())
