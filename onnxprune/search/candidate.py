"""Candidates: a budget settled, proven and refitted, and what it lost on the selection samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from onnxprune.analysis import Analysis, shorten
from onnxprune.bench.values import BenchReport
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import Splits, drawn
from onnxprune.errors import BudgetError
from onnxprune.layers.branches import StandIn
from onnxprune.lossless.find import Free
from onnxprune.model.cost import CostModel
from onnxprune.options import Options
from onnxprune.plan import Plan, make_plan
from onnxprune.progress import Progress
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.recovery.recover import Recovered, enough
from onnxprune.report import summary
from onnxprune.search import stages
from onnxprune.selection.allocation import Allocation
from onnxprune.selection.budget import Budget
from onnxprune.selection.cuttable import permitted, unmatched
from onnxprune.selection.pace import Pace
from onnxprune.selection.promise import keep_predicted, keep_promises
from onnxprune.selection.settle import Settled, resettle, settle
from onnxprune.sensitivity.values import Sensitivity

__all__ = ["Candidate", "Workshop", "refits", "said"]

_FITTED = 128  # samples that trials are refitted on


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A pruned model that may become the result.

    Attributes
    ----------
    budget : Budget
        That it reaches.
    settled : Settled
    recovered : Recovered
    losses : Losses
        On the selection samples, before these were refitted on.
    timed : BenchReport, optional
        Against the original, where that was part of making it.
    fitted : int
        Samples that there were to refit on.
    """

    budget: Budget
    settled: Settled
    recovered: Recovered
    losses: Losses
    timed: BenchReport | None
    fitted: int

    @property
    def error(self) -> float:
        """Relative squared output error on the selection samples; the drop where none is known."""
        known = self.recovered.after
        return self.losses.drop if known is None else known

    @property
    def predicted(self) -> float:
        """The latency that the table predicts."""
        return self.settled.selection.reached["latency"]

    def __str__(self) -> str:
        """Say what was reached at what drop."""
        return f"drop {self.losses.drop:.4f} at {said(self.settled.selection.reached)}"


def refits(workshop: "Workshop") -> bool:
    """Say whether layers are refitted, and what that brings shows on samples of their own."""
    splits = workshop.splits
    if not workshop.options.recover or workshop.found.samples.synthetic:
        return False
    return enough(splits) and not splits.shared


def said(ratios: Mapping[str, float]) -> str:
    """Write ratios as options."""
    return " ".join(f"--{n.replace('bytes', 'size')} {r:.3f}" for n, r in ratios.items())


@dataclass(frozen=True, slots=True, eq=False)
class Workshop:
    """Everything that a candidate is made from, which may be done as often as the search likes.

    Attributes
    ----------
    found : Analysis
    groups : sequence of Group
        That may be cut.
    measured : Sensitivity
    free : Free
        What goes without changing anything, whatever the budget.
    pace : Pace, optional
        Where a latency is promised.
    splits : Splits
        The certification samples have no part in any candidate.
    judge : Judge
    options : Options
    progress : Progress
    """

    found: Analysis
    groups: Sequence[Group]
    measured: Sensitivity
    free: Free
    pace: Pace | None
    splits: Splits
    judge: Judge
    options: Options
    progress: Progress

    def make(self, budget: Budget, start: Mapping[str, int] | None = None) -> Candidate:
        """Choose, cut, prove, refit and judge.

        Parameters
        ----------
        budget : Budget
        start : mapping of group name to int, optional
            Widths that are not exceeded.

        Raises
        ------
        BudgetError
            If the budget is out of reach.
        VerificationError
            If no cut could be proven.
        """
        settled = self.settled(budget, start)
        return self._judged(budget, settled, self._repaired(settled), None)

    def settled(self, budget: Budget, start: Mapping[str, int] | None = None) -> Settled:
        """Choose, cut and prove; parameters and errors as in `make`."""
        self.progress.stage("cut")
        return settle(self.found, self.groups, self.measured, budget, self.options, start)

    def again(self, candidate: Candidate) -> Candidate:
        """Refit and judge the cut of a candidate once more; as it is if it saw no more samples."""
        settled = candidate.settled
        if candidate.fitted <= len(self.splits.fit):
            return candidate
        return self._judged(candidate.budget, settled, self._repaired(settled), candidate.timed)

    def promised(self, budget: Budget, first: float | None = None) -> Candidate:
        """Make a candidate and time it; until a latency that is measured here is kept.

        Parameters
        ----------
        budget : Budget
        first : float, optional
            The predicted latency to begin with, where another than the budget's is known to do.

        Raises
        ------
        BudgetError
            If the budget is out of reach, or the latency is not kept.
        VerificationError
            If no cut could be proven.
        """
        binding = self.options.latency if self.pace is not None and self.pace.here else None

        def settle_at(to: float | None) -> Settled:
            return self.settled(budget if to is None else budget.with_latency(to))

        def predicted(to: float | None) -> Settled:
            pace, latency = self.pace, self.options.latency
            if to is not None or pace is None or latency is None or len(pace.profiles) == 1:
                return settle_at(to)
            return keep_predicted(latency, settle_at, lambda s: pace.worst(s.proven.keeps))

        settled, repaired, timed = keep_promises(
            binding, predicted, self._repaired, self.time, first
        )
        return self._judged(budget, settled, repaired, timed)

    def shortened(self, gone: Sequence[StandIn]) -> "Workshop":
        """Return a workshop for the model without some residual branches."""
        if not gone:
            return self
        change = self.options.allow_interface_change
        found = shorten(self.found, gone, change_interface=change)
        pace = self.pace.left(found) if self.pace is not None else None
        if pace is not None:
            found = replace(found, costs=CostModel(found.view, found.stated, pace.terms))
        known = self.measured.groups
        groups = [
            g
            for g in permitted(found, self.options)
            if g.name in known and len(known[g.name].order) == g.size
        ]
        return replace(self, found=found, groups=groups, pace=pace)

    def and_shortened(self, candidate: Candidate) -> "list[Workshop]":
        """Return this workshop, and one without the branches that a candidate lacks, if any."""
        gone = candidate.settled.found.gone
        return [self, *([self.shortened(gone)] if gone else [])]

    def of(self, candidate: Candidate) -> "Workshop":
        """Return the workshop that a candidate without some branches comes from."""
        found = candidate.settled.found
        return self if found is self.found else self.shortened(found.gone)

    def resettled(self, candidate: Candidate, allocation: Allocation) -> Candidate:
        """Make a candidate of the same budget with other widths; it is not timed.

        Raises
        ------
        VerificationError
            If the cut could not be proven.
        """
        settled = resettle(candidate.settled, self.groups, candidate.budget, allocation)
        return self._judged(candidate.budget, settled, self._repaired(settled), None)

    def kept(self, candidate: Candidate) -> Candidate:
        """Time a candidate where a latency is promised.

        Raises
        ------
        BudgetError
            If it is not kept.
        """
        pace, latency, settled = self.pace, self.options.latency, candidate.settled
        if pace is None or latency is None:
            return candidate
        if len(pace.profiles) > 1:
            keep_predicted(latency, lambda _: settled, lambda s: pace.worst(s.proven.keeps))
        if not pace.here:
            return candidate
        timed = self.time(settled, candidate.recovered.model)
        if timed.interval is None or timed.interval[1] > latency:
            msg = f"--latency {latency:g} is not kept"
            raise BudgetError(msg)
        return replace(candidate, timed=timed)

    def hurried(self) -> "Workshop":
        """Return a workshop for trials, which are refitted on fewer samples."""
        few = drawn(self.splits.fit, _FITTED, self.options.seed)
        return replace(self, splits=replace(self.splits, fit=few))

    def left(self, budget: Budget) -> Budget:
        """Return what is left of a budget of the original when branches are gone."""
        saved = self.found.original.costs.total - self.found.costs.total
        return replace(budget, gone=saved)

    def notes(self, settled: Settled) -> list[str]:
        """Gather what the stages had to say."""
        gone = [one.branch.value for one in settled.found.gone]
        elsewhere = self.pace is not None and not self.pace.here
        predicted = settled.selection.reached.get("latency", 1.0)
        return [
            *unmatched(self.found, self.options.exclude),
            *([f"whole residual branches gone: {', '.join(gone)}"] if gone else []),
            *(self.pace.notes if self.pace else ()),
            *([f"the table predicts {predicted:.3f} of the time"] if elsewhere else []),
            *summary.notes(self.splits, settled, self.measured),
        ]

    def plan(self, settled: Settled, recovered: Recovered) -> Plan:
        """Write down what goes, so that it can be repeated."""
        return make_plan(
            settled.found,
            settled.proven.removed,
            settled.proven.keeps,
            self.options,
            multiple_of=settled.selection.multiple_of,
            steps=settled.selection.steps,
            refitted=recovered.refitted,
            added=recovered.added,
            rotated=recovered.rotated,
            constants=self.free.constants,
        )

    def time(self, settled: Settled, model: onnx.ModelProto) -> BenchReport:
        """Time a model, made from a cut, against the original."""
        return stages.timed(self.found, model, settled.proven.keeps, self.options, self.progress)

    def raced(self, settled: Settled, other: Settled) -> float:
        """Return the ratio of two cuts' times, of a short race; 1 where a table is the judge."""
        if self.pace is None or not self.pace.here:
            return 1.0
        self.progress.stage("bench")
        pair = [(s.proven.model, s.proven.keeps) for s in (settled, other)]
        return stages.raced(self.found, pair, self.options)

    def held(self, candidate: Candidate) -> Losses:
        """Judge on the certification samples."""
        self.progress.stage("certify")
        keeps = candidate.settled.proven.keeps
        return self.judge.losses(candidate.recovered.model, self.splits.certify, keeps)

    def finished(self, candidate: Candidate) -> Candidate:
        """Refit what may be written with the selection samples, whose say it has had."""
        done = stages.finished(
            candidate.settled.found,
            candidate.settled.proven,
            self.splits,
            self.options,
            self.progress,
            candidate.recovered,
            self.free.constants,
        )
        return replace(candidate, recovered=done)

    def _repaired(self, settled: Settled) -> Recovered:
        return stages.repaired(
            settled.found,
            settled.proven,
            self.splits,
            self.options,
            self.progress,
            self.free.constants,
        )

    def _judged(
        self, budget: Budget, settled: Settled, repaired: Recovered, timed: BenchReport | None
    ) -> Candidate:
        self.progress.stage("judge")
        losses = self.judge.losses(repaired.model, self.splits.select, settled.proven.keeps)
        return Candidate(budget, settled, repaired, losses, timed, len(self.splits.fit))
