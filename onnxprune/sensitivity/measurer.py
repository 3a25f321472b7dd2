"""One group after the other, perturbed exactly: take a channel away, look at the output.

A channel's exit slices are zeroed by a gate in front of the operator that sums the channels up,
which equals zeroing the slices of the initializers behind it. One session serves all channels of
a group, and only the part of the graph downstream of the gates runs, from cached activations of
one batch at a time, for the samples that the channel is not silent on.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Mask, keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.runtime.carried import carried
from onnxprune.runtime.delta import shortened
from onnxprune.runtime.gates import Gated, gate
from onnxprune.runtime.session import Feeds, RunFailedError, Session, batch_size, with_outputs
from onnxprune.runtime.stacked import Stack, by_row, close, make_stack
from onnxprune.runtime.suffix import Suffix, make_suffix
from onnxprune.sensitivity.importance import activation_importance
from onnxprune.sensitivity.levels import measured_levels
from onnxprune.sensitivity.order import greedy_order
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.request import Request
from onnxprune.sensitivity.silence import (
    Exits,
    Heard,
    Outputs,
    Removals,
    exits_of,
    heard,
    rows_of,
)
from onnxprune.sensitivity.values import GroupSensitivity

__all__ = ["FEW", "Measurer"]

FEW = 4  # samples that are too few to fill a run
_ROWS = 32  # that are enough


@dataclass(frozen=True, eq=False)
class _Prepared:
    """One group's suffix, and what gives the activations that cross into it.

    ``exits`` says where the group can be seen to be silent, ``original`` gives what is read there.
    ``rows`` are the gates where each row can have a mask of its own: samples are few.
    """

    suffix: Suffix
    original: Session | None
    exits: Exits | None
    rows: Gated | None

    def values(self, feed: Feeds) -> Feeds:
        """Run the original as far as is needed."""
        return {**feed, **(self.original.run(feed) if self.original is not None else {})}


class Measurer:
    """Measures one group after the other.

    Parameters
    ----------
    asked : Request
        Its order of groups is what they are numbered by.
    """

    def __init__(self, asked: Request) -> None:
        self.asked = asked
        self.view, self.trace, self.coupling = asked.view, asked.trace, asked.coupling
        self.outputs, self.batches = tuple(asked.outputs), asked.batches
        session = Session(with_outputs(self.view.real, self.outputs))
        fit, select = self.batches.fit, self.batches.select
        self.fit = OutputChange([session.run(feed, self.outputs) for feed in fit])
        self.select = OutputChange([session.run(feed, self.outputs) for feed in select or fit])
        self.steady = all(
            feed[name].shape[1:] == self.trace.shapes[name][1:]
            for feed in (*fit, *select)
            for name in self.view.inputs
        )
        traced = (*self.trace.shapes[next(iter(fit[0]))], 1)[0]
        self.few = len(fit) == 1 and batch_size(fit[0]) <= FEW
        sizes = map(batch_size, (*fit, *select))
        self.scale = max(*sizes, _ROWS if self.few else 1) / max(traced, 1)
        self.runs = 0

    def group(self, number: int, seconds: float) -> tuple[GroupSensitivity, int]:
        """Order one group's channels and measure its curve; also count the runs.

        Parameters
        ----------
        number : int
            Of the group in the request.
        seconds : float
            That the channels may take. What is known by then makes the order: fewer samples, or
            activations if not even one batch fits.
        """
        self.runs = 0
        deadline = time.monotonic() + seconds
        group = self.asked.groups[number]
        widths = measured_levels(self.asked.widths.get(group.name, ()), group.size)
        ready = self.prepare(group)
        parts = list(self.parts(ready, group, deadline))
        if parts:
            found = self.ranked(group, parts)
        else:
            scores = activation_importance(self.view, self.coupling, group, self.exits(group))
            order = group.balanced(np.argsort(scores, kind="stable"))
            found = GroupSensitivity(order, scores, widths, np.zeros(0), "activation", samples=0)
        gone = [found.order[: group.size - width] for width in widths]
        errors = self.errors(ready, group, gone)
        return replace(found, widths=widths, errors=np.maximum.accumulate(errors)), self.runs

    def prepare(self, group: Group) -> _Prepared:
        """Make the session of a group."""
        axes = [m.axis for m in group.members if m.axis in self.coupling.contracts]
        gated = gate(self.view, self.trace, self.coupling, axes)
        gated = replace(gated, model=with_outputs(gated.model, self.outputs))
        room = self.asked.memory / self.scale
        rows = None
        if self.few and not carried(shortened(gated, self.trace.shapes), self.trace.shapes).carried:
            rows = by_row(self.view, gated, self.trace)
        suffix = make_suffix(
            rows or gated,
            self.outputs,
            self.trace,
            steady=self.steady,
            room=room,
            short=rows is None,
        )
        exits = exits_of(self.view, self.coupling, group)
        read = [a.value for places in (exits or {}).values() for a in places]
        if sum(4 * np.prod(self.trace.shapes[name]) for name in set(read)) > room:
            exits, read = None, []
        inner = dict.fromkeys([*suffix.boundary.values(), *read])
        wanted = [name for name in inner if name not in self.view.inputs]
        original = Session(with_outputs(self.view.real, wanted)) if wanted else None
        return _Prepared(suffix, original, exits, rows)

    def exits(self, group: Group) -> list[Feeds]:
        """Return what the group's exits read in the original, as far as a run can show it."""
        known = self.coupling.collected.constants | self.view.inner
        axes = [m.axis for m in group.members if m.axis in self.coupling.contracts]
        values = list(dict.fromkeys(axis.value for axis in axes if axis.value not in known))
        if not values:
            return []
        session = Session(with_outputs(self.view.real, values))
        return [session.run(feed, values) for feed in self.batches.fit]

    def parts(
        self, ready: _Prepared, group: Group, deadline: float
    ) -> Iterator[NDArray[np.float32]]:
        """Yield each batch's change vectors of all channels, while time allows."""
        masks = {channel: self.masks(group, [channel]) for channel in range(group.size)}
        for number, feed in enumerate(self.batches.fit):
            start, rows = time.monotonic(), []
            found = self.removed(ready, group, number, feed, masks)
            for mask, outputs in zip(masks.values(), found, strict=True):
                rows.append(self.fit.vector(number, outputs, mask))
                self.runs += 1
                whole = (time.monotonic() - start) * group.size / len(rows)
                if start + whole > deadline and len(rows) < group.size:
                    return
            yield np.stack(rows)

    def removed(
        self,
        ready: _Prepared,
        group: Group,
        number: int,
        feed: Feeds,
        masks: Mapping[int, Mapping[Axis, Mask]],
    ) -> Iterator[Outputs]:
        """Yield the outputs of a batch with each channel gone; those that are missing stay."""
        cuts = [*masks.values()]
        stack = self.stack(ready, feed, cuts)
        if stack is not None:
            for first in range(0, len(cuts), stack.count):
                yield from stack.run(cuts[first : first + stack.count])
            return
        removals, loud = self.removals(ready, group, number, feed)
        for channel, mask in masks.items():
            yield removals.without(mask, None if loud is None else loud[:, channel])

    def stack(
        self, ready: _Prepared, feed: Feeds, cuts: Sequence[Mapping[Axis, Mask]]
    ) -> Stack | None:
        """Stack channels where samples are few, if samples do not see one another."""
        if ready.rows is None or ready.suffix.session is None or len(cuts) < 2:
            return None
        count = min(_ROWS // batch_size(feed), len(cuts))
        seen = self.view, ready.rows, ready.suffix, self.trace
        stack = make_stack(*seen, ready.values, feed, count)
        if stack is None:
            return None
        alone = ready.suffix.run(ready.suffix.cache(ready.values(feed)), cuts[count - 1])
        try:
            last = stack.run(cuts[:count])[-1]
        except RunFailedError:
            return None
        return stack if all(close(last[name], array) for name, array in alone.items()) else None

    def removals(
        self, ready: _Prepared, group: Group, number: int, feed: Feeds
    ) -> tuple[Removals, Heard | None]:
        """Cache a batch, and say which samples every channel is heard on."""
        values = ready.values(feed)
        cache = ready.suffix.cache(values)
        loud = None if ready.exits is None else heard(group, ready.exits, values)
        rows = None
        if loud is not None and len(loud) > 1 and not loud.all():
            rows = self.rows(ready, feed, cache, len(loud))
        return Removals(ready.suffix, cache, rows, self.fit.clean(number)), loud

    def rows(
        self, ready: _Prepared, feed: Feeds, cache: Feeds, count: int
    ) -> frozenset[str] | None:
        """Return what is cached by sample, if samples can be run apart from one another."""
        picks = np.arange(count) >= max(count - 2, 1)
        if self.view.inner or any(len(array) != count for array in feed.values()):
            return None  # what a branch or a loop does may hang on all samples
        try:
            some = ready.values({name: array[picks] for name, array in feed.items()})
        except RunFailedError:
            return None  # a model of one batch size
        return rows_of(cache, ready.suffix.cache(some), picks)

    def ranked(self, group: Group, parts: Sequence[NDArray[np.float32]]) -> GroupSensitivity:
        """Order channels by the vectors of the batches that there was time for."""
        table = np.concatenate(parts, axis=1)
        halves = np.zeros((2, group.size))
        first = 0
        for number, part in enumerate(parts):
            samples = self.fit.samples(number) + first
            first = int(samples.max(initial=first - 1)) + 1
            for half in range(2):
                halves[half] += (part[:, samples % 2 == half].astype(np.float64) ** 2).sum(axis=1)
        fewer = first if len(parts) < len(self.batches.fit) else None
        return GroupSensitivity(
            order=group.balanced(greedy_order(table)),
            scores=(table.astype(np.float64) ** 2).sum(axis=1),
            widths=np.zeros(0, np.int64),
            errors=np.zeros(0),
            method="perturbation",
            vectors=table,
            halves=halves,
            samples=fewer,
        )

    def masks(self, group: Group, channels: Sequence[int]) -> dict[Axis, Mask]:
        """Return what stays of every axis of a group without some channels."""
        return keep_masks([(group, channels)], self.coupling.collected.sizes)

    def errors(
        self, ready: _Prepared, group: Group, gone: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float64]:
        """Return the relative squared output change on the selection samples, cut by cut."""
        errors = np.zeros(len(gone))
        masks = [self.masks(group, channels.tolist()) for channels in gone]
        for number, feed in enumerate(self.batches.select):
            cache = ready.suffix.cache(ready.values(feed))
            for place, mask in enumerate(masks):
                if mask:
                    change = self.select.vector(number, ready.suffix.run(cache, mask), mask)
                    errors[place] += float((change.astype(np.float64) ** 2).sum())
                    self.runs += 1
        return errors
