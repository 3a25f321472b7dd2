"""One sweep over the cut model: every layer is refitted to do what it did in the original.

In the order of the graph, each layer's kept filters are solved for on the cut model's own inputs
(with everything before already refitted) towards the original's outputs; where the output meets a
skip, towards the original's sum less the cut model's skip, so that each block cancels the drift
that the stream has gathered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.collect import Collected
from onnxprune.coupling.relations import Axis
from onnxprune.layers.rows import Places, input_rows, output_rows, places_of, weight_matrix
from onnxprune.layers.sites import Site, affine_of, find_sites
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Edge, View
from onnxprune.progress import Progress
from onnxprune.recovery.ridge import Moments, solve
from onnxprune.recovery.slots import Slots
from onnxprune.rewrite.keeps import Keeps
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Refit", "refit"]

Array = NDArray[np.generic]
_FOLDS = 4
_WIDEST = 2400  # D beyond which a layer keeps its weights: the solve takes D^3
_SAME = 1e-8  # relative error below which a layer has nothing to mend


@dataclass(frozen=True, slots=True, eq=False)
class Refit:
    """A refitted model, and which of its initializers were solved for or added."""

    model: onnx.ModelProto
    refitted: tuple[str, ...]
    added: tuple[str, ...]


class _Sweep:
    def __init__(
        self,
        view: View,
        trace: Trace,
        student: onnx.ModelProto,
        keeps: Keeps,
        feeds: Sequence[Feeds],
    ) -> None:
        self.view, self.trace, self.keeps, self.feeds = view, trace, keeps, feeds
        self.model = onnx.ModelProto()
        self.model.CopyFrom(student)
        self.slots = Slots(self.model, view.base)
        self.refitted: list[str] = []
        self.added: list[str] = []

    def run(
        self, site: Site, targets: Sequence[NDArray[np.float32]], places: Places | None
    ) -> None:
        weight = self.slots.read(site.weight)
        if weight is None or not self.slots.own(site.weight):
            return
        matrix = weight_matrix(site, weight)
        if matrix is None or matrix.shape[0] > _WIDEST:
            return
        moments = self.moments(site, weight, targets, places)
        solution = solve(moments, matrix.astype(np.float64), centred=site.bias is not None)
        if solution.before < _SAME or solution.after >= solution.before:
            return
        self.refitted.append(self.slots.write(site.weight, _shaped(site, solution.weights, weight)))
        if site.bias is not None:
            self.write_bias(site.weight, site.bias, solution.bias.astype(weight.dtype))

    def moments(
        self,
        site: Site,
        weight: Array,
        targets: Sequence[NDArray[np.float32]],
        places: Places | None,
    ) -> Moments:
        names = [site.source, *([site.skip] if site.skip else [])]
        inner = [n for n in names if n in self.slots.made]
        session = Session(with_outputs(upcast(self.model), inner)) if inner else None
        moments = Moments(_FOLDS)
        for number, feed in enumerate(self.feeds):
            found = {**feed, **(session.run(feed, inner) if session else {})}
            rows = input_rows(site, found[site.source], weight, places)
            goal = targets[number]
            if site.skip is not None:
                goal = goal - output_rows(found[site.skip], places)
                if site.norm is not None:
                    scale, shift = affine_of(self.view, site.norm)
                    mask = self.mask(site.norm.outputs[0], 1)
                    scale, shift = scale[mask], shift[mask]
                    scale = np.where(np.abs(scale) < 1e-6, np.inf, scale)
                    goal = ((goal - shift) / scale).astype(np.float32)
            moments.add(number % _FOLDS, rows, goal)
        return moments

    def mask(self, value: str, axis: int) -> NDArray[np.bool_]:
        mask = self.keeps.get(Axis(value, axis))
        return np.ones(self.trace.shapes[value][axis], bool) if mask is None else mask

    def write_bias(self, weight: Edge, edge: Edge, bias: Array) -> None:
        old = self.slots.read(edge)
        if old is not None and old.shape == bias.shape and self.slots.own(edge):
            self.refitted.append(self.slots.write(edge, bias))
        elif old is None and self.slots.quantized(weight):
            return  # runtimes that compute in integers take integer biases only
        else:
            name = f"{self.model.graph.node[edge.node].input[1]}_bias"
            self.added.append(self.slots.add(edge, name, bias))


def refit(
    view: View,
    trace: Trace,
    collected: Collected,
    student: onnx.ModelProto,
    keeps: Keeps,
    feeds: Sequence[Feeds],
    *,
    seed: int,
    progress: Progress,
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
    seed : int
        Of the positions that are looked at.
    progress : Progress

    Returns
    -------
    Refit
    """
    sweep = _Sweep(view, trace, student, keeps, feeds)
    sites = list(find_sites(view, trace, collected))
    if not sites:
        return Refit(sweep.model, (), ())
    rng = np.random.default_rng(seed)
    places = {s.node.index: places_of(trace, s, rng) for s in sites}
    targets = _targets(view, sites, places, sweep, feeds)
    for site in progress.track(sites, len(sites), "layers"):
        sweep.run(site, targets[site.node.index], places[site.node.index])
    return Refit(sweep.model, tuple(sweep.refitted), tuple(sweep.added))


def _targets(
    view: View,
    sites: Sequence[Site],
    places: Mapping[int, Places | None],
    sweep: _Sweep,
    feeds: Sequence[Feeds],
) -> dict[int, list[NDArray[np.float32]]]:
    """Collect the original's outputs at the chosen places, kept channels only."""
    names = list(dict.fromkeys(s.total or s.output for s in sites))
    session = Session(with_outputs(view.real, names))
    found: dict[int, list[NDArray[np.float32]]] = {s.node.index: [] for s in sites}
    for feed in feeds:
        values = session.run(feed, names)
        for site in sites:
            name = site.total or site.output
            rows = output_rows(values[name], places[site.node.index])
            axis = 1 if places[site.node.index] is not None else values[name].ndim - 1
            found[site.node.index].append(np.ascontiguousarray(rows[:, sweep.mask(name, axis)]))
    return found


def _shaped(site: Site, matrix: NDArray[np.float64], weight: Array) -> Array:
    transposed = site.node.op_type == "Conv" or bool(site.node.attributes.get("transB"))
    return (matrix.T if transposed else matrix).reshape(weight.shape).astype(weight.dtype)
