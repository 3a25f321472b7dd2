"""Exact perturbation: take one channel away, run what lies downstream, look at the output.

A channel's exit slices are zeroed by a gate in front of the operator that sums the channels up,
which equals zeroing the slices of the initializers behind it. One session serves all channels of
a group, and only the part of the graph downstream of the gates runs, from cached activations.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.rewrite.keeps import Mask, keep_masks
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Feeds, Session, batch_size, with_outputs
from onnxprune.runtime.suffix import Suffix, make_suffix
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.importance import activation_importance
from onnxprune.sensitivity.levels import measured_levels
from onnxprune.sensitivity.order import greedy_order
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.values import GroupSensitivity, Method, Sensitivity

__all__ = ["Batches", "measure"]

_SHARE = 0.8  # of the time limit that planned channel runs may take; the rest is for curves


@dataclass(frozen=True, slots=True)
class Batches:
    """Feeds to perturb channels on (``fit``), and others to measure widths on (``select``)."""

    fit: Sequence[Feeds]
    select: Sequence[Feeds]


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Cached activations of one group's suffix, for both kinds of samples."""

    suffix: Suffix
    fit: Sequence[Feeds]
    select: Sequence[Feeds]


class _Measurer:
    def __init__(
        self, view: View, trace: Trace, coupling: Coupling, batches: Batches, outputs: Sequence[str]
    ) -> None:
        self.view, self.trace, self.coupling, self.batches = view, trace, coupling, batches
        self.outputs = outputs
        session = Session(with_outputs(view.real, outputs))
        self.fit = OutputChange([session.run(feed, outputs) for feed in batches.fit])
        self.select = OutputChange([session.run(feed, outputs) for feed in batches.select])
        self.runs = 0

    def prepare(self, group: Group) -> _Prepared:
        """Make the session of a group and cache what crosses into it."""
        axes = [m.axis for m in group.members if m.axis in self.coupling.contracts]
        gated = gate(self.view, self.trace, self.coupling, axes)
        gated = replace(gated, model=with_outputs(gated.model, self.outputs))
        suffix = make_suffix(gated, self.view.inputs, self.outputs, self.trace.dtypes)
        session = (
            Session(with_outputs(self.view.real, suffix.boundary)) if suffix.boundary else None
        )

        def cached(feed: Feeds) -> Feeds:
            inner = session.run(feed, suffix.boundary) if session is not None else {}
            return {**inner, **{name: feed[name] for name in suffix.inputs}}

        return _Prepared(
            suffix, [cached(f) for f in self.batches.fit], [cached(f) for f in self.batches.select]
        )

    def exits(self, group: Group) -> list[Feeds]:
        """Return what the group's exits read in the original, as far as a run can show it."""
        known = self.coupling.collected.constants | self.view.inner
        axes = [m.axis for m in group.members if m.axis in self.coupling.contracts]
        values = list(dict.fromkeys(axis.value for axis in axes if axis.value not in known))
        if not values:
            return []
        session = Session(with_outputs(self.view.real, values))
        return [session.run(feed, values) for feed in self.batches.fit]

    def change(
        self, ready: _Prepared, group: Group, channels: Sequence[int], *, fit: bool
    ) -> NDArray[np.float32]:
        """Return the output change vector with some channels gone."""
        masks = ready.suffix.gated.feeds(self.masks(group, channels))
        caches, outputs = (ready.fit, self.fit) if fit else (ready.select, self.select)
        self.runs += len(caches)
        return np.concatenate(
            [
                outputs.vector(number, ready.suffix.run(cache, masks))
                for number, cache in enumerate(caches)
            ]
        )

    def masks(self, group: Group, channels: Sequence[int]) -> dict[Axis, Mask]:
        return keep_masks([(group, channels)], self.coupling.collected.sizes)

    def error(self, ready: _Prepared, group: Group, gone: NDArray[np.int64]) -> float:
        """Return the relative squared output change on the selection samples."""
        if not len(gone):
            return 0.0
        change = self.change(ready, group, gone.tolist(), fit=False).astype(np.float64)
        return float((change**2).sum())

    def group(self, group: Group, widths: NDArray[np.int64], deadline: float) -> GroupSensitivity:
        """Order one group's channels and measure its curve."""
        ready = self.prepare(group)
        vectors: list[NDArray[np.float32]] = []
        start = time.monotonic()
        for channel in range(group.size):
            vectors.append(self.change(ready, group, [channel], fit=True))
            spent = time.monotonic() - start
            if start + spent / (channel + 1) * group.size > deadline and channel < group.size - 1:
                break
        if len(vectors) == group.size:
            table = np.stack(vectors)
            order = group.balanced(greedy_order(table))
            scores = (table.astype(np.float64) ** 2).sum(axis=1)
        else:
            scores = activation_importance(self.view, self.coupling, group, self.exits(group))
            order = group.balanced(np.argsort(scores, kind="stable"))
        errors = [self.error(ready, group, order[: group.size - width]) for width in widths]
        method: Method = "perturbation" if len(vectors) == group.size else "activation"
        return GroupSensitivity(order, scores, widths, np.maximum.accumulate(errors), method)


def measure(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    batches: Batches,
    widths: Mapping[str, Sequence[int]],
    *,
    outputs: Sequence[str],
    work: Mapping[str, float],
    time_limit: float,
    progress: Progress,
) -> Sensitivity:
    """Measure groups by exact perturbation, one channel at a time.

    Parameters
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    groups : sequence of Group
    batches : Batches
    widths : mapping of group name to kept widths
        That the group may be narrowed to; at most eight of them are measured.
    outputs : sequence of str
        Values whose change counts.
    work : mapping of group name to float
        What perturbing all channels of a group takes, in units of its own.
    time_limit : float
        Seconds. Each group gets its share by work; a group whose channels do not fit into its
        share (and what groups before it left over) is ordered by activation importance.
    progress : Progress

    Returns
    -------
    Sensitivity
    """
    measurer = _Measurer(view, trace, coupling, batches, outputs)
    start = time.monotonic()
    remaining = sum(work[group.name] for group in groups)
    found: dict[str, GroupSensitivity] = {}
    for group in progress.track(sorted(groups, key=lambda g: work[g.name]), len(groups), "groups"):
        now = time.monotonic()
        left = max(start + _SHARE * time_limit - now, 0.0)
        deadline = now + left * work[group.name] / max(remaining, 1e-9)
        found[group.name] = measurer.group(
            group, measured_levels(widths[group.name], group.size), deadline
        )
        remaining -= work[group.name]
    samples = sum(map(batch_size, batches.fit))
    return Sensitivity(found, samples, measurer.runs)
