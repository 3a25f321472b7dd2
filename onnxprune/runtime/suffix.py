"""The part of a gated model that a gate can reach, fed from cached activations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnxprune.runtime.gates import NORM, Gated
from onnxprune.runtime.session import Feeds, Session, captured_values

__all__ = ["Suffix", "make_suffix"]


@dataclass(frozen=True, eq=False)
class Suffix:
    """The model downstream of its gates.

    Attributes
    ----------
    gated : Gated
    session : Session
        Takes masks and the boundary values; None where the gates reach no output at all.
    boundary : tuple of str
        Values of the original that cross into the suffix.
    inputs : tuple of str
        Original inputs that the suffix reads itself.
    outputs : tuple of str
    """

    gated: Gated
    session: Session | None
    boundary: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def run(
        self, cache: Feeds, masks: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run from cached boundary values under keep masks (of `Gated.feeds`)."""
        if self.session is None:
            return {}
        return self.session.run({**cache, **masks}, self.outputs)


def make_suffix(
    gated: Gated,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dtypes: Mapping[str, np.dtype[np.generic]],
    *,
    threads: int = 1,
) -> Suffix:
    """Cut a gated model down to what its gates can change.

    Parameters
    ----------
    gated : Gated
    inputs : sequence of str
        Inputs of the original model.
    outputs : sequence of str
        Outputs to compare; those that no gate reaches are left out.
    dtypes : mapping of value name to dtype
    threads : int

    Returns
    -------
    Suffix
        The whole gated model, slower but equal, where graphsurgeon cannot carry the model.
    """
    reached, order = _downstream(gated)
    wanted = tuple(name for name in outputs if name in reached)
    if not wanted:
        return Suffix(gated, None, (), (), ())
    boundary = _boundary(order, reached, gated.model)
    crossing = tuple(name for name in boundary if name not in inputs)
    model = _extract(gated.model, boundary, wanted, dtypes)
    if model is None:
        session = Session(gated.model, threads=threads)
        return Suffix(gated, session, (), tuple(inputs), wanted)
    session = Session(model, threads=threads)
    used = tuple(name for name in inputs if name in boundary)
    return Suffix(gated, session, crossing, used, wanted)


def _downstream(gated: Gated) -> tuple[set[str], list[onnx.NodeProto]]:
    """Values that depend on a mask, or that the original has not got, and who makes them."""
    masks = set(gated.feeds({}))
    reached, nodes = set(masks), []
    for node in gated.model.graph.node:
        added = any(name.startswith(NORM) for name in node.output)
        if added or any(name in reached for name in (*node.input, *captured_values(node))):
            nodes.append(node)
            reached.update(node.output)
    return reached, nodes


def _boundary(
    nodes: Sequence[onnx.NodeProto], reached: set[str], model: onnx.ModelProto
) -> tuple[str, ...]:
    constants = {t.name for t in model.graph.initializer}
    constants |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    found = (name for node in nodes for name in (*node.input, *captured_values(node)))
    return tuple(dict.fromkeys(n for n in found if n and n not in reached and n not in constants))


def _extract(
    model: onnx.ModelProto,
    boundary: Sequence[str],
    outputs: Sequence[str],
    dtypes: Mapping[str, np.dtype[np.generic]],
) -> onnx.ModelProto | None:
    """Let graphsurgeon take the suffix out; None where it would lose something."""
    if any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
        return None
    try:
        graph = gs.import_onnx(model)
        tensors = graph.tensors()
        masks = [tensor for tensor in graph.inputs if tensor.name.startswith("onnxprune/")]
        for name in boundary:
            tensors[name].inputs.clear()
            tensors[name].dtype, tensors[name].shape = dtypes.get(name, np.dtype(np.float32)), None
        graph.inputs = masks + [tensors[name] for name in boundary]
        graph.outputs = [tensors[name] for name in outputs]
        graph.cleanup().toposort()
        extracted: onnx.ModelProto = gs.export_onnx(graph, do_type_check=False)
        return extracted
    except Exception:  # graphsurgeon raises whatever its parser meets; the whole model still works
        return None
