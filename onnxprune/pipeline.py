"""The way of a model through all stages; each function here is one command."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune import summary
from onnxprune.analysis import Analysis, analyse
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import Splits, split_samples
from onnxprune.errors import UsageError, VerificationError
from onnxprune.inspection import inspect_groups
from onnxprune.lossless.find import Free, find_free
from onnxprune.lossless.order import freed
from onnxprune.lossless.summary import lossless
from onnxprune.model.diff import field_diff
from onnxprune.model.functions import expand
from onnxprune.model.load import load
from onnxprune.model.save import check_target, copy, write, write_text
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan, make_plan
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.quality.drop import describe
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise, promise_of, unlimited
from onnxprune.ranking import sensitivity
from onnxprune.recovery.recover import Recovered
from onnxprune.recovery.retune import lifelike, restored
from onnxprune.report.json import dumps
from onnxprune.report.values import Drop, Inspection, Report, VerifyReport
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.fold import fold
from onnxprune.rewrite.prove import Proven
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.session import check_provider
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.search.front import front
from onnxprune.search.search import search
from onnxprune.search.stages import repaired, timed
from onnxprune.selection.budget import budget_of
from onnxprune.selection.measuring import measure_groups
from onnxprune.selection.pace import paced
from onnxprune.selection.settle import Settled, candidates
from onnxprune.selection.widths import excluded
from onnxprune.sensitivity.values import Sensitivity
from onnxprune.timing import bench

__all__ = ["apply", "bench", "inspect", "run", "sensitivity", "verify"]


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
    """Prune a model to a budget, within a drop, or both; without either as far as a drop allows.

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
        Nothing is written then.
    """
    clock = Clock(progress or Silent())
    check_provider(options.provider)
    _check_new(source, target, pareto, force=force)
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
    times = chosen.candidate.timed or workshop.time(done.model)
    remarks = [*workshop.notes(settled), *chosen.notes, *remarks]
    report = summary.report(found, settled.proven, done, times, drop, options, remarks, known[0])
    if save_plan is not None:
        write_text(save_plan, _plan(workshop, settled, done).text())
    if target is not None and not dry_run:
        clock.stage("write")
        write(fold(found.expansion, done.model).model, target, source=found.model)
    if pareto is not None:
        _write_front(workshop, pareto)
    to = None if target is None or dry_run else str(target)
    free = lossless(found, workshop.free, settled.proven.removed)
    return replace(report, target=to, lossless=free, seconds=clock.seconds())


def inspect(
    source: Path, options: Options, *, verify: bool = True, progress: Progress | None = None
) -> Inspection:
    """Find what can be cut and what not; cut every group alone to half and verify it.

    Parameters
    ----------
    source : Path
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
    """Cut a model as a plan says; byte for byte a copy where the plan is empty.

    Where the plan lists refitted layers and there is data, the layers are refitted again.

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
    InputError
        If the plan was made for another model.
    VerificationError
        If the cut cannot be written or does not equal its reference.
    """
    clock = Clock(progress or Silent())
    check_provider(options.provider)
    check_target(source, target, force=force)
    wanted = load_plan(plan, load(source))
    options = replace(
        options,
        input_shapes=wanted.shapes,
        recover=wanted.refitted,
        seed=wanted.number("seed"),
        samples=wanted.number("samples"),
    )
    found = analyse(source, options, clock)
    clock.stage("cut")
    proven = _replayed(found, wanted)
    splits = split_samples(len(found.samples), options.seed)
    notes = []
    if wanted.refitted and found.samples.synthetic:
        options = replace(options, recover=False)
        notes.append("the plan's refit needs calibration data (--data): only the cut was made")
    done = repaired(found, proven, splits, options, clock, wanted.constants(found))
    times = timed(found, done.model, options, clock)
    drop, remarks = _stated(found, done.model, proven, splits, options)
    report = summary.report(found, proven, done, times, drop, options, [*notes, *remarks])
    clock.stage("write")
    if wanted.empty:
        copy(found.model, target)
    else:
        write(fold(found.expansion, done.model).model, target, source=found.model)
    return replace(report, target=str(target), seconds=clock.seconds())


def verify(
    source: Path,
    target: Path,
    plan: Path,
    options: Options,
    *,
    progress: Progress | None = None,
) -> VerifyReport:
    """Check that a file is what a plan makes of a model, and that the cut equals its reference.

    Parameters
    ----------
    source, target, plan : Path
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
    found = analyse(source, replace(options, input_shapes=wanted.shapes), clock)
    clock.stage("verify")
    keeps = wanted.keeps(found.coupling.collected.sizes)
    recut = _recut(found, wanted)
    error = found.verifier.error(recut, keeps) if keeps else 0.0
    given = load(target)
    flat = expand(given.proto).model
    plain_cut = wanted.without_refit(flat, recut)
    differences = field_diff(recut, plain_cut, bases=(source, target))
    return VerifyReport(
        str(source),
        str(target),
        error,
        len(found.probes),
        not field_diff(recut, flat, bases=(source, target)),
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


def _plan(workshop: Workshop, settled: Settled, recovered: Recovered) -> Plan:
    options = workshop.options
    return make_plan(
        workshop.found,
        settled.proven.removed,
        settled.proven.keeps,
        seed=options.seed,
        samples=options.samples,
        multiple_of=settled.selection.multiple_of,
        steps=settled.selection.steps,
        refitted=recovered.refitted,
        added=recovered.added,
        recovered=options.recover,
        constants=workshop.free.constants,
    )


def _check_new(source: Path, target: Path | None, folder: Path | None, *, force: bool) -> None:
    if target is not None:
        check_target(source, target, force=force)
    if folder is not None and (folder.exists() or not folder.absolute().parent.is_dir()):
        what = "exists already" if folder.exists() else "lies in a folder that does not exist"
        msg = f"--pareto {folder} {what}; name a new folder"
        raise UsageError(msg)


def _write_front(workshop: Workshop, folder: Path) -> None:
    """Write the front's table and its plans into a new folder, all or nothing."""
    points = front(workshop)
    names = [f"plan-{number:02}.json" for number in range(1, len(points) + 1)]
    rows = [p.entry(n, workshop.judge.metric) for p, n in zip(points, names, strict=True)]
    table = {"format": "onnxprune-front/1", "model": str(workshop.found.model.path), "points": rows}
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        for point, name in zip(points, names, strict=True):
            made = point.candidate
            plan = _plan(workshop, made.settled, made.recovered)
            write_text(draft / name, plan.text())
        write_text(draft / "front.json", dumps(table))
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _drop(
    judge: Judge,
    promise: Promise,
    held: Sequence[Losses],
    proven: Proven,
    splits: Splits,
    options: Options,
) -> tuple[Drop, list[str]]:
    """Describe the drop; say so loudly where it is not certified."""
    plain = judge.losses(proven.model, splits.certify)
    drop = describe(judge, promise, held, plain)
    if drop.certified is not None:
        return drop, []
    return drop, [f"the drop is not certified: {promise.uncertified(held[-1])}"]


def _stated(
    found: Analysis, model: onnx.ModelProto, proven: Proven, splits: Splits, options: Options
) -> tuple[Drop, list[str]]:
    """Describe the drop of a model of which nothing was promised."""
    judge = Judge(found, splits, options)
    held = [judge.losses(model, splits.certify)]
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
