"""One sweep over the cut model: every layer is refitted to do what it did in the original.

In the order of the graph, each layer's kept filters are solved for on the cut model's own inputs
(with everything before already refitted) towards the original's outputs; where the output meets a
skip, towards the original's sum less the cut model's skip, so that each block cancels the drift
that the stream has gathered.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.collect import Collected
from onnxprune.coupling.keeps import Keeps, narrow
from onnxprune.coupling.relations import Axis
from onnxprune.layers.recurrent import Recurrence, find_recurrences
from onnxprune.layers.rows import (
    Draw,
    Places,
    input_rows,
    output_rows,
    places_of,
    weight_blocks,
    weight_of,
)
from onnxprune.layers.sites import Site, affine_of, find_sites
from onnxprune.layers.student import Student
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.recovery.gated import Bounds, solve_gated
from onnxprune.recovery.lessons import Lessons
from onnxprune.recovery.ridge import Moments, Solution, bias_of, pool, solve
from onnxprune.recovery.trajectory import follow
from onnxprune.recovery.turn import Turn
from onnxprune.runtime.session import Feeds, batch_size
from onnxprune.runtime.trace import Trace

__all__ = ["Refit", "refit"]

Array = NDArray[np.generic]
Rows = NDArray[np.float32]
_FOLDS = 4
_WIDEST = 5000  # D beyond which a layer keeps its weights: the solve takes D^3
_GATED = 2400  # D beyond which goals are taken as they are
_SAME = 1e-8  # relative error below which a layer has nothing to mend
_SILENT = 1e-6  # scale below which a normalization lets nothing through
_MEMORY = 1 << 29  # bytes of rows that are kept for a gated solve


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """A refitted model, and which of its initializers were solved for or added."""

    model: onnx.ModelProto
    refitted: tuple[str, ...]
    added: tuple[str, ...]


class _Sweep:
    def __init__(
        self, view: View, trace: Trace, student: Student, keeps: Keeps, turns: Sequence[Turn]
    ) -> None:
        self.view, self.trace, self.student, self.keeps = view, trace, student, keeps
        self.bases = {value: basis for turn in turns for value, basis in turn.values.items()}

    def run(self, site: Site, targets: Sequence[Rows], places: Places | Draw) -> None:
        """Refit one layer, as if the normalization behind it were folded in: outputs compare."""
        weight = self.student.read(site.weight)
        if weight is None:
            return
        groups = self.student.groups(site.node.index)
        start = weight_blocks(site, weight, groups).astype(np.float64)
        if start.shape[1] > _WIDEST or not self.student.owns(site.weight):
            self.match(site, weight, start, targets, places)
            return
        scale = self.scale(site, groups)
        solution = self.solution(site, weight, start * scale, targets, places)
        if solution.before < _SAME or solution.after >= solution.before:
            return
        blocks = weight_of(site, solution.weights / scale, weight.shape)
        self.student.write(site.weight, blocks.astype(weight.dtype))
        if site.bias is not None:
            bias = (solution.bias / scale[:, 0]).reshape(-1).astype(weight.dtype)
            self.student.write_bias(site.weight, site.bias, bias)

    def match(
        self,
        site: Site,
        weight: Array,
        start: NDArray[np.float64],
        targets: Sequence[Rows],
        places: Places | Draw,
    ) -> None:
        """Shift each output of a layer that is not solved for; scale it, if the weight is its own.

        What batch statistics taken anew would do, with the least squared error instead of the
        same variance.
        """
        if site.bias is None:
            return
        moments = Moments(_FOLDS)
        for number, (found, goal) in enumerate(self.goals(site, targets, places, (site.output,))):
            rows = output_rows(found[site.output], places)
            moments.add(number % _FOLDS, rows.T[:, :, None], goal.T[:, :, None])
        fit = pool(moments, list(range(len(moments.counts))), centred=True)
        same = np.ones(fit.xy.shape)
        solution = solve(moments, same, centred=True)
        scaled = self.student.owns(site.weight) and solution.after < solution.before
        factor = solution.weights if scaled else same
        shift = bias_of(fit, factor, centred=True)
        slope = factor[:, 0] - 1
        change = (shift + slope * fit.x) ** 2 + slope**2 * fit.xx[:, 0] / fit.n
        if change.sum() < _SAME * (fit.yy / fit.n).sum():
            return
        if scaled:
            blocks = start * factor.reshape(len(start), 1, -1)
            self.student.write(
                site.weight, weight_of(site, blocks, weight.shape).astype(weight.dtype)
            )
        old = self.student.read(site.bias)
        held = np.zeros(len(shift)) if old is None else old.reshape(-1).astype(np.float64)
        bias = shift[:, 0] + factor[:, 0, 0] * held
        self.student.write_bias(site.weight, site.bias, bias.astype(weight.dtype))

    def solution(
        self,
        site: Site,
        weight: Array,
        start: NDArray[np.float64],
        targets: Sequence[Rows],
        places: Places | Draw,
    ) -> Solution:
        moments = Moments(_FOLDS)
        gate = site.gate if start.shape[1] <= _GATED else None
        kept: list[tuple[Rows, Rows]] = []
        for number, pair in enumerate(self.pairs(site, weight, len(start), targets, places)):
            moments.add(number % _FOLDS, *pair)
            if gate is not None:
                kept.append(pair)
        solution = solve(moments, start, centred=site.bias is not None)
        if gate is None or sum(x.nbytes + y.nbytes for x, y in kept) > _MEMORY:
            return solution
        return solve_gated(
            kept,
            moments,
            self.bounds(site, gate, start),
            solution,
            start,
            centred=site.bias is not None,
        )

    def pairs(
        self, site: Site, weight: Array, groups: int, targets: Sequence[Rows], places: Places | Draw
    ) -> Iterator[tuple[Rows, Rows]]:
        """Yield rows (groups, n, D) and scaled goals (groups, n, O), feed by feed."""
        scale = self.scale(site, groups).astype(np.float32)
        for found, goal in self.goals(site, targets, places):
            rows = input_rows(site, found[site.source], weight, places, groups)
            split = goal.reshape(len(goal), groups, -1).transpose(1, 0, 2)
            yield rows, np.ascontiguousarray(split * scale)

    def goals(
        self, site: Site, targets: Sequence[Rows], places: Places | Draw, shown: Sequence[str] = ()
    ) -> Iterator[tuple[Feeds, Rows]]:
        """Yield what the cut model shows, and the goals (n, outputs), feed by feed."""
        seen = self.student.values((*site.reads, *shown), settled=self.settled(site))
        for found, target in zip(seen, targets, strict=True):
            if site.skip is None:
                yield found, target
            else:
                rest = target - output_rows(found[site.skip], places)
                yield found, self.before_norm(site, rest)

    def settled(self, site: Site) -> list[str]:
        """Return what a layer reads that was made before it: nothing there is refitted any more.

        A skip that is made behind it (by the other branch) is still to come.
        """
        makers = ((name, self.view.producers.get(name)) for name in site.reads)
        return [name for name, m in makers if m is None or m.index < site.node.index]

    def before_norm(self, site: Site, goal: Rows) -> Rows:
        """Take what a sum should receive back through the normalization in front of it."""
        if site.norm is None:
            return goal
        scale, shift = self.affine(site)
        scale = np.where(np.abs(scale) < _SILENT, np.inf, scale)
        return ((goal - shift) / scale).astype(np.float32)

    def scale(self, site: Site, groups: int) -> NDArray[np.float64]:
        """Return by what the normalization behind multiplies outputs, shape (groups, 1, O)."""
        if site.norm is None:
            return np.ones((groups, 1, 1))
        scale = np.abs(self.affine(site)[0])
        return np.where(scale < _SILENT, 1.0, scale).reshape(groups, 1, -1)

    def affine(self, site: Site) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return scale and shift of the normalization behind a layer, kept channels only."""
        assert site.norm is not None
        scale, shift = affine_of(self.view, site.norm)
        mask = self.mask(site.norm.outputs[0], 1)
        return scale[mask], shift[mask]

    def bounds(self, site: Site, gate: tuple[float, float], start: NDArray[np.float64]) -> Bounds:
        """Return where the activation lets each of a layer's scaled outputs through."""
        groups, _, outputs = start.shape
        low, high = (np.full(groups * outputs, bound, np.float64) for bound in gate)
        if site.norm is not None:
            scale, shift = self.affine(site)
            scale = np.where(np.abs(scale) < _SILENT, _SILENT, scale)
            low, high = np.sort([(low - shift) / scale, (high - shift) / scale], axis=0)
        shape = (groups, 1, outputs)
        ends = (end.reshape(shape) * self.scale(site, groups) for end in (low, high))
        return Bounds(*(end.astype(np.float32) for end in ends))

    def kept(self, rows: Rows, value: str, axis: int) -> Rows:
        """Bring rows of a value of the original to what the cut model has of it."""
        if value in self.bases:
            return np.ascontiguousarray(rows @ self.bases[value].T.astype(np.float32))
        return np.ascontiguousarray(rows[:, self.mask(value, axis)])

    def mask(self, value: str, axis: int) -> NDArray[np.bool_]:
        mask = self.keeps.get(Axis(value, axis))
        return np.ones(self.trace.shapes[value][axis], bool) if mask is None else mask


def refit(
    view: View,
    trace: Trace,
    collected: Collected,
    student: onnx.ModelProto,
    keeps: Keeps,
    feeds: Sequence[Feeds],
    turns: Sequence[Turn] = (),
    *,
    seed: int,
    progress: Progress,
    only: Collection[int] | None = None,
) -> Refit:
    """Refit every layer of a cut model to the original, in the order of the graph.

    Parameters
    ----------
    view, trace, collected
        Of the original.
    student : ModelProto
        The cut model; not changed.
    keeps : mapping of Axis to mask
    feeds : sequence of Feeds
        Samples to fit on, a fold's worth per feed at least.
    turns : sequence of Turn
        The bases that the student's streams are in.
    seed : int
        Of the positions that are looked at.
    progress : Progress
    only : collection of int, optional
        Nodes whose layers are refitted; all by default.

    Returns
    -------
    Refit
    """
    fed = [narrow(feed, keeps) for feed in feeds]
    edited = Student(student, fed, view.base, original=view.model)
    sweep = _Sweep(view, trace, edited, keeps, turns)
    layers: list[Site | Recurrence] = [*find_sites(view, trace, collected), *find_recurrences(view)]
    layers = [layer for layer in layers if only is None or layer.node.index in only]
    layers = [layer for layer in layers if edited.has(layer.node.index)]
    layers.sort(key=lambda layer: layer.node.index)
    sites = [layer for layer in layers if isinstance(layer, Site)]
    if not layers:
        return Refit(edited.model, (), ())
    rng = np.random.default_rng(seed)
    samples, batch = sum(map(batch_size, feeds)), max(map(batch_size, feeds))
    places = {s.node.index: places_of(trace, s, rng, samples, batch) for s in sites}
    lessons = Lessons(view, trace, places, feeds, sweep.kept)
    for number, layer in enumerate(progress.track(layers, len(layers), "layers")):
        edited.forget(name for later in layers[number:] for name in later.reads)
        index = layer.node.index
        if index not in lessons.taught:
            lessons.teach(layers[number:])
        if isinstance(layer, Site):
            sweep.run(layer, lessons.rows.pop(index), places[index])
        else:
            follow(view, layer, edited, keeps, lessons.reads.pop(index))
    return Refit(edited.model, tuple(edited.refitted), tuple(edited.added))
