"""What a narrowed group costs the whole model, with its readers refitted to what is left.

A local error says how well a group's readers can do without some channels, not what that does to
the output. So the readers of the whole model are given the weights that make up for the loss, at a
few widths, and the output is looked at; between these widths the local curve tells the shape.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.layers.readers import Reader, collect_readers, dense_sites
from onnxprune.layers.rows import weight_of
from onnxprune.layers.student import Student
from onnxprune.layers.subspace import is_linear, subspace
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.runtime.downstream import downstream, entering
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.measurer import Batches
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.reconstruction import eliminate
from onnxprune.sensitivity.values import GroupSensitivity

__all__ = ["measure_narrowed"]

Array = NDArray[np.float64]
_LEVELS = (0.02, 0.06, 0.2)  # local errors at which the output is looked at
_LEAST = 1e-9  # relative error that counts as none


class _Narrowing(Protocol):
    """What `Elimination` and `Subspace` have in common."""

    @property
    def errors(self) -> Array: ...

    @property
    def readers(self) -> Sequence[Reader]: ...

    def stand_in(self, reader: Reader, gone: int) -> Array: ...


def measure_narrowed(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    batches: Batches,
    *,
    outputs: Sequence[str],
    seed: int,
    progress: Progress,
) -> dict[str, GroupSensitivity]:
    """Order by reconstruction the groups that only linear layers read, and measure their curves.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : sequence of Group
    batches : Batches
        Moments come from ``fit``, what widths cost from ``select``.
    outputs : sequence of str
        Values whose change counts.
    seed : int
        Of the output positions that are looked at.
    progress : Progress

    Returns
    -------
    dict of group name to GroupSensitivity
        Groups with other readers are left out.
    """
    readers = collect_readers(view, trace, coupling, groups, batches.fit, seed=seed)
    if not readers:
        return {}
    sites = dense_sites(view, trace, coupling)
    whole = _Whole(view, batches.select, outputs)
    ready = [group for group in groups if group.name in readers]
    found = {}
    for group in progress.track(ready, len(ready), "groups"):
        eliminated = eliminate(readers[group.name], group.blocks)
        narrowing: _Narrowing = eliminated
        if is_linear(view, coupling, group, sites):
            narrowing = subspace(readers[group.name])
        errors = np.maximum.accumulate(whole.curve(narrowing, group.step))
        scores = np.empty(group.size)
        scores[eliminated.order] = np.diff(errors)
        widths = np.arange(group.size, 0, -1)
        found[group.name] = GroupSensitivity(
            eliminated.order, scores, widths, errors[:-1], "reconstruction"
        )
    return found


class _Whole:
    """The original, with the weights of some layers exchanged."""

    def __init__(self, view: View, feeds: Sequence[Feeds], outputs: Sequence[str]) -> None:
        self.view, self.feeds, self.outputs = view, feeds, outputs
        session = Session(with_outputs(view.real, outputs))
        self.change = OutputChange([session.run(feed, outputs) for feed in feeds])

    def curve(self, narrowing: _Narrowing, step: int) -> Array:
        """Return the output's error with 0, 1, ... channels gone: measured, or between such."""
        local = np.maximum(narrowing.errors, _LEAST)
        counts = -(-np.searchsorted(local, _LEVELS) // step) * step  # as many of each block
        counts = np.unique(np.clip(counts, step, len(local) - 1 - step))
        known = self.crossing(narrowing.readers)
        ratios = [self.error(narrowing, int(n), known) / local[n] for n in counts]
        scale = np.interp(np.log(local), np.log(local[counts]), np.log(np.maximum(ratios, _LEAST)))
        return np.asarray(
            np.where(narrowing.errors > _LEAST, np.exp(scale) * narrowing.errors, 0.0)
        )

    def crossing(self, readers: Sequence[Reader]) -> list[Feeds]:
        """Return what enters the part of the model that the readers change, feed by feed."""
        graph, first = self.view.model.graph, {reader.site.node.index for reader in readers}
        nodes, changed = downstream(graph, lambda number, _: number in first)
        made = {name for node in graph.node for name in node.output}
        names = [name for name in entering(graph, nodes, changed) if name in made]
        session = Session(with_outputs(self.view.real, names)) if names else None
        return [session.run(feed, names) if session else {} for feed in self.feeds]

    def error(self, narrowing: _Narrowing, gone: int, known: Sequence[Feeds]) -> float:
        """Return the relative squared output error with the readers refitted to a width."""
        student = Student(self.view.model, (), self.view.base)
        for reader in narrowing.readers:
            _exchange(student, reader, narrowing.stand_in(reader, gone))
        model = with_outputs(upcast(student.model), self.outputs, known[0])
        session, read = Session(model), {value.name for value in model.graph.input}
        total = 0.0
        for number, (feed, inner) in enumerate(zip(self.feeds, known, strict=True)):
            given = {name: array for name, array in {**feed, **inner}.items() if name in read}
            vector = self.change.vector(number, session.run(given, self.outputs))
            total += float((vector.astype(np.float64) ** 2).sum())
        return total


def _exchange(student: Student, reader: Reader, weight: Array) -> None:
    """Give a layer another weight, and the bias that keeps its mean output."""
    site, old = reader.site, student.read(reader.site.weight)
    if old is None:
        return
    student.write(site.weight, weight_of(site, weight[None], old.shape).astype(old.dtype))
    if site.bias is not None:
        bias = student.read(site.bias)
        shift = ((reader.weight - weight).T @ reader.mean).astype(old.dtype)
        moved = shift if bias is None else np.add(bias.reshape(-1), shift)
        student.write_bias(site.weight, site.bias, moved)
