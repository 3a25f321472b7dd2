"""What attention reads: the way of queries, keys and values, and where their heads lie.

Attention is a MatMul of queries with keys and one of what follows with values, or one operator.
"""

import numpy as np
from numpy.typing import NDArray

from onnxprune.model.view import Edge, Node, View
from onnxprune.runtime.trace import Trace

__all__ = [
    "KEYS",
    "LINEAR",
    "VALUES",
    "ends_of",
    "heads_along",
    "heads_of",
    "is_fused",
    "lies_flat",
]

Places = NDArray[np.int64]
LINEAR = ("MatMul", "Gemm")  # channels on the last axis of what they read and make
_MOVES = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
_HEADS = {
    ("", "Attention"): ("q_num_heads", "kv_num_heads"),
    ("com.microsoft", "MultiHeadAttention"): ("num_heads", "num_heads"),
}
"""Attributes that say how many heads queries have, and keys and values, by operator."""
_UNKNOWN = {"Attention": (4, 5), "MultiHeadAttention": (3, 6, 7, 8, 9)}
"""Inputs that are put to keys and values inside: biases, and those of earlier turns."""
_OPERANDS, _SIDE_BY_SIDE, _LEAST_RANK = 3, 3, 2
KEYS, VALUES = {True: -1, False: -2}, {True: 2, False: 1}
"""By whether attention is one operator: the axis of dims in keys, and the slot of values."""


def ends_of(view: View, trace: Trace, value: str) -> list[Edge]:
    """Return the products that a value is moved to; none if anything else happens to it."""
    found: list[Edge] = []
    waiting = [value]
    while waiting:
        name = waiting.pop()
        if name in view.outputs or name in view.inner:
            return []
        for edge in view.consumers.get(name, ()):
            node = view.by_index[edge.node]
            if node.owner >= 0:
                return []
            if node.op_type in LINEAR or _attends(view, node, edge.slot):
                found.append(edge)
            elif _moves(trace, node, edge.slot):
                waiting.extend(node.outputs)
            elif node.op_type != "Shape":
                return []
    return found


def _attends(view: View, node: Node, slot: int) -> bool:
    """Whether an operator does nothing to queries, keys and values but attention."""
    more = [v for v in node.outputs[1:] if v in view.consumers or v in view.outputs]
    others = [v for n in _UNKNOWN.get(node.op_type, ()) for v in node.inputs[n : n + 1] if v]
    return is_fused(node) and slot < _OPERANDS and not more and not others


def _moves(trace: Trace, node: Node, slot: int) -> bool:
    """Whether an operator moves what it reads, or multiplies all of it with one number."""
    if node.op_type == "Mul" or (node.op_type == "Div" and slot == 0):
        return bool(np.prod(trace.shapes[node.inputs[1 - slot]]) == 1)
    return node.op_type in _MOVES and slot == 0


def is_fused(node: Node) -> bool:
    """Whether an operator is the whole of attention."""
    return _operator(node) in _HEADS


def _operator(node: Node) -> tuple[str, str]:
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


def lies_flat(trace: Trace, node: Node) -> bool:
    """Whether heads lie side by side on the last axis of what an attention operator reads."""
    return is_fused(node) and len(trace.shapes[node.inputs[0]]) == _SIDE_BY_SIDE


def heads_of(node: Node, slot: int) -> int:
    """Return how many heads an attention operator finds in what it reads; 0 where it says none."""
    heads = node.attributes.get(_HEADS[_operator(node)][slot > 0])
    return heads if isinstance(heads, int) else 0


def heads_along(trace: Trace, node: Node, slot: int, codes: Places, axis: int) -> Places | None:
    """Return the channels of each head in what attention reads.

    Parameters
    ----------
    trace : Trace
    node : Node
    slot : int
    codes : int array
        The channel of each element of it, -1 where none is to be seen.
    axis : int
        Of the dims: the last, or the one before.

    Returns
    -------
    int array, shape (..., heads, dims), optional
        None unless all is numbered, the same at every place of a sequence, each channel once.
    """
    if codes.ndim < _LEAST_RANK:
        return None
    rows = np.moveaxis(codes, axis, -1)
    first = rows[..., 0, :]
    fine = (codes >= 0).all() and (rows == first[..., None, :]).all()
    if not fine or (np.diff(np.sort(first, axis=-1), axis=-1) == 0).any():
        return None
    if not lies_flat(trace, node):
        return np.asarray(first)
    heads = heads_of(node, slot)
    if heads < 1 or first.shape[-1] % heads:
        return None
    return np.asarray(first.reshape(*first.shape[:-1], heads, -1))
