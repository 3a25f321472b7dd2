"""How wide each group stays: a knapsack over measured error curves and true costs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Mask, keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.model.cost import Cost, CostModel, fractions
from onnxprune.selection.budget import Budget
from onnxprune.sensitivity.values import GroupSensitivity

__all__ = ["Allocation", "Allocator", "allocate"]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Kept channels per group.

    Attributes
    ----------
    widths : mapping of group name to int
        Every group; those that stay whole at their size.
    removed : mapping of group name to tuple of int
        Channel numbers that go, only groups that shrink.
    saved : Cost
    error : float
        Sum of the groups' measured errors, a prediction of the joint one.
    met : bool
        Whether the budget is reached.
    """

    widths: Mapping[str, int]
    removed: Mapping[str, tuple[int, ...]]
    saved: Cost
    error: float
    met: bool


class Allocator:
    """Widths that are being chosen, with what they save and cost.

    Parameters
    ----------
    groups, curves, widths, costs, budget, sizes, start
        As in :func:`allocate`.

    Attributes
    ----------
    now : dict of group name to int
        Kept channels.
    saved : Cost
    error : float
        Summed over groups.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        curves: Mapping[str, GroupSensitivity],
        widths: Mapping[str, Sequence[int]],
        costs: CostModel,
        budget: Budget,
        sizes: Mapping[Axis, int],
        start: Mapping[str, int],
    ) -> None:
        self.groups = {g.name: g for g in groups}
        self.curves, self.widths, self.costs = curves, widths, costs
        self.budget, self.sizes = budget, sizes
        self.most = {g.name: start.get(g.name, g.size) for g in groups}
        self.terms = {g.name: costs.touched({m.axis.plain: 0 for m in g.members}) for g in groups}
        self.sharing = {
            name: [other for other in self.groups if self.terms[name] & self.terms[other]]
            for name in self.groups
        }
        self.axes = {
            name: {axis for number in terms for axis in costs.terms[number].axes}
            for name, terms in self.terms.items()
        }
        self.masks: dict[tuple[str, int], dict[Axis, Mask]] = {}
        self.put(self.most)

    def put(self, widths: Mapping[str, int]) -> None:
        """Go on from other widths."""
        self.now = dict(widths)
        self.saved = self.price(self.now)
        self.error = sum(self.error_at(name, width) for name, width in self.now.items())

    def allocation(self) -> Allocation:
        """Return what is chosen now."""
        removed = {
            name: tuple(sorted(int(c) for c in self.curves[name].order[: group.size - width]))
            for name, group in self.groups.items()
            if (width := self.now[name]) < group.size
        }
        met = self.budget.met(self.saved)
        return Allocation(dict(self.now), removed, self.saved, self.error, met)

    def masks_of(self, name: str, width: int) -> dict[Axis, Mask]:
        """Return what a group keeps of its axes at a width."""
        key = (name, width)
        if key not in self.masks:
            gone = self.curves[name].order[: self.groups[name].size - width]
            self.masks[key] = keep_masks([(self.groups[name], gone)], self.sizes)
        return self.masks[key]

    def error_at(self, name: str, width: int) -> float:
        """Return a group's error at a width, by its curve."""
        curve = self.curves[name]
        return float(np.interp(-width, -curve.widths, curve.errors))

    def price(self, changes: Mapping[str, int]) -> Cost:
        """Price the terms that some groups touch, with the groups at other widths."""
        near = {n for name in changes for n in self.sharing[name]} | set(changes)
        terms = set().union(*(self.terms[name] for name in changes))
        axes = set().union(*(self.axes[name] for name in changes))
        joint: dict[Axis, Mask] = {}
        for name in near:
            masks = self.masks_of(name, changes.get(name, self.now[name]))
            for axis in axes.intersection(masks):
                joint[axis] = joint[axis] & masks[axis] if axis in joint else masks[axis]
        return self.costs.saved(fractions(joint), terms)

    def gain(self, name: str, width: int) -> Cost:
        """What narrowing one group further saves, everything else as it is now."""
        return self.price({name: width}) - self.price({name: self.now[name]})

    def options(self, name: str) -> Iterator[tuple[int, Cost, float]]:
        """Narrower widths of a group with what they save and cost in error."""
        here, price = self.error_at(name, self.now[name]), self.price({name: self.now[name]})
        for width in _thinned([w for w in self.widths[name] if w < self.now[name]]):
            yield width, self.price({name: width}) - price, self.error_at(name, width) - here

    def shrink(self) -> bool:
        """Narrow greedily by saving per error until the budget is met."""
        table = {name: list(self.options(name)) for name in self.groups}
        while not self.budget.met(self.saved):
            best: tuple[float, str, int, Cost] | None = None
            for name, rows in table.items():
                for width, gain, error in rows:
                    value = self.budget.progress(self.saved, gain)
                    score = value / (error + 1e-12)
                    if value > 0 and (best is None or score > best[0]):
                        best = (score, name, width, gain)
            if best is None:
                return False
            self.move(best[1], best[2], best[3])
            for name in self.sharing[best[1]] or [best[1]]:
                table[name] = list(self.options(name))
        return True

    def move(self, name: str, width: int, gain: Cost) -> None:
        """Bring a group to another width, at what that saves."""
        self.error += self.error_at(name, width) - self.error_at(name, self.now[name])
        self.now[name] = width
        self.saved += gain

    def widen(self) -> None:
        """Give back what the last steps took beyond the budget, dearest error first."""
        improved = True
        while improved:
            improved = False
            moves = []
            for name, most in self.most.items():
                for width in (w for w in self.widths[name] if self.now[name] < w <= most):
                    relief = self.error_at(name, self.now[name]) - self.error_at(name, width)
                    moves.append((relief, name, width))
            for relief, name, width in sorted(moves, reverse=True):
                if relief <= 0:
                    break
                loss = self.gain(name, width)
                if self.budget.met(self.saved + loss):
                    self.move(name, width, loss)
                    improved = True
                    break


def _thinned(widths: list[int], most: int = 12) -> list[int]:
    """Look at the nearest widths one by one, at those further away in strides."""
    if len(widths) <= most:
        return widths
    picks = np.unique(np.geomspace(1, len(widths), most).round().astype(int)) - 1
    return [widths[i] for i in picks]


def allocate(
    groups: Sequence[Group],
    curves: Mapping[str, GroupSensitivity],
    widths: Mapping[str, Sequence[int]],
    costs: CostModel,
    budget: Budget,
    sizes: Mapping[Axis, int],
    start: Mapping[str, int] | None = None,
) -> Allocation:
    """Choose kept widths that meet a budget at the least summed error.

    Greedy on saving per error with look-ahead over all narrower widths (so that a curve's flat
    part counts as a whole), then widening wherever the budget leaves room. Savings are priced on
    the resulting axes: groups of different readings share some, and products do not add up.

    Parameters
    ----------
    groups : sequence of Group
        That may be cut.
    curves : mapping of group name to GroupSensitivity
    widths : mapping of group name to allowed kept widths
    costs : CostModel
    budget : Budget
    sizes : mapping of Axis to int
    start : mapping of group name to int, optional
        Widths to begin with and never exceed, so that plans may be nested; all channels where
        absent.

    Returns
    -------
    Allocation
        With ``met`` False and everything as narrow as allowed if the budget is out of reach.
    """
    allocator = Allocator(groups, curves, widths, costs, budget, sizes, start or {})
    if allocator.shrink():
        allocator.widen()
    return allocator.allocation()
