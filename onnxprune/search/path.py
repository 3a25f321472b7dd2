"""A path of nested plans towards a budget, and the last candidate on it that keeps a drop."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxprune.errors import BudgetError
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.selection.budget import Budget
from onnxprune.selection.select import choose

__all__ = ["last_allowed", "nested_plans", "walk"]

_STEP = 0.025  # of the ratio, between neighbours on the path
_FOLDS = 5
_FEWEST = 3  # candidates to fall back on, where there is room for so many


def walk(
    workshop: Workshop, end: Budget, promise: Promise, *, beyond: Budget | None = None
) -> list[Candidate]:
    """Bisect the path from the original to a budget for the last plan that may keep a promise.

    The path is fixed before: its plans are nested, each made from the one before by narrowing
    groups further. Every candidate is refitted and judged on the selection samples.

    Parameters
    ----------
    workshop : Workshop
    end : Budget
        The far end; what of it is out of reach is left out.
    promise : Promise
    beyond : Budget, optional
        Where the path begins, which is left out; by default at the original.

    Returns
    -------
    list of Candidate
        All that were made, from the least to the most pruned.
    """
    count = workshop.judge.losses_count(workshop.splits.certify)
    plans = nested_plans(workshop, end)
    if beyond is not None:
        plans = [plan for plan in plans if plan[0].smaller(beyond)]
    made: dict[int, Candidate] = {}

    def hopeful(k: int) -> bool:
        try:
            made[k] = workshop.make(*plans[k])
        except BudgetError:  # a group on the way could not be proven, the rest is not enough
            return False
        workshop.progress.note(f"{made[k]} (allowed: {promise.limit:g}, selection samples)")
        return promise.hopeful(made[k].losses, count)

    low, high = -1, len(plans)
    good = []
    while high - low > 1:
        middle = (low + high) // 2
        if hopeful(middle):
            low = middle
            good.append(middle)
        else:
            high = middle
    # Milder ones, should the certification samples speak against these.
    missing = _FEWEST - len(good) if good else 0
    for part in range(1, missing + 1):
        milder = round(min(good) * part / (missing + 1))
        if milder not in made:
            hopeful(milder)
    return [made[k] for k in sorted(made)]


def _budgets(end: Budget) -> list[Budget]:
    count = max(1, round((1 - min(end.ratios.values())) / _STEP))
    shares = (k / count for k in range(1, count + 1))
    return [
        replace(end, ratios={name: 1 - share * (1 - r) for name, r in end.ratios.items()})
        for share in shares
    ]


def nested_plans(workshop: Workshop, end: Budget) -> list[tuple[Budget, dict[str, int]]]:
    """Return the budgets on the way, as far as they are reachable, and what each starts from.

    Parameters
    ----------
    workshop : Workshop
    end : Budget

    Returns
    -------
    list of (Budget, mapping of group name to int)
        Every plan keeps within the widths of the one before, and is narrower somewhere.
    """
    widths = {group.name: group.size for group in workshop.groups}
    plans = []
    for budget in _budgets(end):
        start = dict(widths)
        chosen = choose(
            workshop.found, workshop.groups, workshop.measured, budget, workshop.options, start
        )
        if not chosen.allocation.met:
            break
        widths = dict(chosen.allocation.widths)
        if widths != start:
            plans.append((budget, start))
    return plans


def last_allowed(path: Sequence[Losses], limit: float, *, seed: int) -> int:
    """Choose the last candidate of a path that keeps a limit, by cross-validation.

    The one that looks good on the samples it was chosen on looks too good. What choosing by a
    limit really brings is seen on samples left out of the choice; where that passes the limit, a
    stricter one is chosen by.

    Parameters
    ----------
    path : sequence of Losses
        On the selection samples, from the least to the most pruned.
    limit : float
    seed : int
        Of the folds.

    Returns
    -------
    int
        Position on the path; -1 where none is allowed.
    """
    if not path:
        return -1
    if any(losses.values is None for losses in path):
        return _last(np.array([[losses.drop] for losses in path]), limit)
    table = np.stack([losses.values for losses in path if losses.values is not None])
    count = table.shape[1]
    folds = np.random.default_rng(seed).permutation(count) % min(_FOLDS, count)
    levels = {limit, *(float(mean) for mean in table.mean(axis=1) if mean <= limit)}
    for level in sorted(levels, reverse=True):
        if _left_out(table, folds, level) <= limit:
            return _last(table, level)
    return -1


def _last(table: np.ndarray, level: float) -> int:
    """Walk on while the mean loss keeps within a level."""
    above = np.flatnonzero(table.mean(axis=1) > level)
    return int(above[0]) - 1 if len(above) else len(table) - 1


def _left_out(table: np.ndarray, folds: np.ndarray, level: float) -> float:
    """Return the mean loss of what the other folds choose."""
    if len(np.unique(folds)) < 2:
        return 0.0
    losses = np.zeros(table.shape[1])
    for fold in np.unique(folds):
        inside = folds == fold
        chosen = _last(table[:, ~inside], level)
        if chosen >= 0:
            losses[inside] = table[chosen, inside]
    return float(losses.mean())
