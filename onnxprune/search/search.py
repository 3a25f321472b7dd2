"""From a budget, a promise or both to the one candidate that is written."""

from dataclasses import dataclass, replace
from typing import NoReturn

from onnxprune.errors import BudgetError
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise
from onnxprune.search.candidate import Candidate, Workshop, said
from onnxprune.search.depth import shallower, spared
from onnxprune.search.path import last_allowed, walk
from onnxprune.search.pricing import repriced
from onnxprune.search.switching import switched
from onnxprune.selection.budget import Budget, farthest

__all__ = ["Chosen", "search"]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What the search ended with.

    Attributes
    ----------
    candidate : Candidate
    held : tuple of Losses
        On the certification samples: of all candidates on the path up to this one.
    notes : tuple of str
        What the user should know about it.
    """

    candidate: Candidate
    held: tuple[Losses, ...]
    notes: tuple[str, ...]


def search(
    workshop: Workshop, budget: Budget | None, promise: Promise, *, objective: str = "macs"
) -> Chosen:
    """Find the candidate to write.

    Parameters
    ----------
    workshop : Workshop
    budget : Budget, optional
        To reach; without it the search goes as far as the promise allows.
    promise : Promise
    objective : str
        What becomes small where there is no budget; if it is ``latency``, the result is timed,
        and refused where it is not measurably faster.

    Returns
    -------
    Chosen

    Raises
    ------
    BudgetError
        If no candidate keeps the promise; says the nearest that do.
    """
    if budget is None:
        path = _farther(workshop, farthest(workshop.found.costs.total, objective), promise)
    else:
        path = _exactly(workshop, budget, promise)
    path = [workshop.finished(c) for c in path]
    held = [workshop.held(c) for c in path]
    count, reason = promise.kept(held)
    if count == 0 and budget is not None:
        _conflict(workshop, budget, promise, path[0], reason)
    if count == 0:
        msg = f"{_limit(promise)} cannot be kept: at {_at(path[0])} {reason}; nothing is written"
        raise BudgetError(msg)
    notes = []
    if count < len(path):
        notes.append(f"not {_at(path[count])}, which the selection samples allowed: {reason}")
    candidate = path[count - 1]
    if budget is None and objective == "latency":
        candidate = _faster(workshop, candidate, promise)
    return Chosen(candidate, tuple(held[:count]), tuple(notes))


def _faster(workshop: Workshop, candidate: Candidate, promise: Promise) -> Candidate:
    """Time what a drop allows; refuse it if it is not measurably faster here."""
    timed = workshop.time(candidate.settled, candidate.recovered.model)
    here = workshop.pace is None or workshop.pace.here
    if here and timed.verdict != "faster":
        msg = (
            f"{_limit(promise)} allows nothing that is faster: at {_at(candidate)} as predicted, "
            f"the clock shows {timed.verdict}; give --macs, --params or --size a ratio to prune "
            "for less work or memory"
        )
        raise BudgetError(msg)
    return replace(candidate, timed=timed)


def _exactly(workshop: Workshop, budget: Budget, promise: Promise) -> list[Candidate]:
    candidate = _nearest(workshop, budget)
    if promise.limit is not None and candidate.losses.drop > promise.limit:
        lost = candidate.losses
        reason = f"on {lost.samples} selection samples the drop is {lost.drop:.4f}"
        _conflict(workshop, budget, promise, candidate, reason)
    return [candidate]


def _nearest(workshop: Workshop, budget: Budget) -> Candidate:
    """Make the candidate of a budget that is nearest to the original, at any price and depth."""
    try:
        candidate = workshop.promised(budget)
    except BudgetError:
        gone = spared(workshop, budget, None)
        if not gone:
            raise
        shorter = workshop.shortened(gone)
        return shorter.promised(shorter.left(budget))
    candidate = repriced(workshop, budget, candidate)
    candidate = shallower(workshop, candidate.budget, candidate)
    return switched(workshop, candidate)


def _farther(workshop: Workshop, budget: Budget, promise: Promise) -> list[Candidate]:
    """Walk as far as the drop allows, and on from there without branches that can be spared."""
    made = walk(workshop, budget, promise)
    path = _allowed(workshop, made, promise)
    last = path[-1].budget if path else None
    forbidden = [c for c in made if last is None or c.budget.smaller(last)]
    for turn in forbidden[:1] or path[-1:]:
        if gone := spared(workshop, turn.budget, turn):
            shorter = workshop.shortened(gone)
            beyond = walk(shorter, shorter.left(budget), promise, beyond=last)
            path = _allowed(workshop, [*path, *beyond], promise)
    if not path:
        nearest = f": the nearest, {made[0]}" if made else ": no width that groups may have is near"
        msg = f"{_limit(promise)} leaves nothing to cut{nearest}; nothing is written"
        raise BudgetError(msg)
    switch = _allowed(workshop, [*path[:-1], switched(workshop, path[-1])], promise)
    return switch if len(switch) == len(path) else path


def _allowed(workshop: Workshop, made: list[Candidate], promise: Promise) -> list[Candidate]:
    """Return the path up to the last candidate that the selection samples allow."""
    path = _hopeful(workshop, made, promise)
    seed = workshop.options.seed
    return path[: 1 + last_allowed([c.losses for c in path], promise.limit or 0.0, seed=seed)]


def _hopeful(workshop: Workshop, made: list[Candidate], promise: Promise) -> list[Candidate]:
    """Leave out what the selection samples speak against."""
    count = workshop.judge.losses_count(workshop.splits.certify)
    return [candidate for candidate in made if promise.hopeful(candidate.losses, count)]


def _conflict(
    workshop: Workshop, budget: Budget, promise: Promise, candidate: Candidate, reason: str
) -> NoReturn:
    """Say what can be had: the drop at the ratio, and the ratio at the drop."""
    made = [c for s in workshop.and_shortened(candidate) for c in walk(s, s.left(budget), promise)]
    within = [c for c in _hopeful(workshop, made, promise) if c.budget.ratios != budget.ratios]
    nearest = "nor at any nearer"
    if within:
        best = min(within, key=lambda c: max(c.budget.ratios.values()))
        nearest = f"within the limit the nearest is {_at(best)}"
    msg = (
        f"{said(budget.ratios)} with {_limit(promise)} cannot be met: at {_at(candidate)} {reason};"
        f" {nearest}; nothing is written"
    )
    raise BudgetError(msg)


def _limit(promise: Promise) -> str:
    return f"--max-drop {promise.limit:g} ({promise.metric})"


def _at(candidate: Candidate) -> str:
    return said(candidate.settled.selection.reached)
