"""As fast a candidate whose channels were chosen by another price than time.

An allocation by predicted times is drawn to where the prediction is too good, and keeps to widths
that pay. One by multiply-accumulates knows neither; where both are held to the same clock, now one
and now the other stays nearer to the original. So all are tried, and the samples decide.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnxprune.errors import BudgetError, VerificationError
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.selection.budget import Budget

__all__ = ["repriced"]

_PRICES: Sequence[Mapping[str, float]] = ({"macs": 1.0}, {"macs": 0.5, "latency": 0.5})
_BETTER = 0.98  # of the squared error: a change must be worth making


def repriced(workshop: Workshop, budget: Budget, candidate: Candidate) -> Candidate:
    """Look for a candidate within the budget that is nearer to the original for another price.

    Parameters
    ----------
    workshop : Workshop
    budget : Budget
    candidate : Candidate
        Within the budget, its channels chosen by time.

    Returns
    -------
    Candidate
        The one given where there is no latency to keep, or no other stays nearer. The other's
        budget names its price.
    """
    if "latency" not in budget.ratios or workshop.splits.shared:
        return candidate
    workshop.progress.stage("prices")
    # In processor time: a busy machine shall not make another model.
    deadline = time.process_time() + workshop.options.time_limit
    trial = workshop.hurried()
    best, found = trial.again(candidate), None
    for price in _PRICES:
        if time.process_time() >= deadline:
            break
        made = _as_fast(trial, replace(budget, price=price), candidate)
        if made is not None and made.error < _BETTER * best.error:
            best = found = made
    if found is None:
        return candidate
    try:
        other = workshop.promised(replace(budget, price=found.budget.price), found.predicted)
    except (BudgetError, VerificationError):
        return candidate
    return other if other.error < candidate.error else candidate


def _as_fast(trial: Workshop, budget: Budget, candidate: Candidate) -> Candidate | None:
    """Make a candidate at another price that takes about as long, by a short race."""
    try:
        settled = trial.settled(budget.with_latency(candidate.predicted))
        ratio = trial.raced(settled, candidate.settled)
        return trial.make(budget.with_latency(settled.selection.reached["latency"] / ratio))
    except (BudgetError, VerificationError):
        return None
