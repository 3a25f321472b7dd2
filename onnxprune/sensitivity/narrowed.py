"""What a narrowed group costs the whole model, with its readers refitted to what is left.

A local error says how well a group's readers can do without some channels, not what that does to
the output. So the readers of the whole model are given the weights that make up for the loss, at a
few widths, and the output is looked at; between these widths the local curve tells the shape.
Errors of recurrent layers feed back, and the layers behind make up for much of them: where such a
layer reads the group it is really cut, and the layers concerned are refitted as they will be.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.keeps import Keeps
from onnxprune.layers.heads import Turned
from onnxprune.layers.readers import Reader, dense_sites
from onnxprune.layers.recurrent import Sum
from onnxprune.layers.rows import weight_of
from onnxprune.layers.student import Student
from onnxprune.layers.subspace import is_linear, subspace
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.runtime.downstream import downstream, entering
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.dims import Dims, dims_of
from onnxprune.sensitivity.error import OutputError
from onnxprune.sensitivity.reconstruction import eliminate
from onnxprune.sensitivity.request import Batches
from onnxprune.sensitivity.values import GroupSensitivity
from onnxprune.sensitivity.weighed import weighed_readers

__all__ = ["Refitted", "measure_narrowed"]

Array = NDArray[np.float64]
_LEVELS = (0.02, 0.06, 0.2)  # local errors at which the output is looked at
_SHARES = (0.25, 0.5, 0.75)  # of a group read by recurrent layers that are cut to look at it
_LEAST = 1e-9  # relative error that counts as none


Refitted = Callable[
    [Group, NDArray[np.int64], Collection[int]], tuple[onnx.ModelProto, Keeps] | None
]
"""Cuts channels of a group and refits the layers of some nodes; None where that is impossible."""


class _Local(Protocol):
    """What `Elimination` and `Subspace` have in common."""

    @property
    def errors(self) -> Array: ...

    @property
    def readers(self) -> Sequence[Reader]: ...

    def stand_in(self, reader: Reader, gone: int) -> Array: ...


class _Narrowing(Protocol):
    """A group that may be narrowed by giving some layers other weights of the same shape."""

    @property
    def errors(self) -> Array: ...

    @property
    def nodes(self) -> set[int]: ...

    def exchange(self, student: Student, gone: int) -> None: ...


@dataclass(frozen=True)
class _Readers:
    """Narrowing by what a group's readers are refitted to."""

    local: _Local

    @property
    def errors(self) -> Array:
        return self.local.errors

    @property
    def nodes(self) -> set[int]:
        return {reader.site.node.index for reader in self.local.readers}

    def exchange(self, student: Student, gone: int) -> None:
        for reader in self.local.readers:
            _exchange(student, reader, self.local.stand_in(reader, gone))


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
    refitted: Refitted | None = None,
    heads: Sequence[Turned] = (),
) -> dict[str, GroupSensitivity]:
    """Order by reconstruction the groups that only linear and recurrent layers read, with curves.

    So are groups of head dims that will be turned before they are cut.

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
    refitted : function, optional
        How groups that recurrent layers read are narrowed; as all others without it.
    heads : sequence of Turned
        Whose dims will be turned.

    Returns
    -------
    dict of group name to GroupSensitivity
        Groups with other readers, and with readers whose weights are not to be changed, are
        left out.
    """
    readers = weighed_readers(
        view, trace, coupling, groups, batches.fit, outputs=outputs, seed=seed
    )
    student = Student(view.model, (), view.base)
    dims = {g.name: one for g in groups if (one := dims_of(coupling, g, heads)) is not None}
    ready = [g for g in groups if g.name in dims or _mutable(student, readers.get(g.name, ()))]
    if not ready:
        return {}
    sites = dense_sites(view, trace, coupling)
    whole = _Whole(view, batches.select, outputs)
    found = {}
    for group in progress.track(ready, len(ready), "groups"):
        linear = is_linear(view, coupling, group, sites)
        read = readers.get(group.name, [])
        order, narrowing = _narrowing(group, read, dims.get(group.name), linear=linear)
        measured = _cut(whole, group, order, read, refitted)
        measured = measured or whole.levels(narrowing, group.step)
        found[group.name] = _curve(group, order, narrowing, measured)
    return found


def _narrowing(
    group: Group, readers: Sequence[Reader], dims: Dims | None, *, linear: bool
) -> tuple[NDArray[np.int64], _Narrowing]:
    """Return in which order channels go where nothing is turned, and how a group is narrowed."""
    if not readers and dims is not None:
        return dims.order, dims
    eliminated = eliminate(readers, group.blocks)
    if dims is not None:
        return eliminated.order, dims
    return eliminated.order, _Readers(subspace(readers) if linear else eliminated)


def _curve(
    group: Group, order: NDArray[np.int64], narrowing: _Narrowing, measured: Mapping[int, float]
) -> GroupSensitivity:
    """Join local errors with those measured."""
    errors = np.maximum.accumulate(_between(narrowing.errors, measured))
    scores = np.empty(group.size)
    scores[order] = np.diff(errors)
    widths = np.arange(group.size, 0, -1)
    return GroupSensitivity(order, scores, widths, errors[:-1], "reconstruction")


def _cut(
    whole: "_Whole",
    group: Group,
    order: NDArray[np.int64],
    readers: Sequence[Reader],
    refitted: Refitted | None,
) -> dict[int, float]:
    """Return the output's error by channels gone; nothing unless recurrent layers read them."""
    nodes = {reader.site.node.index for reader in readers}
    if refitted is None or not any(isinstance(r.site, Sum) for r in readers):
        return {}
    found = {}
    for share in _SHARES:
        gone = max(int(share * group.size) // group.step, 1) * group.step
        made = refitted(group, order[:gone], nodes) if gone < group.size else None
        if made is not None:
            found[gone] = whole.error(*made)
    return found


def _between(local: Array, measured: Mapping[int, float]) -> Array:
    """Return errors at all widths: the local ones, brought to the scale of those measured."""
    floor, counts = np.maximum(local, _LEAST), np.array(sorted(measured))
    ratios = [max(measured[n] / floor[n], _LEAST) for n in counts.tolist()]
    scale = np.interp(np.log(floor), np.log(floor[counts]), np.log(ratios))
    return np.asarray(np.where(local > _LEAST, np.exp(scale) * local, 0.0))


class _Whole:
    """The original, with the weights of some layers exchanged."""

    def __init__(self, view: View, feeds: Sequence[Feeds], outputs: Sequence[str]) -> None:
        self.view, self.feeds = view, feeds
        self.error = OutputError(view, outputs, feeds).error

    def levels(self, narrowing: _Narrowing, step: int) -> dict[int, float]:
        """Return the output's error at a few widths, by channels gone."""
        local = np.maximum(narrowing.errors, _LEAST)
        counts = -(-np.searchsorted(local, _LEVELS) // step) * step  # as many of each block
        counts = np.unique(np.clip(counts, step, len(local) - 1 - step))
        known = self.crossing(narrowing.nodes)
        return {int(n): self.error(self.exchanged(narrowing, int(n)), known=known) for n in counts}

    def crossing(self, first: Collection[int]) -> list[Feeds]:
        """Return what enters the part of the model that some nodes change, feed by feed."""
        graph = self.view.model.graph
        nodes, changed = downstream(graph, lambda number, _: number in first)
        made = {name for node in graph.node for name in node.output}
        names = [name for name in entering(graph, nodes, changed) if name in made]
        session = Session(with_outputs(self.view.real, names)) if names else None
        return [session.run(feed, names) if session else {} for feed in self.feeds]

    def exchanged(self, narrowing: _Narrowing, gone: int) -> onnx.ModelProto:
        """Return the model with the layers concerned refitted to a width."""
        student = Student(self.view.model, (), self.view.base)
        narrowing.exchange(student, gone)
        return student.model


def _mutable(student: Student, readers: Sequence[Reader]) -> bool:
    """Whether there are readers, and all of them can be given other weights."""
    return bool(readers) and all(
        r.site.layer.held(student) is not None
        if isinstance(r.site, Sum)
        else student.read(r.site.weight) is not None
        for r in readers
    )


def _exchange(student: Student, reader: Reader, weight: Array) -> None:
    """Give a layer another weight, and the bias that keeps its mean output."""
    site, shift = reader.site, (reader.weight - weight).T @ reader.mean
    if isinstance(site, Sum):
        _exchange_sum(student, site, weight, shift)
        return
    old = student.read(site.weight)
    assert old is not None
    student.write(site.weight, weight_of(site, weight[None], old.shape).astype(old.dtype))
    if site.bias is not None:
        bias, moved = student.read(site.bias), shift.astype(old.dtype)
        moved = moved if bias is None else np.add(bias.reshape(-1), moved)
        student.write_bias(site.weight, site.bias, moved)


def _exchange_sum(student: Student, found: Sum, weight: Array, shift: Array) -> None:
    layer = found.layer
    cells = layer.held(student)
    assert cells is not None
    cell = cells[found.direction]
    bias = cell.block(found.part)[1] + shift.astype(np.float32)
    cells[found.direction] = cell.with_block(found.part, weight, bias)
    layer.hold(student, cells)
