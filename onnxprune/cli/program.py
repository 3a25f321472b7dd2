"""What every command does around its work: progress, JSON, tables, exit codes."""

import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO, TypeVar

import typer

from onnxprune.bench.values import BenchReport
from onnxprune.errors import OnnxPruneError, UsageError
from onnxprune.progress import Silent
from onnxprune.report.inspected import Inspection
from onnxprune.report.ranked import Ranking
from onnxprune.report.values import Report, VerifyReport

__all__ = ["answer", "exit_code", "json_path", "keep_apart"]

AnyReport = TypeVar("AnyReport", Report, Inspection, Ranking, BenchReport, VerifyReport)
_INTERRUPTED = 130


def exit_code(app: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run the command line; turn errors into one line and the exit code of their kind.

    Parameters
    ----------
    app : Typer
    arguments : sequence of str, optional
        What follows the program's name; those of this process by default.

    Returns
    -------
    int
    """
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
    sys.stderr.write(f"error: {' '.join(text.splitlines())}\n")
    return code


def answer(
    work: Callable[..., AnyReport],
    json: str | None,
    quiet: bool,
    written: Mapping[str, Path | None] | None = None,
    page: Path | None = None,
) -> AnyReport:
    """Do the work with progress on stderr, then write JSON and page, and print the table.

    A page can be had of what ``run`` and ``apply`` report.
    """
    from onnxprune.documents import dumps, write
    from onnxprune.model.files import write_text
    from onnxprune.report.html import to_html
    from onnxprune.report.json import to_json
    from onnxprune.report.progress import ConsoleProgress

    with nullcontext(Silent()) if quiet else ConsoleProgress(sys.stderr) as progress:
        report = work(progress=progress)
    paths = {**(written or {}), "report": json_path(json), "page": page}
    if paths["report"] is not None:
        write(to_json(report), paths["report"])
    if page is not None and isinstance(report, Report):
        write_text(page, to_html(report))
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
    report: Report | Inspection | Ranking | BenchReport | VerifyReport,
    stream: TextIO,
    paths: Mapping[str, Path | None],
) -> None:
    from onnxprune.report.console import print_report

    written = [f"{what} {path}" for what, path in paths.items() if path is not None]
    print_report(report, stream, written=written)


def json_path(json: str | None) -> Path | None:
    """Return the file that ``--json`` names; None where there is none."""
    return None if json in {None, "-"} else Path(str(json))


def keep_apart(inputs: Sequence[Path | None], **outputs: Path | None) -> None:
    """Refuse, before minutes of work, an output that cannot be written or would destroy a file.

    Parameters
    ----------
    inputs : sequence of Path
        Files that are only read.
    **outputs : Path
        By the name of their argument: ``OUT``, or an option's name without its dashes.

    Raises
    ------
    UsageError
    """
    taken = [path.resolve() for path in inputs if path is not None]
    for name, path in outputs.items():
        if path is None:
            continue
        option = name if name.isupper() else f"--{name.replace('_', '-')}"
        if path.resolve() in taken:
            msg = f"{option} {path} would overwrite another file of this command"
            raise UsageError(msg)
        if str(path) == "-":
            msg = f"{option} is written to a file, not to standard output (-); name the file"
            raise UsageError(msg)
        if path.is_dir() or not path.absolute().parent.is_dir():
            what = "is a directory" if path.is_dir() else "lies in a directory that does not exist"
            msg = f"{option} {path} {what}"
            raise UsageError(msg)
        taken.append(path.resolve())
