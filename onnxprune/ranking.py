"""The sensitivity command: what every channel is worth, what that cost, and how far to trust it."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import analyse
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import split_samples
from onnxprune.options import Options
from onnxprune.progress import Clock, Progress, Silent
from onnxprune.quality.halved import Halved
from onnxprune.report import summary
from onnxprune.report.ranked import Agreement, RankedGroup, Ranking
from onnxprune.runtime.session import Session, with_outputs
from onnxprune.runtime.threads import one_blas_thread
from onnxprune.selection.cuttable import cuttable
from onnxprune.sensitivity.agreement import compare, correlation
from onnxprune.sensitivity.gradient import measure as gradient
from onnxprune.sensitivity.gradient.masked import Masked
from onnxprune.sensitivity.methods import Task, measure_groups
from onnxprune.sensitivity.reconstruction import eliminate
from onnxprune.sensitivity.request import Batches, Request
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from onnxprune.sensitivity.weighed import weighed_readers

__all__ = ["sensitivity"]

Scores = NDArray[np.float64]
_PROBES = 96  # exact removals that other methods are compared with
_EACH = 8  # of a group, at least
_CHECKED = 32  # samples of these
_STABLE = 0.8  # rank correlation of two halves below which samples are too few


@one_blas_thread
def sensitivity(
    source: Path | onnx.ModelProto, options: Options, *, progress: Progress | None = None
) -> Ranking:
    """Measure and rank the channels of a model.

    Parameters
    ----------
    source : Path or ModelProto
    options : Options
    progress : Progress, optional

    Returns
    -------
    Ranking

    Raises
    ------
    InputError, UsageError
        If the model or the data cannot be used, or the options contradict them.
    BudgetError
        If there is nothing to measure.
    """
    clock = Clock(progress or Silent())
    found = analyse(source, options, clock)
    warnings = summary.synthetic(found)
    for warning in warnings:
        clock.note(warning)
    splits = split_samples(len(found.samples), options.seed)
    halved = Halved(found, splits, options)
    task = Task(found, tuple(cuttable(found, options)), splits, options, clock)
    start = _processor()
    measured = measure_groups(found, task.groups, splits, options, clock)
    spent = _processor() - start
    clock.stage("check")
    trust = _Trust(task, measured)
    halves = trust.halves()
    ranked = []
    for group in task.groups:
        each = _ranked(group, measured.groups[group.name], trust.samples, halves)
        lost, worst = halved.lost(group, each.order)
        ranked.append(replace(each, lost=lost, worst_class=worst))
    stable = [group.stability for group in ranked if group.stability is not None]
    report = Ranking(
        source=str(found.model.path),
        method=options.method,
        reasons=measured.reasons,
        groups=ranked,
        samples=max((group.samples for group in ranked), default=0),
        forwards=spent / max(_forward(task), 1e-9),
        agreement=list(trust.agreements()),
        stability=float(np.median(stable)) if stable else None,
        partial=any(group.partial for group in ranked),
        metric=halved.metric,
        dims=found.dims,
        seed=options.seed,
        seconds=clock.seconds(),
        versions=summary.versions(),
        warnings=warnings,
    )
    return replace(report, warnings=[*warnings, *_remarks(report)])


def _processor() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _forward(task: Task) -> float:
    """Processor seconds of one pass over all samples that were measured on."""
    feeds = task.batches().fit
    session = Session(with_outputs(task.found.view.real, task.outputs))
    session.run(feeds[0])
    start = time.process_time()
    for feed in feeds:
        session.run(feed)
    return time.process_time() - start


def _ranked(
    group: Group, found: GroupSensitivity, samples: int, halves: dict[str, Scores]
) -> RankedGroup:
    return RankedGroup(
        name=group.name,
        kind=group.kind,
        channels=group.size,
        method=found.method,
        samples=samples if found.samples is None else found.samples,
        partial=found.samples is not None,
        stability=correlation(*halves[group.name]) if group.name in halves else None,
        order=found.order.tolist(),
        scores=found.scores.tolist(),
        widths=found.widths.tolist(),
        errors=found.errors.tolist(),
    )


def _remarks(report: Ranking) -> Iterator[str]:
    """Say what the user should know before trusting the ranking."""
    if report.stability is not None and report.stability < _STABLE:
        yield (
            f"two halves of the samples rank channels differently (rank correlation "
            f"{report.stability:.2f}): give more than these {report.samples} (--samples, --data)"
        )
    cut = [group for group in report.groups if group.partial]
    if cut:
        cheap = sum(group.method == "activation" for group in cut)
        yield (
            f"time was up: {len(cut)} of {len(report.groups)} groups are ordered from fewer "
            f"samples, {cheap} of them by activation importance (--time-limit)"
        )


class _Trust:
    """What shows how far the figures can be trusted: other samples, and other methods."""

    def __init__(self, task: Task, measured: Sensitivity) -> None:
        self.task, self.measured = task, measured
        self.samples = len(task.splits.fit)

    def of(self, *methods: str) -> list[Group]:
        groups = self.measured.groups
        return [g for g in self.task.groups if groups[g.name].method in methods]

    def halves(self) -> dict[str, Scores]:
        """Return scores from two halves of the samples, by group."""
        found = {
            name: group.halves
            for name, group in self.measured.groups.items()
            if group.halves is not None
        }
        fit = self.task.splits.fit
        if len(fit) < 2:
            return {}
        parts = [self.task.feeds(fit[half::2]) for half in range(2)]
        for method, measure in (("reconstruction", self._local), ("gradient", self._sketched)):
            groups = self.of(method)
            sides = [measure(groups, Batches(feeds, [])) for feeds in parts] if groups else [{}]
            for name in sides[0].keys() & sides[-1].keys():
                found[name] = np.stack([side[name] for side in sides])
        return found

    def agreements(self) -> Iterator[Agreement]:
        """Compare each method with another one on the same channels."""
        for method in ("reconstruction", "gradient", "activation"):
            if groups := self.of(method):
                yield from self._probed(method, groups)
        if groups := self.of("perturbation"):
            every = self.task.batches()
            for other, measure in (("reconstruction", self._local), ("gradient", self._sketched)):
                yield from self._compared(groups, other, measure(groups, every))

    def _compared(
        self, groups: Sequence[Group], other: str, scores: dict[str, Scores]
    ) -> Iterator[Agreement]:
        """Compare exact scores with another method's, where it has any."""
        known = self.measured.groups
        both = {g.name: (known[g.name].scores, scores[g.name]) for g in groups if g.name in scores}
        yield from _agreement("perturbation", other, both, pool=other == "gradient")

    def _local(self, groups: Sequence[Group], batches: Batches) -> dict[str, Scores]:
        """Number every channel's step in the order that reconstruction gives."""
        found = self.task.found
        seen = weighed_readers(
            found.view,
            found.traces[0],
            found.coupling,
            groups,
            batches.fit,
            outputs=self.task.outputs,
            seed=self.task.options.seed,
        )
        known = {g.name: g for g in groups if g.name in seen}
        return {
            name: np.argsort(eliminate(seen[name], group.blocks).order).astype(np.float64)
            for name, group in known.items()
        }

    def _sketched(self, groups: Sequence[Group], batches: Batches) -> dict[str, Scores]:
        found = self.task.found
        asked = Request(
            found.view, found.traces[0], found.coupling, groups, batches, self.task.outputs,
            time_limit=self.task.options.time_limit,
        )  # fmt: skip
        made = gradient.measure(asked, check=False, seed=self.task.options.seed)
        return {name: group.scores for name, group in made.groups.items()}

    def _probed(self, method: str, groups: Sequence[Group]) -> Iterator[Agreement]:
        """Take a few channels of some groups away for good."""
        found, rng = self.task.found, np.random.default_rng(self.task.options.seed)
        each = max(_EACH, _PROBES // len(groups))
        feeds = self.task.feeds(self.task.splits.fit[:_CHECKED])
        picked = [groups[i] for i in rng.permutation(len(groups))[: _PROBES // _EACH]]
        masked = Masked(
            found.view, found.traces[0], found.coupling, picked, self.task.outputs, feeds
        )
        pairs = {}
        for group in picked:
            channels = rng.permutation(group.size)[:each]
            exact = np.array([masked.error(group, [int(c)]) for c in channels])
            known = self.measured.groups[group.name]
            # The steps of a reconstruction each build on those before: its order is what it says.
            said = np.argsort(known.order) if method == "reconstruction" else known.scores
            pairs[group.name] = (said[channels].astype(np.float64), exact)
        yield from _agreement(method, "exact removal", pairs, pool=method == "gradient")


def _agreement(
    first: str, second: str, pairs: Mapping[str, tuple[Scores, Scores]], *, pool: bool
) -> Iterator[Agreement]:
    """Say how two rankings agree, if anything can be said."""
    ranks = compare(pairs, pool=pool)
    if ranks.pooled is not None or ranks.groups:
        yield Agreement(first, second, **asdict(ranks))
