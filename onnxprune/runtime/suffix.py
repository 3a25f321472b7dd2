"""The part of a gated model that a gate can reach, fed from cached activations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis
from onnxprune.rewrite.keeps import Mask
from onnxprune.runtime.delta import Delta, shortened
from onnxprune.runtime.downstream import downstream, entering
from onnxprune.runtime.gates import NORM, Gated
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.runtime.unrolled import unroll

__all__ = ["Suffix", "make_suffix"]

_OURS = "onnxprune/"  # how the names of masks and of what is lost begin


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
        if self.session is None:
            return {}
        return self.session.run({**cache, **self._masks(keeps)}, self.outputs)


def make_suffix(
    gated: Gated,
    inputs: Sequence[str],
    outputs: Sequence[str],
    trace: Trace,
    *,
    steady: bool = False,
) -> Suffix:
    """Cut a gated model down to what its gates can change.

    Parameters
    ----------
    gated : Gated
    inputs : sequence of str
        Inputs of the original model.
    outputs : sequence of str
        Outputs to compare; those that no gate reaches are left out.
    trace : Trace
    steady : bool
        Whether all feeds have the sizes of the trace, but for the batch.

    Returns
    -------
    Suffix
        The whole gated model, slower but equal, where graphsurgeon cannot carry the model.
    """
    delta = shortened(gated, trace.shapes)
    graph = delta.gated.model.graph
    masks = [value.name for value in graph.input if value.name.startswith(_OURS)]
    nodes, reached = downstream(graph, lambda _, node: _added(node), masks)
    wanted = tuple(name for name in outputs if name in reached)
    if not wanted:
        return Suffix(None, {}, (), gated.feeds)
    boundary = {name: delta.known.get(name, name) for name in entering(graph, nodes, reached)}
    model = _extract(delta, boundary, wanted, trace.dtypes)
    if model is None:
        whole = Session(with_outputs(gated.model, wanted))
        return Suffix(whole, {name: name for name in inputs}, wanted, gated.feeds)
    if steady:
        unroll(model, trace.shapes)
    return Suffix(Session(model), boundary, wanted, delta.feeds)


def _added(node: onnx.NodeProto) -> bool:
    """Whether the original has not got what a node gives."""
    return any(name.startswith(NORM) for name in node.output)


def _extract(
    delta: Delta,
    boundary: Mapping[str, str],
    outputs: Sequence[str],
    dtypes: Mapping[str, np.dtype[np.generic]],
) -> onnx.ModelProto | None:
    """Let graphsurgeon take the suffix out; None where it would lose something."""
    model = delta.gated.model
    if any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
        return None
    try:
        graph = gs.import_onnx(model)
        tensors = graph.tensors()
        masks = [tensor for tensor in graph.inputs if tensor.name.startswith(_OURS)]
        for name, value in boundary.items():
            tensors[name].inputs.clear()
            tensors[name].dtype, tensors[name].shape = dtypes.get(value, np.dtype(np.float32)), None
        graph.inputs = masks + [tensors[name] for name in boundary]
        graph.outputs = [tensors[name] for name in outputs]
        graph.cleanup().toposort()
        extracted: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
        return extracted
    except Exception:  # graphsurgeon raises whatever its parser meets; the whole model still works
        return None
