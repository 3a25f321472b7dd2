"""Export every architecture of the zoo with random weights, with both of torch's exporters.

``python tests/zoo/export.py [OUTDIR] [--only NAME ...] [--exporter ts|dynamo|both] [--jobs N]``
writes OUTDIR/<name>.<exporter>.onnx, and beside it one example feed as .npz (keys are the input
names, batch 2). A file appears only after onnxruntime agreed with torch on that feed; files that
exist are kept. Every export runs in a process of its own, under a time limit.
"""

import argparse
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from architectures import ARCHITECTURES
from modules import Positional, build, example, feed
from shapes import Architecture

EXPORTERS = ("ts", "dynamo")
OPSETS = {"ts": 17, "dynamo": 18}
TOLERANCE = 1e-3
DEFAULT_FOLDER = Path(__file__).parents[2] / ".cache" / "zoo"


@dataclass(frozen=True)
class Job:
    """One architecture, one exporter, one file."""

    architecture: Architecture
    exporter: str
    folder: Path

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.architecture.name}.{self.exporter}{suffix}"


@dataclass(frozen=True)
class Outcome:
    """A line of the final table; an empty reason means that the file is there and right."""

    job: Job
    reason: str
    seconds: float


def export(job: Job, module: torch.nn.Module, dynamic: bool, path: Path) -> None:
    """Export with every dynamic axis of the inputs, or with the batch alone."""
    inputs = job.architecture.inputs
    axes = [dict(i.dynamic) if dynamic else {0: "batch"} for i in inputs]
    arguments = example(job.architecture)
    write = partial(
        torch.onnx.export,
        module,
        arguments,
        path,
        input_names=[i.name for i in inputs],
        output_names=list(job.architecture.outputs),
        opset_version=OPSETS[job.exporter],
    )
    if job.exporter == "dynamo":
        write(dynamo=True, dynamic_shapes=(tuple(axes),), external_data=False)
        return
    named = {i.name: a for i, a in zip(inputs, axes, strict=True)}
    named |= {output: {0: "batch"} for output in job.architecture.outputs}
    write(dynamo=False, dynamic_axes=named)


def disagreement(path: Path, module: torch.nn.Module, architecture: Architecture) -> str:
    """Why the file is not the module, in one line; empty when it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    arguments = example(architecture)
    found = session.run(None, feed(architecture))
    with torch.no_grad():
        expected = [np.asarray(o) for o in module(*arguments)]
    for name, wanted, got in zip(architecture.outputs, expected, found, strict=True):
        if wanted.shape != got.shape:
            return f"{name}: shape {got.shape} instead of {wanted.shape}"
        if not np.isfinite(got).all():
            return f"{name}: not finite"
        error = np.abs(wanted - got).max() / np.abs(wanted).max()
        if error > TOLERANCE:
            return f"{name}: {error:.1e} from torch"
        spread = np.abs(wanted[0] - wanted[1]).max() / np.abs(wanted).max()
        if spread < TOLERANCE:
            return f"{name}: the same for both samples ({spread:.1e}), so it would show no error"
    return ""


def attempt(job: Job, module: Positional, dynamic: bool) -> str:
    """Export once and move the file in place when it is right; the reason when it is not."""
    draft = job.path(f".draft{os.getpid()}")
    try:
        export(job, module, dynamic, draft)
        reason = disagreement(draft, module, job.architecture)
        if not reason:
            np.savez(job.path(".npz"), **feed(job.architecture))
            draft.rename(job.path(".onnx"))
        return reason
    except Exception as error:  # any failure of an exporter is a line of the table
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
    finally:
        draft.unlink(missing_ok=True)


def work(job: Job, reasons: "multiprocessing.SimpleQueue[str]") -> None:
    """Body of the process of one export: everything it prints goes to a log, kept on failure."""
    log = os.open(job.path(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        module = build(job.architecture)
        reason = attempt(job, module, dynamic=True)
        if reason and any(i.dynamic.keys() - {0} for i in job.architecture.inputs):
            print(f"with every dynamic axis: {reason}", flush=True)
            reason = attempt(job, module, dynamic=False)
    except Exception as error:
        reason = f"model: {type(error).__name__}: {error}".splitlines()[0][:160]
    reasons.put(reason)
    if not reason:
        job.path(".log").unlink()


def run(job: Job, limit: float) -> Outcome:
    """One export in a forked process, unless its file is there already."""
    if job.path(".onnx").exists() and job.path(".npz").exists():
        return Outcome(job, "", 0.0)
    context = multiprocessing.get_context("fork")
    reasons: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
    process = context.Process(target=work, args=(job, reasons))
    start = time.monotonic()
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        reason = f"took more than {limit:.0f} s"
    elif reasons.empty():
        reason = f"the process ended with {process.exitcode}"
    else:
        reason = reasons.get()
    return Outcome(job, reason, time.monotonic() - start)


def line(outcome: Outcome) -> str:
    """Name, exporter, nodes, parameters and the verdict of one export."""
    name, exporter = outcome.job.architecture.name, outcome.job.exporter
    if outcome.reason:
        return f"{name:20} {exporter:7} {'-':>6} {'-':>9} {outcome.seconds:6.1f} {outcome.reason}"
    graph = onnx.load(outcome.job.path(".onnx")).graph
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
    count = sum(int(np.prod(t.dims)) for t in graph.initializer if t.data_type in floats)
    return f"{name:20} {exporter:7} {len(graph.node):6} {count:9} {outcome.seconds:6.1f} ok"


def report(outcomes: Iterable[Outcome]) -> bool:
    """Print a line per export as it ends, then the totals; True when none failed."""
    good: dict[str, set[str]] = {}
    failed = 0
    print(f"{'name':20} {'export':7} {'nodes':>6} {'params':>9} {'s':>6} verdict")
    for outcome in outcomes:
        print(line(outcome), flush=True)
        if outcome.reason:
            failed += 1
        else:
            good.setdefault(outcome.job.architecture.name, set()).add(outcome.job.exporter)
    both = sum(len(found) == len(EXPORTERS) for found in good.values())
    print(f"{len(good)} architectures exported, {both} with both exporters, {failed} failures")
    return failed == 0


def main() -> int:
    """Read the command line and export what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", action="append", choices=sorted(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--exporter", choices=(*EXPORTERS, "both"), default="both")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per export")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    exporters = EXPORTERS if options.exporter == "both" else (options.exporter,)
    jobs = [
        Job(ARCHITECTURES[name], exporter, options.folder)
        for name in options.only or ARCHITECTURES
        for exporter in exporters
    ]
    with ThreadPoolExecutor(options.jobs) as pool:
        return 0 if report(pool.map(lambda job: run(job, options.limit), jobs)) else 1


if __name__ == "__main__":
    sys.exit(main())
