"""RMS normalizations whose statistic can be kept as it was, by rescaling two constants.

With n positions of which k stay, the mean square over what stays is n/k times what it was with
zeros in place of the rest. A scale times sqrt(n/k), and an epsilon times n/k, undo that:

    gamma sqrt(n/k) x / sqrt(S/k + eps n/k)  =  gamma x / sqrt(S/n + eps)
"""

from dataclasses import dataclass

import numpy as np

from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Edge, Node, View

__all__ = ["Rms", "find_rms"]

_FUSED = ("RMSNormalization", "SimplifiedLayerNormalization")
_CASTS = ("Cast", "Identity")


@dataclass(frozen=True, slots=True)
class Rms:
    """Where the constants of an RMS normalization are.

    Attributes
    ----------
    axis : Axis
        What the mean runs over.
    scale : Edge
        Slot of gamma.
    epsilon : Edge, optional
        Slot of epsilon; None where it is an attribute of the node.
    """

    axis: Axis
    scale: Edge
    epsilon: Edge | None


def find_rms(view: View, node: Node, axis: Axis) -> Rms | None:
    """Look for the constants of an RMS normalization.

    Parameters
    ----------
    view : View
    node : Node
        The fused operator, or the ReduceMean of one that is written out.
    axis : Axis
        Of its input.

    Returns
    -------
    Rms or None
        None where it is no such normalization, or its constants are not in fp32 or fp64: rescaled
        ones would be rounded.
    """
    if node.op_type in _FUSED and not any(node.outputs[1:]):
        fused = Edge(node.index, 1)
        return Rms(axis, fused, None) if _precise(view, fused) else None
    if node.op_type != "ReduceMean" or _about_a_mean(view, node.inputs[0]):
        return None
    add = _only_reader(view, node.outputs[0], ("Add",))
    root = None if add is None else _only_reader(view, add.outputs[0], ("Sqrt",))
    if add is None or root is None:
        return None
    epsilon = Edge(add.index, 1 - add.inputs.index(node.outputs[0]))
    normal = _normalized(view, root.outputs[0])
    scale = None if normal is None else _scale(view, normal)
    if scale is None or not (_precise(view, epsilon) and _precise(view, scale)):
        return None
    single = view.constant(add.inputs[epsilon.slot]).size == 1
    return Rms(axis, scale, epsilon) if single else None


def _about_a_mean(view: View, square: str) -> bool:
    """Whether a square is of differences: LayerNormalization, whose mean changes, too."""
    node = view.producers.get(square)
    base = None if node is None else view.producers.get(node.inputs[0])
    return base is not None and base.op_type == "Sub"


def _normalized(view: View, root: str) -> str | None:
    """Follow x / root, or x times the inverse of the root, to the result."""
    node = _only_reader(view, root, ("Div", "Reciprocal"))
    if node is None or (node.op_type == "Div" and node.inputs[0] == root):
        return None
    if node.op_type == "Reciprocal" or _is_one(view, node.inputs[0]):
        node = _only_reader(view, node.outputs[0], ("Mul",))
    return None if node is None else node.outputs[0]


def _scale(view: View, value: str) -> Edge | None:
    """Find the constant that the result is multiplied with, behind casts."""
    node = _only_reader(view, value, ("Mul", *_CASTS))
    while node is not None and node.op_type in _CASTS:
        value = node.outputs[0]
        node = _only_reader(view, value, ("Mul", *_CASTS))
    if node is None or node.inputs.count(value) != 1:
        return None
    return Edge(node.index, 1 - node.inputs.index(value))


def _is_one(view: View, value: str) -> bool:
    return view.is_constant(value) and bool((view.constant(value) == 1).all())


def _precise(view: View, edge: Edge) -> bool:
    value = view.by_index[edge.node].inputs[edge.slot]
    return view.is_constant(value) and view.constant(value).dtype in (np.float32, np.float64)


def _only_reader(view: View, value: str, ops: tuple[str, ...]) -> Node | None:
    """Return the one node that reads a value, if it is of these types."""
    edges = view.consumers.get(value, ())
    if len({edge.node for edge in edges}) != 1 or value in view.outputs:
        return None
    node = view.by_index[edges[0].node]
    return node if node.op_type in ops and node.domain == "" else None
