"""What an error of each of a layer's outputs is worth to the outputs of the model.

Errors of different layers, and of different outputs of one, compare by how much of them arrives: a
gate that is shut hides what its sum is wrong by. To first order an error e of one output changes
the model's output by g e; random signs as cotangents give the mean of g^2.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.layers.cells import GATES
from onnxprune.layers.moments import Key, key_of
from onnxprune.layers.recurrent import Sum
from onnxprune.layers.sites import Site
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, RunFailedError, Session, with_outputs
from onnxprune.runtime.trace import Trace, trace
from onnxprune.sensitivity.gradient.backward import Edge, differentiate
from onnxprune.sensitivity.gradient.cotangents import signs
from onnxprune.sensitivity.gradient.passes import Passes
from onnxprune.sensitivity.gradient.rules.recurrent import SUMS
from onnxprune.sensitivity.gradient.tape import Tape
from onnxprune.sensitivity.output import OutputChange

__all__ = ["worth_of"]

Array = NDArray[np.float64]
_DRAWS = 4  # cotangents per sample


def worth_of(
    view: View,
    seen: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    layers: Sequence[Site | Sum],
    feeds: Sequence[Feeds],
    *,
    outputs: Sequence[str],
    seed: int,
) -> dict[Key, Array]:
    """Say what errors of layers' outputs are worth.

    Parameters
    ----------
    view, seen, coupling
        Of the original.
    groups : sequence of Group
        That the layers read.
    layers : sequence of Site or Sum
    feeds : sequence of Feeds
    outputs : sequence of str
        Values whose change counts.
    seed : int

    Returns
    -------
    dict of key to float array, shape (O,)
        Relative squared change of the outputs per unit of mean squared error, by output of the
        layer. Layers that have no derivative are left out.
    """
    worth = _Worth(view, seen, coupling, groups, layers, outputs)
    try:
        return worth.all(feeds, np.random.default_rng(seed))
    except RunFailedError:
        return {}


class _Derivative:
    """Runs forward and backward for what was watched."""

    def __init__(
        self, tape: Tape, watched: Mapping[Edge | str, str], outputs: Sequence[str]
    ) -> None:
        self.watched, self._dtype = watched, tape.dtype
        self._passes = Passes(tape, list(watched.values()), outputs)

    def slopes(
        self, feed: Feeds, scales: Mapping[str, float], rng: np.random.Generator
    ) -> Iterator[dict[Edge | str, Array]]:
        """Yield the derivatives seen by one cotangent after the other."""
        if not self.watched:
            return
        outputs, kept = self._passes.forward(feed)
        drawn = {n: signs(outputs[n].shape, _DRAWS, rng) for n in scales}
        for draw in range(_DRAWS):
            cotangents = {
                n: np.asarray(drawn[n][draw] / scale, self._dtype) for n, scale in scales.items()
            }
            found = self._passes.backward(kept, cotangents)
            yield {edge: found[n].astype(np.float64) for edge, n in self.watched.items()}


class _Worth:
    """Derivatives at layers, for each set of sizes."""

    def __init__(
        self,
        view: View,
        seen: Trace,
        coupling: Coupling,
        groups: Sequence[Group],
        layers: Sequence[Site | Sum],
        outputs: Sequence[str],
    ) -> None:
        self.view, self.seen, self.coupling, self.groups = view, seen, coupling, groups
        self.layers, self.outputs = layers, outputs
        self._made: dict[object, _Derivative] = {}

    def all(self, feeds: Sequence[Feeds], rng: np.random.Generator) -> dict[Key, Array]:
        """Sum up over all samples."""
        session = Session(with_outputs(self.view.real, self.outputs))
        scales = OutputChange([session.run(feed, self.outputs) for feed in feeds]).scales
        totals: dict[Key, Array] = {}
        for feed in feeds:
            run = self._derivative(feed)
            for slopes in run.slopes(feed, scales, rng):
                for layer in self.layers:
                    if (found := slopes.get(_edge(layer))) is not None:
                        square = _squares(layer, found) / _DRAWS
                        totals[key_of(layer)] = totals.get(key_of(layer), 0.0) + square
        return totals

    def _derivative(self, feed: Feeds) -> _Derivative:
        sizes = tuple((name, array.shape[1:]) for name, array in feed.items())
        if sizes not in self._made:
            known = tuple((name, self.seen.shapes[name][1:]) for name in feed)
            seen = self.seen if sizes == known else trace(self.view, feed)
            tape, watched = Tape(self.view, seen, feed), {_edge(layer) for layer in self.layers}
            found = differentiate(tape, self.coupling, self.groups, self.outputs, watched)
            self._made[sizes] = _Derivative(tape, found.slopes, self.outputs)
        return self._made[sizes]


def _edge(layer: Site | Sum) -> Edge | str:
    return (layer.node.index, SUMS) if isinstance(layer, Sum) else layer.output


def _squares(layer: Site | Sum, slopes: Array) -> Array:
    """Sum the squared derivatives over all rows, shape (O,)."""
    if isinstance(layer, Site):
        axis = 1 if layer.node.op_type in ("Conv", "ConvTranspose") else slopes.ndim - 1
        rest = tuple(a for a in range(slopes.ndim) if a != axis)
        return np.asarray((slopes**2).sum(axis=rest))
    gates, directions = GATES[layer.node.op_type], layer.layer.directions
    every = (slopes**2).sum(axis=(0, 1)).reshape(directions, 2, gates, -1)
    beside = every[layer.direction, 0 if layer.part.reads else 1]
    return np.asarray(beside[layer.part.first : layer.part.last].ravel())
