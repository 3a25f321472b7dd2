"""The model with a share of every channel gone: what it is on average while channels go at random.

Each weight that reads a channel is multiplied by what stays of it. Names and nodes keep as they
are, so that whatever is known of the original's structure holds for it too.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.keeps import keep_masks, per_block
from onnxprune.coupling.relations import Axis
from onnxprune.layers.student import Student
from onnxprune.model.view import Edge, Node, View, build_view

__all__ = ["thin"]


def thin(
    view: View, coupling: Coupling, groups: Sequence[Group], share: float
) -> tuple[View, Mapping[str, float]]:
    """Weaken what is read of every channel.

    Parameters
    ----------
    view : View
    coupling : Coupling
    groups : sequence of Group
    share : float
        What is taken from every channel, 0 to 1.

    Returns
    -------
    View
    dict of group name to float
        What stays of each of its channels: 1 - share, or 1 where some exit reads no float weight
        of its own (products of two activations, shared or quantized weights, grouped
        convolutions, bodies).
    """
    student = Student(view.model, (), view.base)
    stays = {}
    for group in groups:
        edges = dict(_read(view, coupling, group, student))
        stays[group.name] = 1.0 if None in edges.values() else 1.0 - share
        masks = keep_masks([(group, range(group.size))], coupling.collected.sizes)
        for edge, axis in edges.items() if stays[group.name] < 1.0 else ():
            array = student.read(edge)
            assert array is not None
            assert axis is not None
            whole = per_block(axis, masks[axis], array.shape)
            factor = np.where(whole, 1.0, 1.0 - share).astype(array.dtype)
            student.write(edge, np.multiply(array, factor))
    return build_view(student.model, view.base), stays


def _read(
    view: View, coupling: Coupling, group: Group, student: Student
) -> Iterator[tuple[Edge, Axis | None]]:
    """Find the weights at a group's exits and the axis of its channels; None where there is none.

    Statistics over the channels are the same of thinned ones: they need nothing.
    """
    axes = [m.axis for m in group.members]
    for axis in axes:
        for index, contract in coupling.contracts.get(axis, ()):
            if contract.how != "sum":
                continue
            node = view.by_index[index]
            constant = view.is_constant(axis.value)
            found = (contract.slot, axis.axis) if constant else _weight(view, node, contract.slot)
            slot, summed = found or (contract.slot, -1)
            edge, value = Edge(index, slot), node.inputs[slot]
            own = [a for a in axes if (a.value, a.axis) == (value, summed)]
            fit = len(own) == 1 and node.owner < 0 and student.owns(edge)
            yield edge, own[0] if fit and view.constant(value).dtype.kind == "f" else None


def _weight(view: View, node: Node, slot: int) -> tuple[int, int] | None:
    """Return slot and axis of the constant that is summed over together with an input's axis."""
    other = 1 - slot
    if slot > 1 or len(node.inputs) < 2 or not view.is_constant(node.inputs[other]):
        return None
    rank = view.constant(node.inputs[other]).ndim
    if node.op_type == "MatMul" and rank > 1:
        return other, rank - 2 if other else rank - 1
    if slot > 0 or node.attributes.get("group", 1) != 1:
        return None
    if node.op_type == "Gemm":
        return 1, 1 if node.attributes.get("transB") else 0
    known = {"Conv": 1, "ConvTranspose": 0, "LSTM": 2, "GRU": 2, "RNN": 2}
    return (1, known[node.op_type]) if node.op_type in known else None
