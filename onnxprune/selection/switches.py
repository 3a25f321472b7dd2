"""Allocations one switch away: a group wider by a level, and one or two others narrower for it."""

from collections.abc import Mapping, Sequence
from itertools import combinations

from onnxprune.model.cost import Cost
from onnxprune.selection.allocation import Allocation, Allocator
from onnxprune.selection.budget import Budget

__all__ = ["switches"]

_LEVEL = 16  # levels of a group, where any width is allowed
_PRICED = 64  # switches whose savings are added up in full
_RUNGS = 4  # levels that one group may give up for another

_Move = tuple[dict[str, int], Cost, float]


def switches(allocator: Allocator, now: Mapping[str, int]) -> list[Allocation]:
    """Return allocations around one that keep the budget, the most promising by curve first.

    What a switch leaves of the budget widens other groups again.

    Parameters
    ----------
    allocator : Allocator
        Its widths and budget are kept to; what it has chosen is lost.
    now : mapping of group name to int
        Widths to switch between.

    Returns
    -------
    list of Allocation
        Each once, and never ``now`` itself.
    """
    budget = allocator.budget
    allocator.put(now)
    found: dict[tuple[int, ...], Allocation] = {}
    likely = _likely(_Ladder(allocator), budget, allocator.saved)
    for changes, _, _ in likely[:_PRICED]:
        allocator.put({**now, **changes})
        # Groups that share an axis save other than the sum of what each does.
        if budget.met(allocator.saved):
            allocator.widen()
            found[tuple(allocator.now.values())] = allocator.allocation()
    found.pop(tuple(now[name] for name in allocator.now), None)
    return sorted(found.values(), key=lambda one: one.error)


class _Ladder:
    """Each group's next levels, priced alone."""

    def __init__(self, allocator: Allocator) -> None:
        self.wider: dict[str, _Move] = {}
        self.narrower: dict[str, list[_Move]] = {}
        for name, each in allocator.widths.items():
            here, levels = allocator.now[name], sorted(set(each))
            up = _levels([w for w in levels if w > here], here, levels[-1])[:1]
            down = _levels([w for w in reversed(levels) if w < here], here, levels[-1])[:_RUNGS]
            moves = [self._move(allocator, name, width) for width in (*up, *down)]
            if up:
                self.wider[name] = moves[0]
            self.narrower[name] = moves[len(up) :]

    def _move(self, allocator: Allocator, name: str, width: int) -> _Move:
        error = allocator.error_at(name, width) - allocator.error_at(name, allocator.now[name])
        return {name: width}, allocator.gain(name, width), error


def _levels(widths: Sequence[int], here: int, size: int) -> list[int]:
    """Leave out widths that lie too near to tell them apart; the last one always counts."""
    found: list[int] = []
    for width in widths:
        if abs(width - (found[-1] if found else here)) >= max(size // _LEVEL, 1):
            found.append(width)
    return found or list(widths[-1:])


def _likely(ladder: _Ladder, budget: Budget, saved: Cost) -> list[_Move]:
    """Sort the switches that seem to keep the budget by the error that the curves predict."""
    found = []
    for name, (up, loss, relief) in ladder.wider.items():
        others = [n for n in ladder.narrower if n != name]
        short = []  # whose first level is not enough
        for other in others:
            moves = ladder.narrower[other]
            fits = [m for m in moves if budget.met(saved + loss + m[1])]
            found += [(up | down, loss, relief + error) for down, _, error in fits[:1]]
            if moves and (not fits or fits[0] is not moves[0]):
                short.append(moves[0])
        for one, two in combinations(short, 2):
            if budget.met(saved + loss + one[1] + two[1]):
                found.append((up | one[0] | two[0], loss, relief + one[2] + two[2]))
    return sorted(found, key=lambda move: move[2])
