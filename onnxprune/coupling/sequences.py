"""A sequence that is split off a tensor and read part by part is a Split in other words."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.rules import Op, Tensor
from onnxprune.model.view import Node, View

__all__ = ["as_split", "part_sizes", "parts_of", "reads_part"]


def parts_of(view: View, node: Node) -> tuple[str, ...] | None:
    """Find what reads the parts of a SplitToSequence.

    Parameters
    ----------
    view : View
    node : Node

    Returns
    -------
    tuple of str
        The value that each part is read as, "" where it is not read. None where the node is no
        such split, or where its sequence is read in another way than by constant numbers, once
        each.
    """
    if node.op_type != "SplitToSequence" or node.domain:
        return None
    sequence, sizes = node.outputs[0], node.inputs[1:2]
    kept = node.attributes.get("keepdims", 1) == 1
    if not (all(map(view.is_constant, sizes)) and (sizes or kept)) or sequence in _given(view):
        return None
    found: dict[int, str] = {}
    for edge in view.consumers.get(sequence, ()):
        reader = view.by_index[edge.node]
        number = reader.inputs[1] if len(reader.inputs) > 1 else ""
        if reader.op_type != "SequenceAt" or reader.domain or not view.is_constant(number):
            return None
        index = int(view.constant(number).flat[0])
        if index < 0 or index in found:
            return None
        found[index] = reader.outputs[0]
    return tuple(found.get(number, "") for number in range(max(found, default=-1) + 1))


def reads_part(view: View, node: Node) -> bool:
    """Say whether a node takes a part of such a split: the split speaks for it."""
    if node.op_type != "SequenceAt" or node.domain or node.inputs[0] not in view.producers:
        return False
    return parts_of(view, view.producers[node.inputs[0]]) is not None


def as_split(op: Op) -> Op:
    """Say the same with Split.

    Parameters
    ----------
    op : Op
        A SplitToSequence of a tensor that a run has shown, with the parts of `parts_of` as outputs.

    Returns
    -------
    Op
    """
    x, split, axis = op.x(0), op.optional(1), op.integer("axis", 0)
    sizes = part_sizes(None if split is None else split.data, x.shape[axis % x.rank])
    outputs = (*op.outputs, *[None] * len(sizes))[: len(sizes)]
    lengths = Tensor(f"{op.name}/sizes", (len(sizes),), True, np.array(sizes, np.int64))
    return replace(
        op,
        op_type="Split",
        opset=max(op.opset, 13),
        attributes={"axis": axis},
        inputs=(x, lengths),
        outputs=outputs,
    )


def part_sizes(split: NDArray[np.generic] | None, length: int) -> list[int]:
    """Return the sizes of the parts of an axis.

    Parameters
    ----------
    split : int array, optional
        The operator's second input: one size for all parts but a shorter last one, or a list of
        sizes; parts of size 1 without it.
    length : int
        Of the axis.

    Returns
    -------
    list of int
    """
    if split is not None and split.ndim:
        return [int(size) for size in split]
    size = 1 if split is None else int(split)
    return [min(size, length - start) for start in range(0, length, size)]


def _given(view: View) -> set[str]:
    """What the model and its bodies give out."""
    bodies = (body for node in view.nodes for body in node.bodies.values())
    return set(view.outputs).union(*(body.outputs for body in bodies))
