"""Whole residual branches as one more move: they go where the rest then stays nearer.

What a branch's loss costs shows only once the layers behind it are refitted and the budget is met
with fewer channels lost elsewhere. So the few branches that promise most are tried in earnest, on
fewer samples; the best of them stays out, until none helps any more.
"""

import time
from collections.abc import Sequence

import numpy as np

from onnxprune.analysis import Analysis
from onnxprune.errors import BudgetError, VerificationError
from onnxprune.layers.branches import StandIn, dead_nodes, find_branches, stand_ins, without
from onnxprune.model.cost import Cost
from onnxprune.model.view import Node
from onnxprune.search.candidate import Candidate, Workshop, refits
from onnxprune.selection.budget import Budget
from onnxprune.selection.cuttable import matched
from onnxprune.sensitivity.effort import samples_within
from onnxprune.sensitivity.error import OutputError

__all__ = ["shallower", "spared"]

_TRIED = 3  # branches per round
_SEEN = 64  # samples that branches are ranked on, fewer where that takes much of the time
_FEWEST, _SHARE = 8, 0.25  # of them; of the time limit
_BATCH = 8
_LEAST = 0.01  # share of the budgeted quantity that a branch must hold
_BETTER = 0.98  # of the squared error: what is given up must bring something


def shallower(workshop: Workshop, budget: Budget, candidate: Candidate) -> Candidate:
    """Look for a candidate without some residual branches that is nearer to the original.

    Parameters
    ----------
    workshop : Workshop
    budget : Budget
    candidate : Candidate
        With all branches, within the budget.

    Returns
    -------
    Candidate
        The one given where no other has less output error on the selection samples.
    """
    gone = spared(workshop, budget, candidate)
    if not gone:
        return candidate
    made = workshop.shortened(gone)
    first = candidate.predicted if "latency" in budget.ratios else None
    try:
        shorter = made.promised(made.left(budget), first)
    except (BudgetError, VerificationError):
        return candidate
    return shorter if shorter.error < candidate.error else candidate


def spared(workshop: Workshop, budget: Budget, candidate: Candidate | None) -> list[StandIn]:
    """Look for residual branches without which a budget leaves a model nearer to the original.

    Parameters
    ----------
    workshop : Workshop
    budget : Budget
    candidate : Candidate, optional
        With all branches, within the budget; None if there is none: then branches go until there
        is one without them, and further ones as otherwise.

    Returns
    -------
    list of StandIn
        Empty where all branches are worth their cost.
    """
    if not _worthwhile(workshop):
        return []
    workshop.progress.stage("branches")
    # In processor time: a busy machine shall not make another model.
    deadline = time.process_time() + workshop.options.time_limit
    if candidate is not None and "latency" in budget.ratios:
        budget = budget.with_latency(candidate.predicted)
    ranked = _ranked(workshop, budget)
    trial = workshop.hurried()
    gone: list[StandIn] = []
    best = trial.again(candidate).error if candidate is not None and ranked else np.inf
    while ranked and time.process_time() < deadline:
        tried: list[tuple[float, StandIn]] = []
        for one in ranked[:_TRIED]:
            if time.process_time() < deadline:
                tried.append((_error(trial, budget, [*gone, one]), one))
        error, chosen = min(tried, key=lambda pair: pair[0])
        if best < np.inf and not error < _BETTER * best:
            break
        best, gone = error, [*gone, chosen]
        ranked = [one for one in ranked if one is not chosen]
    return gone


def _error(workshop: Workshop, budget: Budget, gone: Sequence[StandIn]) -> float:
    """Return the output error of a candidate without some branches; infinite if there is none."""
    made = workshop.shortened(gone)
    try:
        return made.make(made.left(budget)).error
    except (BudgetError, VerificationError):
        return np.inf


def _worthwhile(workshop: Workshop) -> bool:
    """Whether branches may go: what they cost is known, and a refit makes up for them."""
    return workshop.options.branches and refits(workshop)


def _ranked(workshop: Workshop, budget: Budget) -> list[StandIn]:
    """Sort branches by what their loss changes at once, for what it saves; leave out the rest."""
    found, splits = workshop.found, workshop.splits
    branches = find_branches(found.view, found.traces[0], found.coupling)
    if not branches:
        return []
    limit, macs = _SHARE * workshop.options.time_limit, len(branches) * found.costs.total.macs
    count = int(np.clip(samples_within(limit, macs), _FEWEST, _SEEN))
    seen = list(found.samples.feeds(splits.fit[:_SEEN], _BATCH))
    held = list(found.samples.feeds(splits.select[:count], _BATCH))
    change = OutputError.of(found, held)
    scored = []
    for one in stand_ins(found.view, branches, seen):
        shorter = without(found.view.model, [one])
        dead = dead_nodes(found.view, shorter)
        saved = _share(found, budget, dead)
        values = {value for node in dead for value in (*node.inputs, *node.outputs)}
        if saved >= _LEAST and not matched(values, dead, workshop.options.exclude):
            scored.append((change.error(shorter) / saved, one))
    return [one for _, one in sorted(scored, key=lambda pair: pair[0])]


def _share(found: Analysis, budget: Budget, dead: Sequence[Node]) -> float:
    """Return the least share of a budgeted quantity that the nodes of a branch hold."""
    names, values = {n.name for n in dead}, {v for n in dead for v in n.outputs}
    values |= {v for n in dead for v in n.inputs if found.view.is_constant(v)}
    saved = Cost(0, 0, 0)
    for term in found.costs.terms:
        if term.node in names or (not term.node and term.axes and term.axes[0].value in values):
            saved += term.cost
    return 1.0 - max(budget.reached(saved).values())
