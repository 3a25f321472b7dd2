"""The way of a model through all stages; each function here is one command."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from onnxprune import summary
from onnxprune.analysis import Analysis, analyse
from onnxprune.bench.measure import measure
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import Splits, split_samples
from onnxprune.errors import VerificationError
from onnxprune.inspection import inspect_groups
from onnxprune.model.diff import field_diff
from onnxprune.model.frontier import float_frontier
from onnxprune.model.functions import expand
from onnxprune.model.load import load
from onnxprune.model.save import check_target, copy, write, write_text
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan, make_plan
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.recovery.recover import Recovered, plain, recover
from onnxprune.report.values import BenchReport, Drop, Inspection, Report, VerifyReport
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.fold import fold
from onnxprune.rewrite.prove import Proven
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import Session, check_provider, with_outputs
from onnxprune.selection.budget import Budget, budget_of
from onnxprune.selection.drop import class_scores, measure_drop
from onnxprune.selection.pace import Pace, paced
from onnxprune.selection.promise import keep_promises
from onnxprune.selection.select import measure_groups
from onnxprune.selection.settle import Settled, candidates, settle
from onnxprune.selection.widths import excluded, unmatched
from onnxprune.sensitivity.values import Sensitivity
from onnxprune.timing import bench

__all__ = ["apply", "bench", "inspect", "run", "verify"]

_BATCH = 32


def run(
    source: Path,
    target: Path | None,
    options: Options,
    *,
    save_plan: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Prune a model to a budget.

    Parameters
    ----------
    source : Path
    target : Path, optional
        None only with ``dry_run``.
    options : Options
    save_plan : Path, optional
        Where the plan goes.
    dry_run, force : bool
        Do everything but write the model; replace an existing target.
    progress : Progress, optional

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, VerificationError, BudgetError
        Nothing is written then.
    """
    clock = Clock(progress or Silent())
    check_provider(options.provider)
    if target is not None:
        check_target(source, target, force=force)
    found = analyse(source, options, clock)
    for warning in summary.synthetic(found):
        clock.note(warning)
    groups = candidates(found, options)
    found, pace = paced(found, groups, options, clock)
    splits = split_samples(len(found.samples), options.seed)
    budget = budget_of(options, found.costs.total, found.model.bytes)
    measured = measure_groups(found, groups, splits, options, clock)
    stages = _Stages(found, groups, measured, budget, pace, splits, options, clock)
    settled, recovered, timed = stages.promised()
    drop = _drop(found, recovered.model, splits, options, clock)
    notes = stages.notes(settled)
    report = summary.report(found, settled.proven, recovered, timed, drop, options, notes)
    report = replace(report, groups=summary.with_methods(report.groups, measured))
    if save_plan is not None:
        write_text(save_plan, _plan(found, settled, recovered, options).text())
    if target is not None and not dry_run:
        clock.stage("write")
        write(fold(found.expansion, recovered.model).model, target, source=found.model)
        report = replace(report, target=str(target))
    return replace(report, seconds=clock.seconds())


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
    return inspect_groups(found, groups, verify=verify, progress=clock)


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
    recovered = _recovered(found, proven, splits, options, clock)
    timed = _timed(found, recovered.model, options, clock)
    drop = _drop(found, recovered.model, splits, options, clock)
    report = summary.report(found, proven, recovered, timed, drop, options, notes)
    clock.stage("write")
    if wanted.empty:
        copy(found.model, target)
    else:
        write(fold(found.expansion, recovered.model).model, target, source=found.model)
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
        ok=error <= TOLERANCE and not differences,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Stages:
    """What a search may call as often as it likes."""

    found: Analysis
    groups: Sequence[Group]
    measured: Sensitivity
    budget: Budget
    pace: Pace | None
    splits: Splits
    options: Options
    clock: Clock

    def promised(self) -> tuple[Settled, Recovered, BenchReport]:
        """Cut, repair and time, until a latency that is measured here is kept."""
        binding = self.options.latency if self.pace is not None and self.pace.here else None
        return keep_promises(binding, self.settle, self.repair, self.time)

    def notes(self, settled: Settled) -> list[str]:
        """Gather what the stages had to say."""
        return [
            *unmatched(self.found, self.options.exclude),
            *(self.pace.notes if self.pace else ()),
            *summary.notes(self.splits, settled, self.measured),
        ]

    def settle(self, latency: float | None) -> Settled:
        """Cut to the budget, or to the budget with another latency."""
        self.clock.stage("cut")
        budget = self.budget if latency is None else self.budget.with_latency(latency)
        return settle(self.found, self.groups, self.measured, budget, self.options)

    def repair(self, settled: Settled) -> Recovered:
        return _recovered(self.found, settled.proven, self.splits, self.options, self.clock)

    def time(self, model: onnx.ModelProto) -> BenchReport:
        return _timed(self.found, model, self.options, self.clock)


def _plan(found: Analysis, settled: Settled, recovered: Recovered, options: Options) -> Plan:
    return make_plan(
        found,
        settled.proven.removed,
        settled.proven.keeps,
        seed=options.seed,
        samples=options.samples,
        multiple_of=settled.selection.multiple_of,
        steps=settled.selection.steps,
        refitted=recovered.refitted,
        added=recovered.added,
    )


def _recovered(
    found: Analysis, proven: Proven, splits: Splits, options: Options, clock: Clock
) -> Recovered:
    if not options.recover:
        return plain(proven)
    clock.stage("recover")
    done = recover(
        found,
        proven,
        splits,
        seed=options.seed,
        time_limit=options.time_limit,
        progress=clock,
    )
    if done.before is not None and done.after is not None:
        before, after = done.before**0.5, done.after**0.5
        clock.note(f"refitting: output change {before:.3f} -> {after:.3f} (relative, held out)")
    return done


def _timed(found: Analysis, model: onnx.ModelProto, options: Options, clock: Clock) -> BenchReport:
    clock.stage("bench")
    return measure(
        [found.model.path if found.native else found.view.real, found.runnable(model)],
        [found.stated_feed()],
        names=["original", "pruned"],
        threads=options.threads,
        provider=options.provider,
        seed=options.seed,
        dims=found.dims,
        progress=clock,
    )


def _drop(
    found: Analysis, model: onnx.ModelProto, splits: Splits, options: Options, clock: Clock
) -> Drop:
    clock.stage("certify")
    outputs = float_frontier(found.view, found.traces[0])
    before, after = (
        Session(with_outputs(found.runnable(m), outputs)) for m in (found.view.model, model)
    )
    feeds = list(found.samples.feeds(splits.certify, _BATCH))
    scores = class_scores(found.view, found.traces[0])
    return measure_drop(before, after, feeds, scores, seed=options.seed)


def _replayed(found: Analysis, plan: Plan) -> Proven:
    """Cut as a plan says, and prove it."""
    keeps = plan.keeps(found.coupling.collected.sizes)
    model = _recut(found, plan)
    error = found.verifier.error(model, keeps) if keeps else 0.0
    if error > TOLERANCE:
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
