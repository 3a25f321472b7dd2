"""Measure, then choose: from groups and a budget to the channels that go."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.data.splits import Splits
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.recovery.recover import enough
from onnxprune.runtime.session import Feeds, Session
from onnxprune.selection.allocation import Allocation, allocate
from onnxprune.selection.budget import Budget
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.narrowed import measure_narrowed
from onnxprune.sensitivity.perturbation import Batches, measure
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity

__all__ = ["Selection", "choose", "measure_groups"]

_MULTIPLES = (4, 1)  # tried in this order: convolutions leave their fast layout off multiples of 4
_BATCH = 32
_FEWEST, _MEMORY = 8, 1 << 30  # samples that channels are perturbed on; bytes of cached activations


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """What goes, and how it came about.

    Attributes
    ----------
    allocation : Allocation
    multiple_of : int
        The multiple of all widths that was used in the end.
    steps : mapping of group name to int
        The multiple that each group's width kept to because only such widths pay.
    reached : mapping of quantity to ratio
        Of each budgeted quantity; latency as the table predicts it.
    removed : tuple of (Group, channel numbers)
    """

    allocation: Allocation
    multiple_of: int
    steps: Mapping[str, int]
    reached: Mapping[str, float]
    removed: tuple[tuple[Group, tuple[int, ...]], ...]


def measure_groups(
    found: Analysis, groups: Sequence[Group], splits: Splits, options: Options, progress: Progress
) -> Sensitivity:
    """Measure what every group's channels are worth, within the time limit."""
    progress.stage("measure")
    sizes = found.coupling.collected.sizes
    widths = {g.name: allowed_widths(g, 1, sizes) for g in groups}
    outputs = float_frontier(found.view, found.traces[0])
    every = Batches(_batches(found, splits.fit), _batches(found, splits.select))
    known: dict[str, GroupSensitivity] = {}
    if options.recover and enough(splits):
        # What is refitted afterwards should be chosen for that.
        known = measure_narrowed(
            found.view,
            found.traces[0],
            found.coupling,
            groups,
            every,
            outputs=outputs,
            seed=options.seed,
            progress=progress,
        )
    slow = [group for group in groups if group.name not in known]
    if not slow:
        return Sensitivity(known, 0, 0)
    work = {group.name: group.size * _downstream(found, group) for group in slow}
    count = _samples(found, sum(work.values()), len(splits.fit), options.time_limit)
    measured = measure(
        found.view,
        found.traces[0],
        found.coupling,
        slow,
        Batches(
            _batches(found, splits.fit[:count]),
            _batches(found, splits.select[: max(count, _FEWEST)]),
        ),
        widths,
        outputs=outputs,
        work=work,
        time_limit=options.time_limit,
        progress=progress,
    )
    return replace(measured, groups={**known, **measured.groups})


def choose(
    found: Analysis,
    groups: Sequence[Group],
    measured: Sensitivity,
    budget: Budget,
    options: Options,
    start: Mapping[str, int] | None = None,
) -> Selection:
    """Allocate the budget within widths to start from, at the widest multiple that reaches it.

    For a latency, only widths that pay are allowed; what lies between two of them costs quality
    and saves nothing.
    """
    sizes = found.coupling.collected.sizes
    steps = found.steps if "latency" in budget.ratios else {}
    multiples = (options.multiple_of,) if options.multiple_of else (1,) if steps else _MULTIPLES
    for multiple in multiples:
        widths = {g.name: allowed_widths(g, multiple, sizes, steps) for g in groups}
        most = _without_free(groups, measured, widths, start or {})
        allocation = allocate(groups, measured.groups, widths, found.costs, budget, sizes, most)
        if allocation.met:
            break
    removed = tuple((g, allocation.removed[g.name]) for g in groups if g.name in allocation.removed)
    paying = (
        {g.name: max(steps.get(m.axis.plain, 1) for m in g.members) for g in groups}
        if steps
        else {}
    )
    return Selection(allocation, multiple, paying, budget.reached(allocation.saved), removed)


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


def _batches(found: Analysis, indices: np.ndarray) -> list[Feeds]:
    return list(found.samples.feeds(indices, _BATCH))


def _downstream(found: Analysis, group: Group) -> float:
    """Share of the model's MACs that lie downstream of a group, never quite nothing."""
    view = found.view
    waiting = [member.axis.value for member in group.members]
    seen: set[int] = set()
    while waiting:
        for edge in view.consumers.get(waiting.pop(), ()):
            number = edge.node
            while number >= 0 and number not in seen:  # a body's node makes its owner's outputs
                seen.add(number)
                node = view.by_index[number]
                waiting.extend(node.outputs)
                waiting.extend(v for body in node.bodies.values() for v in body.inputs)
                number = node.owner
    names = {view.by_index[index].name for index in seen}
    below = sum(term.cost.macs for term in found.costs.terms if term.node in names)
    return 0.02 + below / max(found.costs.total.macs, 1.0)


def _samples(found: Analysis, forwards: float, available: int, limit: float) -> int:
    """Choose how many samples to perturb on: what the time limit and memory allow."""
    feed = next(iter(found.samples.feeds(range(min(_FEWEST, len(found.samples))), _FEWEST)))
    session = Session(found.view.real)
    session.run(feed)
    seconds = _seconds(session, feed) / _FEWEST
    trace = found.traces[0]
    batch = max(next(iter(found.probes[0].values())).shape[:1] or (1,))
    activations = sum(
        4 * int(np.prod(shape))
        for value, shape in trace.shapes.items()
        if not found.view.is_constant(value)
    ) / max(batch, 1)
    by_time = 0.5 * limit / max(forwards * seconds, 1e-9)
    by_memory = _MEMORY / max(activations, 1.0)
    return int(np.clip(min(by_time, by_memory), min(_FEWEST, available), available))


def _seconds(session: Session, feed: Feeds) -> float:
    start = time.process_time()
    session.run(feed)
    return time.process_time() - start
