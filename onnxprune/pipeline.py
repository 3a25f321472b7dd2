"""The way of a model through all stages; each function here is one command."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from onnxprune import bench as benchmark
from onnxprune.analysis import Analysis, analyse, read_samples
from onnxprune.coupling.groups import Group
from onnxprune.data.specs import input_specs, named_dims
from onnxprune.data.splits import Splits, split_samples
from onnxprune.errors import BudgetError, InputError, VerificationError
from onnxprune.model.frontier import float_frontier
from onnxprune.model.load import Model, load
from onnxprune.model.save import check_target, copy, write, write_text
from onnxprune.options import Options
from onnxprune.plan import Plan, load_plan, make_plan
from onnxprune.progress import Progress, Silent
from onnxprune.report import build
from onnxprune.report.inspection import inspect_groups
from onnxprune.report.values import BenchReport, Drop, Inspection, Report, VerifyReport
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.prove import Proven, prove
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import RunFailedError, Session, with_outputs
from onnxprune.selection.budget import Budget, budget_of
from onnxprune.selection.drop import class_scores, measure_drop
from onnxprune.selection.select import Selection, choose, measure_groups
from onnxprune.selection.widths import excluded
from onnxprune.sensitivity.values import Sensitivity

__all__ = ["apply", "bench", "inspect", "run", "verify"]

_SYNTHETIC = (
    "no --data: measured on synthetic inputs, which say little about real ones; "
    "the drop on real inputs may be far larger"
)


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
    """Prune a model to a budget: load, couple, measure, select, cut, verify, bench, write, report.

    Parameters
    ----------
    source : Path
    target : Path, optional
        None only with ``dry_run``.
    options : Options
    save_plan : Path, optional
        Where the plan goes.
    dry_run : bool
        Do everything but write the model.
    force : bool
        Replace an existing target.
    progress : Progress, optional

    Returns
    -------
    Report

    Raises
    ------
    UsageError, InputError, VerificationError, BudgetError
        Nothing is written then.
    """
    clock = _Clock(progress or Silent())
    if target is not None:
        check_target(source, target, force=force)
    found = analyse(source, options, clock)
    for warning in _synthetic(found):
        clock.note(warning)
    budget = budget_of(options, found.costs.total, found.model.bytes)
    groups = _candidates(found, options)
    splits = split_samples(len(found.samples), options.seed)
    measured = measure_groups(found, groups, splits, options, clock)
    clock.stage("select")
    selection = choose(found, groups, measured, budget, options)
    clock.stage("cut")
    proven, selection = _proven(found, groups, measured, budget, options, selection)
    plan = make_plan(
        found, proven.removed, proven.keeps, seed=options.seed, multiple_of=selection.multiple_of
    )
    notes = _notes(splits, selection, measured, proven)
    methods = {name: g.method for name, g in measured.groups.items()}
    report = _report(found, proven, options, splits, clock, methods, notes)
    if target is not None and not dry_run:
        clock.stage("write")
        write(proven.model, target, source=found.model)
        report = replace(report, target=str(target))
    if save_plan is not None:
        write_text(save_plan, plan.text())
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
    clock = _Clock(progress or Silent())
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
    clock = _Clock(progress or Silent())
    check_target(source, target, force=force)
    wanted = load_plan(plan, load(source))
    found = analyse(source, replace(options, input_shapes={**wanted.shapes}), clock)
    clock.stage("cut")
    proven = _replayed(found, wanted)
    splits = split_samples(len(found.samples), options.seed)
    report = _report(found, proven, options, splits, clock, {}, [])
    clock.stage("write")
    if wanted.empty:
        copy(found.model, target)
    else:
        write(proven.model, target, source=found.model)
    return replace(report, target=str(target), seconds=clock.seconds())


def verify(
    source: Path, target: Path, plan: Path, options: Options, *, progress: Progress | None = None
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
        ``ok`` is False where either does not hold; ``differences`` says what.
    """
    from onnxprune.model.diff import field_diff

    clock = _Clock(progress or Silent())
    wanted = load_plan(plan, load(source))
    found = analyse(source, replace(options, input_shapes={**wanted.shapes}), clock)
    clock.stage("verify")
    keeps = wanted.keeps(found.coupling.collected.sizes)
    recut = _recut(found, wanted)
    error = found.verifier.error(recut, keeps) if keeps else 0.0
    given = load(target)
    differences = field_diff(recut, given.proto)
    same = given.sha256 == found.model.sha256 if wanted.empty else not differences
    return VerifyReport(
        str(source),
        str(target),
        error,
        len(found.probes),
        same,
        differences,
        ok=error <= TOLERANCE and not differences,
    )


def bench(
    first: Path, second: Path | None, options: Options, *, progress: Progress | None = None
) -> BenchReport:
    """Time one model, or two against each other on the same inputs.

    Parameters
    ----------
    first : Path
    second : Path, optional
    options : Options
    progress : Progress, optional

    Returns
    -------
    BenchReport
    """
    clock = _Clock(progress or Silent())
    clock.stage("load")
    models = [load(path) for path in (first, second) if path is not None]
    specs = input_specs(models[0].proto)
    samples, shapes = read_samples(models[0], specs, options)
    feeds = list(samples.feeds(range(min(len(samples), 4)), 1))
    clock.stage("bench")
    with _runnable(models[-1]):
        return benchmark.measure(
            [m.path for m in models],
            feeds,
            names=[str(m.path) for m in models],
            threads=options.threads,
            provider=options.provider,
            seed=options.seed,
            dims=named_dims(specs, shapes),
            progress=clock,
        )


class _Clock:
    """A progress that also keeps the time of each stage."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._starts: list[tuple[str, float]] = []
        self.track, self.note = inner.track, inner.note

    def stage(self, name: str) -> None:
        self._starts.append((name, time.monotonic()))
        self._inner.stage(name)

    def seconds(self) -> dict[str, float]:
        ends = [*(start for _, start in self._starts[1:]), time.monotonic()]
        spent: dict[str, float] = {}
        for (name, start), end in zip(self._starts, ends, strict=True):
            spent[name] = round(spent.get(name, 0.0) + end - start, 3)
        return spent


def _candidates(found: Analysis, options: Options) -> list[Group]:
    """Return the groups that may be cut, or say why there are none."""
    kept = excluded(found.coupling.groups, options.exclude, found.view, found.coupling)
    groups = [g for g in found.coupling.groups if g.name not in kept]
    if not groups:
        what = "everything is excluded" if found.coupling.groups else build.obstacles(found)
        msg = f"nothing to cut in {found.model.path}: {what}"
        raise BudgetError(msg)
    return groups


def _proven(
    found: Analysis,
    groups: Sequence[Group],
    measured: Sensitivity,
    budget: Budget,
    options: Options,
    selection: Selection,
) -> tuple[Proven, Selection]:
    """Cut and verify; select anew without the groups that cannot be proven."""
    guilty: dict[str, str] = {}
    while True:
        if not selection.allocation.met:
            _raise_unmet(found, budget, selection, guilty)
        proven = prove(found, selection.removed)
        if not proven.guilty:
            return replace(proven, guilty=guilty), selection
        guilty |= proven.guilty
        rest = [g for g in groups if g.name not in guilty]
        if not rest:
            msg = f"no cut could be proven: {next(iter(guilty.values()))}"
            raise VerificationError(msg)
        selection = choose(found, rest, measured, budget, options)


def _raise_unmet(
    found: Analysis, budget: Budget, selection: Selection, guilty: dict[str, str]
) -> None:
    nearest = budget.reached(selection.allocation.saved)
    asked = " and ".join(f"--{n.replace('bytes', 'size')} {r:g}" for n, r in budget.ratios.items())
    best = ", ".join(f"{n.replace('bytes', 'size')} {r:.3f}" for n, r in nearest.items())
    unproven = f"; {len(guilty)} groups could not be proven" if guilty else ""
    msg = f"{asked} cannot be met: the nearest is {best}; {build.obstacles(found)}{unproven}"
    raise BudgetError(msg)


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


def _notes(
    splits: Splits, selection: Selection, measured: Sensitivity, proven: Proven
) -> list[str]:
    notes = [f"{name} stays whole: {why}" for name, why in proven.guilty.items()]
    if splits.shared:
        notes.append("fewer than 4 samples: the same ones measured, selected and judged")
    if selection.multiple_of < 4:
        notes.append("widths off multiples of 4 were needed: the result may not be faster")
    cheap = [n for n, g in measured.groups.items() if g.method == "activation"]
    if cheap:
        notes.append(
            f"{len(cheap)} of {len(measured.groups)} groups were ordered by activation importance: "
            "perturbing each channel did not fit the time limit (--time-limit)"
        )
    return notes


def _report(
    found: Analysis,
    proven: Proven,
    options: Options,
    splits: Splits,
    clock: _Clock,
    methods: Mapping[str, str],
    notes: list[str],
) -> Report:
    """Time and judge the cut model against the original."""
    clock.stage("bench")
    size = len(proven.model.SerializeToString()) if found.model.bytes < 1 << 30 else 0
    example = found.stated_feed()
    timed = benchmark.measure(
        [found.model.path, proven.model],
        [example],
        names=["original", "pruned"],
        threads=options.threads,
        provider=options.provider,
        seed=options.seed,
        dims=found.dims,
        progress=clock,
    )
    clock.stage("certify")
    drop = _drop(found, proven.model, splits, options)
    before = build.figures(found.costs.total, found.model.bytes, timed.latency_ms[0])
    cost = build.cost_of(proven.model, found.base, example)
    after = build.figures(cost, size, timed.latency_ms[1])
    return Report(
        source=str(found.model.path),
        target=None,
        before=before,
        after=after,
        ratios=build.ratios(before, after, timed),
        drop=drop,
        removed=build.removed_positions(found, proven.keeps),
        groups=build.group_changes(found.coupling.groups, proven.removed, methods),
        verified={"max_rel_error": proven.error, "samples": len(found.probes)},
        dims=found.dims,
        options=build.options_used(options),
        seconds=clock.seconds(),
        seed=options.seed,
        versions=build.versions(),
        warnings=[*_synthetic(found), *notes, *timed.warnings, *_slow(timed)],
    )


def _synthetic(found: Analysis) -> list[str]:
    return [_SYNTHETIC] if found.samples.synthetic else []


def _slow(timed: BenchReport) -> list[str]:
    if timed.verdict == "faster":
        return []
    return [f"the pruned model is not faster: {timed.verdict}"]


def _drop(found: Analysis, model: onnx.ModelProto, splits: Splits, options: Options) -> Drop:
    feeds = list(found.samples.feeds(splits.certify, 32))
    scores = class_scores(found.view, found.traces[0])
    outputs = float_frontier(found.view, found.traces[0])
    before, after = (Session(with_outputs(m, outputs)) for m in (found.model.proto, model))
    return measure_drop(before, after, feeds, scores, seed=options.seed)


@contextmanager
def _runnable(model: Model) -> Iterator[None]:
    try:
        yield
    except RunFailedError as error:
        msg = f"{model.path}: onnxruntime cannot run this model on these inputs: {error}"
        raise InputError(msg) from error
