"""The part of a gated model that a gate can reach, fed from cached activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.keeps import Mask
from onnxprune.coupling.relations import Axis
from onnxprune.runtime.boundary import within
from onnxprune.runtime.carried import carried
from onnxprune.runtime.delta import Delta, shortened
from onnxprune.runtime.downstream import downstream, entering
from onnxprune.runtime.gates import Gated
from onnxprune.runtime.session import Feeds, Session, keep_outputs, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.runtime.unrolled import unroll

__all__ = ["Suffix", "make_suffix"]

_OURS = "onnxprune/"  # how the names of what the original has not got begin


@dataclass(frozen=True, eq=False)
class Suffix:
    """The model downstream of its gates.

    Attributes
    ----------
    session : Session
        Takes masks and the boundary values; None where the gates reach no output at all.
    boundary : mapping of input name to value name
        What is cached: values of the original, by the name that the suffix gives them.
    outputs : tuple of str
        Those of the original's outputs that a gate reaches.
    """

    session: Session | None
    boundary: Mapping[str, str]
    outputs: tuple[str, ...]
    _masks: Callable[[Mapping[Axis, Mask]], Feeds]

    def cache(self, values: Feeds) -> Feeds:
        """Return what crosses into the suffix, of the values of the original on a feed."""
        return {name: values[value] for name, value in self.boundary.items()}

    def run(self, cache: Feeds, keeps: Mapping[Axis, Mask]) -> dict[str, NDArray[np.generic]]:
        """Run from cached boundary values; every gated axis must lose something."""
        return self.feed({**cache, **self._masks(keeps)})

    def feed(self, given: Feeds) -> dict[str, NDArray[np.generic]]:
        """Run from boundary values and masks as the session takes them."""
        if self.session is None:
            return {}
        read = {value.name for value in self.session.inputs}  # no gate that a delta stands in for
        wanted = {name: array for name, array in given.items() if name in read}
        return self.session.run(wanted, self.outputs)


def make_suffix(
    gated: Gated,
    outputs: Sequence[str],
    trace: Trace,
    *,
    steady: bool = False,
    room: float = 1e18,
    short: bool = True,
) -> Suffix:
    """Cut a gated model down to what its gates can change.

    Parameters
    ----------
    gated : Gated
    outputs : sequence of str
        Outputs to compare; those that no gate reaches are left out.
    trace : Trace
    steady : bool
        Whether all feeds have the sizes of the trace, but for the batch.
    room : float
        Bytes that what is cached may take, at the sizes of the trace; what does not fit is computed
        anew in every run.
    short : bool
        Whether first readers take off what is lost instead of being run again; the same must be
        lost in all samples.

    Returns
    -------
    Suffix
    """
    delta = Delta(gated, {}, {}, {})
    if short:
        delta = carried(shortened(gated, trace.shapes), trace.shapes)
        keep_outputs(delta.gated.model, outputs)
    boundary, wanted = _crossing(delta, outputs, trace, room)
    if delta.known and sum(_bytes(trace, value) for value in boundary.values()) > room:
        delta = Delta(gated, {}, {}, {})
        boundary, wanted = _crossing(delta, outputs, trace, room)
    if not wanted:
        return Suffix(None, {}, (), gated.feeds)
    known = {name: _like(trace, value) for name, value in boundary.items()}
    model = with_outputs(delta.gated.model, wanted, known)
    if steady:
        unroll(model, trace.shapes)
    return Suffix(Session(model), boundary, wanted, delta.feeds)


def _crossing(
    delta: Delta, outputs: Sequence[str], trace: Trace, room: float
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what is cached, by the original's names, and the outputs that a gate reaches."""
    graph = delta.gated.model.graph
    masks = [value.name for value in graph.input if value.name.startswith(_OURS)]
    nodes, reached = downstream(graph, lambda _, node: _added(node), masks)

    def size(name: str) -> float:
        return _bytes(trace, delta.known.get(name, name))

    names = within(entering(graph, nodes, reached), graph, size, room)
    wanted = tuple(name for name in outputs if name in reached)
    return {name: delta.known.get(name, name) for name in names}, wanted


def _like(trace: Trace, value: str) -> NDArray[np.generic]:
    """Return an array of a value's type and rank; a vector has its length, too."""
    shape = trace.shapes[value]
    return np.empty(shape if len(shape) == 1 else [0] * len(shape), trace.dtypes[value])


def _added(node: onnx.NodeProto) -> bool:
    """Whether the original has not got what a node gives."""
    return any(name.startswith(_OURS) for name in node.output)


def _bytes(trace: Trace, value: str) -> float:
    """Size a value; what the trace does not know, such as a sequence, cannot be fed."""
    if value not in trace.shapes:
        return np.inf
    return float(np.prod(trace.shapes[value])) * trace.dtypes[value].itemsize
