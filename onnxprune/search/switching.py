"""Single levels of width as a last move: switched where the whole model's output comes nearer.

An allocation adds up what groups cost one by one; what they cost together shows in the whole model
only. So groups are switched, one wider for others narrower at the same budget, and the cut model is
put together from weights that are known for every loss: its true output error takes no refit to
see. It misses what layers make up for each other, so the best few are refitted in earnest, and
only the error of refitted models decides.
"""

import time

import numpy as np

from onnxprune.coupling.keeps import keep_masks
from onnxprune.data.splits import drawn
from onnxprune.errors import BudgetError, VerificationError
from onnxprune.layers.recurrent import find_recurrences
from onnxprune.recovery.recover import fitting
from onnxprune.recovery.stitch import Stitcher
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.search.candidate import Candidate, Workshop, refits
from onnxprune.selection.allocation import Allocation, Allocator
from onnxprune.selection.switches import switches
from onnxprune.sensitivity.effort import samples_within
from onnxprune.sensitivity.error import OutputError

__all__ = ["switched"]

_BETTER = 0.98  # of the squared error: less is noise
_TRIED = 96  # cut models whose output is looked at
_ROUND = 24  # of them around one allocation
_FEWEST = 16  # that there must be time for
_REFITTED = 3
_SEEN = 128  # samples that switches are looked at on
_FITTED = 256  # samples that weights are known from
_BATCH = 32
_WALKED, _SPENT = 0.25, 0.5  # of the time limit: until then switches are tried, refits begun


def switched(workshop: Workshop, candidate: Candidate) -> Candidate:
    """Look for other widths within a candidate's budget that stay nearer to the original.

    Parameters
    ----------
    workshop : Workshop
    candidate : Candidate

    Returns
    -------
    Candidate
        The one given where no other has clearly less output error on the selection samples, or
        one that has is not as fast as is promised.
    """
    if not (workshop.options.switches and refits(workshop) and _worthwhile(workshop)):
        return candidate
    workshop.progress.stage("switches")
    # In processor time: a busy machine shall not make another model.
    begun, limit = time.process_time(), workshop.options.time_limit
    workshop = workshop.of(candidate)
    best = candidate
    start = candidate.settled.selection.allocation
    better = _walk(_Around(workshop, candidate), start, begun + _WALKED * limit)
    for allocation in better[:_REFITTED]:
        if time.process_time() > begun + _SPENT * limit:
            break
        try:
            made = workshop.resettled(candidate, allocation)
        except VerificationError:
            continue
        best = min(best, made, key=lambda one: one.error)
    if not best.error < _BETTER * candidate.error:
        return candidate
    try:
        found = workshop.kept(best)
    except BudgetError:
        return candidate
    before, after = candidate.error**0.5, found.error**0.5
    workshop.progress.note(f"switches: output change {before:.3f} -> {after:.3f} (held out)")
    return found


def _worthwhile(workshop: Workshop) -> bool:
    """Whether there is time to look at more than a few cut models."""
    samples = min(len(workshop.splits.select), _SEEN)
    one = samples * workshop.found.costs.total.macs
    return samples_within(_WALKED * workshop.options.time_limit, one) >= _FEWEST


class _Around:
    """What lies around a candidate, and how near to the original it seems."""

    def __init__(self, workshop: Workshop, candidate: Candidate) -> None:
        found, splits, seed = workshop.found, workshop.splits, workshop.options.seed
        self.found = found
        guilty = candidate.settled.proven.guilty
        self.groups = [g for g in workshop.groups if g.name not in guilty]
        budget = candidate.budget
        if "latency" in budget.ratios:
            budget = budget.with_latency(candidate.predicted)
        # What recurrent layers make up for shows in whole sequences only: there, curves rank.
        self.stitcher: Stitcher | None = None
        if not list(find_recurrences(found.view)):
            fit = fitting(found, drawn(splits.fit, _FITTED, seed), seed)
            self.stitcher = Stitcher(found, self.groups, fit, seed=seed)
        held = list(found.samples.feeds(splits.select[:_SEEN], _BATCH))
        self.judge = OutputError.of(found.original, held)
        curves, sizes = workshop.measured.groups, found.coupling.collected.sizes
        widths = candidate.settled.selection.widths
        most = {name: max(each) for name, each in widths.items()}
        self.allocator = Allocator(self.groups, curves, widths, found.costs, budget, sizes, most)

    def error(self, allocation: Allocation) -> float:
        """Return the output error of an allocation, as far as it is known without a refit."""
        if self.stitcher is None:
            return allocation.error
        gone = allocation.removed
        removed = [(g, gone[g.name]) for g in self.groups if g.name in gone]
        keeps = keep_masks(removed, self.found.coupling.collected.sizes)
        try:
            model = cut(self.found.view, self.found.coupling, self.found.traces, keeps)
        except UnrepresentableError:
            return np.inf
        return self.judge.error(self.stitcher.stitched(model, removed, keeps), keeps)


def _walk(around: _Around, start: Allocation, deadline: float) -> list[Allocation]:
    """Switch as long as that helps; return what seems better than the start, the best first."""
    now = start
    tried = [(around.error(start), start)]
    known = {_key(start)}
    while len(tried) <= _TRIED and time.process_time() < deadline:
        before = min(error for error, _ in tried)
        for allocation in switches(around.allocator, now.widths)[:_ROUND]:
            if time.process_time() > deadline:
                break
            if _key(allocation) not in known:
                known.add(_key(allocation))
                tried.append((around.error(allocation), allocation))
        error, now = min(tried, key=lambda pair: pair[0])
        if around.stitcher is None or not error < _BETTER * before:
            break
    better = [pair for pair in tried[1:] if around.stitcher is None or pair[0] < tried[0][0]]
    return [allocation for _, allocation in sorted(better, key=lambda pair: pair[0])]


def _key(allocation: Allocation) -> tuple[int, ...]:
    return tuple(allocation.widths.values())
