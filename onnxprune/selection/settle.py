"""Select, cut and prove; again without the groups that cannot be proven."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.errors import BudgetError, VerificationError
from onnxprune.inspection import obstacles
from onnxprune.options import Options
from onnxprune.rewrite.prove import Proven, prove
from onnxprune.selection.allocation import Allocation
from onnxprune.selection.budget import Budget
from onnxprune.selection.select import Selection, choose
from onnxprune.sensitivity.values import Sensitivity

__all__ = ["Settled", "resettle", "settle"]


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """A selection that reaches the budget, and the proven cut of a model that it makes."""

    selection: Selection
    proven: Proven
    found: Analysis


def settle(
    found: Analysis,
    groups: Sequence[Group],
    measured: Sensitivity,
    budget: Budget,
    options: Options,
    start: Mapping[str, int] | None = None,
) -> Settled:
    """Choose what goes (within widths to start from), cut it and prove the cut.

    Raises
    ------
    BudgetError
        If the budget cannot be met; says the nearest that can be had.
    VerificationError
        If no cut could be proven.
    """
    guilty: dict[str, str] = {}
    rest = list(groups)
    while True:
        selection = choose(found, rest, measured, budget, options, start)
        if not selection.allocation.met:
            _raise_unmet(found, budget, selection, guilty)
        proven = prove(found, selection.removed)
        if not proven.guilty:
            return Settled(selection, replace(proven, guilty=guilty), found)
        guilty |= proven.guilty
        rest = [g for g in groups if g.name not in guilty]
        if not rest:
            msg = f"no cut could be proven: {next(iter(guilty.values()))}"
            raise VerificationError(msg)


def resettle(
    settled: Settled, groups: Sequence[Group], budget: Budget, allocation: Allocation
) -> Settled:
    """Cut and prove another allocation of the same widths to choose from.

    Raises
    ------
    VerificationError
        If the cut could not be proven.
    """
    selection = settled.selection.switched(groups, budget, allocation)
    proven = prove(settled.found, selection.removed)
    if proven.guilty:
        msg = f"no cut could be proven: {next(iter(proven.guilty.values()))}"
        raise VerificationError(msg)
    proven = replace(proven, guilty=settled.proven.guilty)
    return replace(settled, selection=selection, proven=proven)


def _raise_unmet(
    found: Analysis, budget: Budget, selection: Selection, guilty: Mapping[str, str]
) -> None:
    nearest = budget.reached(selection.allocation.saved)
    predicted = " as the latency table predicts" if "latency" in nearest else ""
    asked = " and ".join(f"--{n.replace('bytes', 'size')} {r:g}" for n, r in budget.ratios.items())
    best = ", ".join(f"{n.replace('bytes', 'size')} {r:.3f}" for n, r in nearest.items())
    unproven = f"; {len(guilty)} groups could not be proven" if guilty else ""
    msg = f"{asked} cannot be met: the nearest is {best}{predicted}; {obstacles(found)}{unproven}"
    raise BudgetError(msg, nearest)
