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
from onnxprune.errors import VerificationError
from onnxprune.inspection import inspect_groups
from onnxprune.lossless.find import Free, find_free
from onnxprune.lossless.order import freed
from onnxprune.lossless.summary import lossless
from onnxprune.model.diff import field_diff
from onnxprune.model.functions import expand
from onnxprune.model.load import load
from onnxprune.model.save import check_target
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.quality.drop import describe
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise, promise_of, unlimited
from onnxprune.recovery.recover import Recovered
from onnxprune.recovery.retune import lifelike, restored
from onnxprune.report import summary
from onnxprune.report.values import Drop, Inspection, Report, VerifyReport
from onnxprune.result import Result
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.fold import fold
from onnxprune.rewrite.prove import Proven
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.session import check_provider
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.search.front import check_folder, write_front
from onnxprune.search.search import search
from onnxprune.search.stages import finished, repaired, timed
from onnxprune.selection.budget import budget_of
from onnxprune.selection.pace import paced
from onnxprune.selection.settle import Settled, candidates
from onnxprune.selection.widths import excluded
from onnxprune.sensitivity.methods import measure_groups
from onnxprune.sensitivity.ranking import sensitivity
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
    _warn(given, clock)
    found = lifelike(given)
    splits = split_samples(len(found.samples), options.seed)
    judge = Judge(found, splits, options)
    promise = promise_of(found, splits, judge, options)
    groups = candidates(found, options)
    found, pace = paced(found, groups, options, clock)
    budget = budget_of(options, found.costs.total, found.model.bytes)
    known = _measured(found, groups, splits, options, clock)
    workshop = Workshop(found, groups, *known, pace, splits, judge, options, clock)
    chosen = search(workshop, budget, promise, objective="latency")
    settled, done = _real(given, found, chosen.candidate)
    drop, remarks = _drop(judge, promise, chosen.held, settled.proven, splits, options)
    times = chosen.candidate.timed or workshop.time(settled, done.model)
    remarks = [*workshop.notes(settled), *chosen.notes, *remarks]
    report = summary.report(
        settled.found, settled.proven, done, times, drop, options, remarks, known[0]
    )
    if pareto is not None:
        write_front(workshop, pareto)
    free = lossless(found, workshop.free, settled.proven.removed)
    report = replace(report, lossless=free, seconds=clock.seconds())
    model = fold(found.expansion, done.model).model
    return Result(model, report, workshop.plan(settled, done), found.model)


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
    kept = excluded(found.coupling.groups, options.exclude, found.view, found.coupling)
    groups = [g for g in found.coupling.groups if g.name not in kept]
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
    proven = _replayed(found, wanted)
    splits = split_samples(len(found.samples), options.seed)
    notes = []
    if wanted.refitted and found.samples.synthetic:
        options = replace(options, recover=False)
        notes.append("the plan's refit needs calibration data (--data): only the cut was made")
    constants = wanted.constants(found)
    done = repaired(found, proven, splits, options, clock, constants)
    done = finished(found, proven, splits, options, clock, done, constants)
    times = timed(found, done.model, proven.keeps, options, clock)
    drop, remarks = _stated(found, done.model, proven, splits, options)
    report = summary.report(found, proven, done, times, drop, options, [*notes, *remarks])
    model = fold(found.expansion, done.model).model
    return Result(model, replace(report, seconds=clock.seconds()), wanted, found.model)


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
    """
    clock = Clock(progress or Silent())
    wanted = load_plan(plan, load(source))
    found = wanted.shortened(analyse(source, wanted.looking(options), clock))
    clock.stage("verify")
    keeps = wanted.keeps(found.coupling.collected.sizes)
    recut = _recut(found, wanted)
    error = found.verifier.error(recut, keeps) if keeps else 0.0
    given = load(target)
    flat = expand(given.proto).model
    plain_cut = wanted.without_refit(flat, recut)
    bases = (found.model.path, given.path)
    differences = field_diff(recut, plain_cut, bases=bases)
    return VerifyReport(
        str(found.model.path),
        str(given.path),
        error,
        len(found.probes),
        not field_diff(recut, flat, bases=bases),
        differences,
        ok=(not keeps or found.verifier.agrees(error, keeps)) and not differences,
    )


def _warn(found: Analysis, clock: Clock) -> None:
    for warning in summary.synthetic(found):
        clock.note(warning)


def _real(given: Analysis, found: Analysis, candidate: Candidate) -> tuple[Settled, Recovered]:
    """Return a candidate as it is written: with the statistics that the user's model has."""
    settled, done = candidate.settled, candidate.recovered
    if found is given:
        return settled, done
    model = restored(done.model, found.view, given.view, settled.proven.keeps)
    return settled, replace(done, model=model)


def _measured(
    found: Analysis, groups: Sequence[Group], splits: Splits, options: Options, clock: Clock
) -> tuple[Sensitivity, Free]:
    """Measure what channels are worth; those that are worth nothing go first."""
    measured = measure_groups(found, groups, splits, options, clock)
    free = find_free(found, groups, np.union1d(splits.fit, splits.select))
    return freed(measured, groups, free.channels), free


def _drop(
    judge: Judge,
    promise: Promise,
    held: Sequence[Losses],
    proven: Proven,
    splits: Splits,
    options: Options,
) -> tuple[Drop, list[str]]:
    """Describe the drop; say so loudly where it is not certified."""
    plain = judge.losses(proven.model, splits.certify, proven.keeps)
    drop = describe(judge, promise, held, plain)
    if drop.certified is not None:
        return drop, []
    return drop, [f"the drop is not certified: {promise.uncertified(held[-1])}"]


def _stated(
    found: Analysis, model: onnx.ModelProto, proven: Proven, splits: Splits, options: Options
) -> tuple[Drop, list[str]]:
    """Describe the drop of a model of which nothing was promised."""
    judge = Judge(found, splits, options)
    held = [judge.losses(model, splits.certify, proven.keeps)]
    promise = unlimited(found, splits, judge, options)
    return _drop(judge, promise, held, proven, splits, options)


def _replayed(found: Analysis, plan: Plan) -> Proven:
    """Cut as a plan says, and prove it."""
    keeps = plan.keeps(found.coupling.collected.sizes)
    model = _recut(found, plan)
    error = found.verifier.error(model, keeps) if keeps else 0.0
    if keeps and not found.verifier.agrees(error, keeps):
        msg = f"the cut differs from its reference by {error:.2g}; nothing is written"
        raise VerificationError(msg)
    return Proven(model, keeps, plan.removed_channels(found.coupling.groups), error, {})


def _recut(found: Analysis, plan: Plan) -> onnx.ModelProto:
    keeps = plan.keeps(found.coupling.collected.sizes)
    try:
        return cut(found.view, found.coupling, found.traces, keeps)
    except UnrepresentableError as error:
        msg = f"the plan cannot be cut: {error}"
        raise VerificationError(msg) from error
