"""From measured groups and a budget to the channels that go."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis
from onnxprune.model.weights import plain
from onnxprune.options import Options
from onnxprune.selection.allocation import Allocation, allocate
from onnxprune.selection.budget import Budget
from onnxprune.selection.widths import allowed_widths, paying_widths
from onnxprune.sensitivity.values import Sensitivity

__all__ = ["Selection", "choose", "coarse_axes"]

# What convolutions, depthwise ones most, and products with a weight are slow off multiples of;
# recurrent layers and Gemm are not (`bench --table` shows both).
_COARSE = 4
_FINE = frozenset({"LSTM", "GRU", "RNN", "Gemm"})


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What goes, and how it came about.

    Attributes
    ----------
    allocation : Allocation
    multiple_of : int
        The multiple that was used in the end, of the widths that should be one.
    steps : mapping of group name to int
        The multiple that each group's width kept to because only such widths pay.
    reached : mapping of quantity to ratio
        Of each budgeted quantity; latency as the table predicts it.
    removed : tuple of (Group, channel numbers)
    widths : mapping of group name to sequence of int
        What was to choose from.
    """

    allocation: Allocation
    multiple_of: int
    steps: Mapping[str, int]
    reached: Mapping[str, float]
    removed: tuple[tuple[Group, tuple[int, ...]], ...]
    widths: Mapping[str, Sequence[int]]

    def switched(self, groups: Sequence[Group], budget: Budget, to: Allocation) -> "Selection":
        """Return the selection with another allocation of the same widths to choose from."""
        reached = budget.reached(to.saved)
        return replace(self, allocation=to, reached=reached, removed=_removed(groups, to))


def choose(
    found: Analysis,
    groups: Sequence[Group],
    measured: Sensitivity,
    budget: Budget,
    options: Options,
    start: Mapping[str, int] | None = None,
) -> Selection:
    """Allocate the budget within widths to start from, at the widest multiple that reaches it.

    For a latency, only widths that pay are allowed while these reach it; what lies between two of
    them costs quality and saves nothing.
    Without a latency nothing is timed: the same model comes out on every machine.
    """
    sizes = found.coupling.collected.sizes
    timed = budget.in_steps
    for ladder in _ladders(found, groups, options, budget):
        multiple, single, widths = ladder
        most = _without_free(groups, measured, widths, start or {})
        allocation = allocate(groups, measured.groups, widths, found.costs, budget, sizes, most)
        if allocation.met:
            break
    paying = (
        {g.name: max(single.get(m.axis.plain, 1) for m in g.members) for g in groups}
        if timed
        else {}
    )
    left = {name: [w for w in each if w <= most[name]] for name, each in widths.items()}
    reached, removed = budget.reached(allocation.saved), _removed(groups, allocation)
    return Selection(allocation, multiple, paying, reached, removed, left)


def _removed(
    groups: Sequence[Group], allocation: Allocation
) -> tuple[tuple[Group, tuple[int, ...]], ...]:
    gone = allocation.removed
    return tuple((g, gone[g.name]) for g in groups if g.name in gone)


_Ladder = tuple[int, Mapping[Axis, int], Mapping[str, Sequence[int]]]


def _ladders(
    found: Analysis, groups: Sequence[Group], options: Options, budget: Budget
) -> Iterator[_Ladder]:
    """Yield widths to try in turn, with the multiples they keep to: all of them, and by axis."""
    sizes = found.coupling.collected.sizes
    steps = found.steps if budget.in_steps else {}

    def ladder(multiple: int, every: int, single: Mapping[Axis, int]) -> _Ladder:
        return multiple, single, {g.name: allowed_widths(g, every, sizes, single) for g in groups}

    if options.multiple_of:
        yield ladder(options.multiple_of, options.multiple_of, steps)
    elif steps:
        yield 1, steps, {g.name: paying_widths(g, sizes, steps) for g in groups}
        below = {axis: min(step, _COARSE) for axis, step in steps.items()}
        if below != steps:
            yield ladder(1, 1, below)
    else:
        yield ladder(_COARSE, 1, coarse_axes(found))
        if not budget.price:  # another price is no reason for widths that are slow
            yield ladder(1, 1, {})


def coarse_axes(found: Analysis) -> dict[Axis, int]:
    """Return the axes of operators that are slow off a multiple, with that multiple."""
    fine = {node.name for node in found.view.nodes if plain(node).op_type in _FINE}
    return {
        axis: _COARSE
        for term in found.costs.terms
        if term.cost.macs and term.node not in fine
        for axis in term.axes
    }


def _without_free(
    groups: Sequence[Group],
    measured: Sensitivity,
    widths: Mapping[str, Sequence[int]],
    start: Mapping[str, int],
) -> dict[str, int]:
    """Begin as narrow as a group gets at no error, whatever the budget."""
    most = {}
    for group in groups:
        left = group.size - measured.free.get(group.name, 0)
        narrow = min(width for width in widths[group.name] if width >= left)
        most[group.name] = min(narrow, start.get(group.name, group.size))
    return most
