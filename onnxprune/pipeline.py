"""The way of a model through all stages; each command is one function here."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune.analysis import Analysis, analyse
from onnxprune.bench.command import bench
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import Splits, split_samples
from onnxprune.inspection import inspect_groups
from onnxprune.lossless.find import Free, find_free
from onnxprune.lossless.order import freed
from onnxprune.lossless.summary import lossless
from onnxprune.model.load import load
from onnxprune.model.save import check_target
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.quality.drop import describe, state
from onnxprune.quality.judge import Judge
from onnxprune.quality.promise import promise_of
from onnxprune.ranking import sensitivity
from onnxprune.recovery.heads import unproven
from onnxprune.recovery.retune import lifelike, restored
from onnxprune.replay import compare, recut, repeat
from onnxprune.report import summary
from onnxprune.report.inspected import Inspection
from onnxprune.report.values import Report, VerifyReport
from onnxprune.result import Result
from onnxprune.rewrite.collapse import collapse
from onnxprune.runtime.session import check_provider
from onnxprune.runtime.threads import one_blas_thread
from onnxprune.search.candidate import Workshop
from onnxprune.search.front import check_folder, write_front
from onnxprune.search.search import search
from onnxprune.search.stages import finished, repaired, timed
from onnxprune.selection.budget import budget_of
from onnxprune.selection.cuttable import cuttable, permitted
from onnxprune.selection.pace import paced
from onnxprune.sensitivity.methods import measure_groups
from onnxprune.sensitivity.values import Sensitivity

__all__ = [
    "apply",
    "bench",
    "inspect",
    "prune",
    "replay",
    "run",
    "sensitivity",
    "verify",
]


def run(
    source: Path,
    target: Path | None,
    options: Options,
    *,
    save_plan: Path | None = None,
    pareto: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Prune a model as :func:`prune` does, and write it.

    Parameters
    ----------
    source : Path
    target : Path, optional
        None only with ``dry_run``.
    options : Options
    save_plan, pareto, progress : Path, Path and Progress, optional
        ``pareto`` is a new folder for the front: a table of points with a plan for each.
    dry_run, force : bool
        Do everything but write the model; replace an existing target.

    Raises
    ------
    UsageError, InputError, VerificationError, BudgetError
        No model is written then.
    """
    clock = Clock(progress or Silent())
    if target is not None:
        check_target(source, target, force=force)
    done = prune(source, options, pareto=pareto, progress=clock)
    if save_plan is not None:
        done.plan.save(save_plan)
    if target is None or dry_run:
        return done.report
    clock.stage("write")
    done.save(target, force=force)
    return replace(done.report, target=str(target), seconds=clock.seconds())


@one_blas_thread
def prune(
    source: Path | onnx.ModelProto,
    options: Options,
    *,
    pareto: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Prune a model to a budget, within a drop, or both; without either as far as a drop allows.

    Parameters
    ----------
    source : Path or ModelProto
    options : Options
    pareto : Path, optional
        A new folder for the front: a table of points with a plan for each.
    progress : Progress, optional

    Returns
    -------
    Result

    Raises
    ------
    UsageError, InputError, VerificationError, BudgetError
        Nothing is written then.
    """
    clock = Clock(progress or Silent())
    check_provider(options.provider)
    if pareto is not None:
        check_folder(pareto)
    given = analyse(source, options, clock)
    for warning in summary.synthetic(given):
        clock.note(warning)
    found = lifelike(given)
    splits = split_samples(len(found.samples), options.seed)
    judge = Judge(found, splits, options)
    promise = promise_of(found, splits, judge, options)
    groups = cuttable(found, options)
    found, pace = paced(found, groups, options, clock)
    budget = budget_of(options, found.costs.total, found.model.bytes)
    known = _measured(found, groups, splits, options, clock)
    workshop = Workshop(found, groups, *known, pace, splits, judge, options, clock)
    chosen = search(workshop, budget, promise, objective="latency")
    settled, done = chosen.candidate.settled, chosen.candidate.recovered
    # What is written has the statistics of the user's model.
    real = restored(done.model, found.view, given.view, settled.proven.keeps)
    done = replace(done, model=real)
    drop, remarks = describe(judge, promise, chosen.held, settled.proven, splits)
    times = chosen.candidate.timed or workshop.time(settled, done.model)
    remarks = [*workshop.notes(settled), *chosen.notes, *remarks]
    report = summary.report(
        settled.found, settled.proven, done, times, drop, options, remarks, known[0]
    )
    if pareto is not None:
        write_front(workshop, chosen.candidate, pareto)
    free = lossless(found, workshop.free, settled.proven.removed)
    report = replace(report, lossless=free, seconds=clock.seconds())
    model = collapse(found.expansion, done.model).model
    return Result(model, report, workshop.plan(settled, done), found.model)


@one_blas_thread
def inspect(
    source: Path | onnx.ModelProto,
    options: Options,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> Inspection:
    """Find what can be cut and what not; cut every group alone to half and verify it.

    Parameters
    ----------
    source : Path or ModelProto
    options : Options
    verify : bool
        False skips the cuts; every group then counts as it is coupled.
    progress : Progress, optional

    Returns
    -------
    Inspection
    """
    clock = Clock(progress or Silent())
    found = analyse(source, options, clock)
    groups = permitted(found, options)
    clock.stage("verify")
    inspection = inspect_groups(found, groups, verify=verify, progress=clock)
    free = find_free(found, groups, np.arange(len(found.samples)))
    return replace(inspection, lossless=lossless(found, free))


def apply(
    source: Path,
    target: Path,
    plan: Path,
    options: Options,
    *,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Cut a model as :func:`replay` does, and write it.

    Parameters
    ----------
    source, target, plan : Path
    options : Options
    force : bool
    progress : Progress, optional

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, VerificationError
        Nothing is written then.
    """
    clock = Clock(progress or Silent())
    check_target(source, target, force=force)
    done = replay(source, plan, options, progress=clock)
    clock.stage("write")
    done.save(target, force=force)
    return replace(done.report, target=str(target), seconds=clock.seconds())


@one_blas_thread
def replay(
    source: Path | onnx.ModelProto,
    plan: Path | Plan,
    options: Options,
    *,
    progress: Progress | None = None,
) -> Result:
    """Cut a model as a plan says.

    Where the plan lists refitted layers and there is data, the layers are refitted again.

    Parameters
    ----------
    source : Path or ModelProto
    plan : Path or Plan
    options : Options
    progress : Progress, optional

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If the plan was made for another model.
    VerificationError
        If the cut cannot be written or does not equal its reference.
    """
    clock = Clock(progress or Silent())
    check_provider(options.provider)
    wanted = load_plan(plan, load(source))
    options = replace(
        wanted.looking(options),
        recover=wanted.refitted,
        seed=wanted.number("seed"),
        samples=wanted.number("samples"),
    )
    found = wanted.shortened(analyse(source, options, clock))
    clock.stage("cut")
    proven = recut(found, wanted)
    splits = split_samples(len(found.samples), options.seed)
    notes = []
    if wanted.refitted and found.samples.synthetic:
        options = replace(options, recover=False)
        notes.append("the plan's refit needs calibration data (--data): only the cut was made")
    constants = wanted.constants(found)
    done = repaired(found, proven, splits, options, clock, constants)
    done = finished(found, proven, splits, options, clock, done, constants)
    times = timed(found, done.model, proven.keeps, options, clock)
    drop, remarks = state(found, done.model, proven, splits, options)
    report = summary.report(found, proven, done, times, drop, options, [*notes, *remarks])
    model = collapse(found.expansion, done.model).model
    return Result(model, replace(report, seconds=clock.seconds()), wanted, found.model)


@one_blas_thread
def verify(
    source: Path | onnx.ModelProto,
    target: Path | onnx.ModelProto,
    plan: Path | Plan,
    options: Options,
    *,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check that a file is what a plan makes of a model, and that the cut equals its reference.

    Parameters
    ----------
    source, target : Path or ModelProto
    plan : Path or Plan
    options : Options
    progress : Progress, optional

    Returns
    -------
    VerifyReport
        ``ok`` is False where either does not hold; ``differences`` says what. Initializers that
        the plan lists as refitted or added may hold other numbers, but nothing else may differ.
        Where it says that heads were turned, that this leaves the model as it was is proven anew.
    """
    clock = Clock(progress or Silent())
    given = load(target)
    wanted = load_plan(plan, load(source))
    found = wanted.shortened(analyse(source, wanted.looking(options), clock))
    clock.stage("verify")
    made = repeat(found, wanted)
    report = compare(found, wanted, made, given)
    if not report.ok or not wanted.rotated:
        return report
    missing = unproven(found, made, wanted.rotated - wanted.added)
    return replace(report, differences=missing, ok=not missing)


def _measured(
    found: Analysis, groups: Sequence[Group], splits: Splits, options: Options, clock: Clock
) -> tuple[Sensitivity, Free]:
    """Measure what channels are worth; those that are worth nothing go first."""
    measured = measure_groups(found, groups, splits, options, clock)
    free = find_free(found, groups, np.union1d(splits.fit, splits.select))
    return freed(measured, groups, free.channels), free
