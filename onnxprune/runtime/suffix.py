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
from onnxprune.runtime.gates import NORM, Gated
from onnxprune.runtime.session import Feeds, Session, captured_values, with_outputs
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

    def cache(self, original: Session | None, feed: Feeds) -> Feeds:
        """Return what crosses into the suffix on a feed.

        Parameters
        ----------
        original : Session, optional
            Gives every value of the boundary that is no input; None where there is none.
        feed : mapping of input name to array
        """
        inner = tuple(dict.fromkeys(v for v in self.boundary.values() if v not in feed))
        known = {**feed, **(original.run(feed, inner) if original is not None else {})}
        return {name: known[value] for name, value in self.boundary.items()}

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
    reached, order = _downstream(delta.gated.model)
    wanted = tuple(name for name in outputs if name in reached)
    if not wanted:
        return Suffix(None, {}, (), gated.feeds)
    boundary = {
        name: delta.known.get(name, name) for name in _boundary(order, reached, delta.gated.model)
    }
    model = _extract(delta, boundary, wanted, trace.dtypes)
    if model is None:
        whole = Session(with_outputs(gated.model, wanted))
        return Suffix(whole, {name: name for name in inputs}, wanted, gated.feeds)
    if steady:
        unroll(model, trace.shapes)
    return Suffix(Session(model), boundary, wanted, delta.feeds)


def _downstream(model: onnx.ModelProto) -> tuple[set[str], list[onnx.NodeProto]]:
    """Values that depend on a mask, or that the original has not got, and who makes them."""
    reached, nodes = {i.name for i in model.graph.input if i.name.startswith(_OURS)}, []
    for node in model.graph.node:
        added = any(name.startswith(NORM) for name in node.output)
        if added or any(name in reached for name in (*node.input, *captured_values(node))):
            nodes.append(node)
            reached.update(node.output)
    return reached, nodes


def _boundary(
    nodes: Sequence[onnx.NodeProto], reached: set[str], model: onnx.ModelProto
) -> tuple[str, ...]:
    """Values that nodes read from before them; weights are computed where they are read."""
    constants = {"", *(t.name for t in model.graph.initializer)}
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.input and constants.issuperset(node.input)):
            constants.update(node.output)
    found = (name for node in nodes for name in (*node.input, *captured_values(node)))
    return tuple(dict.fromkeys(n for n in found if n not in reached and n not in constants))


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
