"""The model with a share of every channel gone: what it is on average while channels go at random.

Each weight that reads a channel is multiplied by what stays of it. Names and nodes keep as they
are, so that whatever is known of the original's structure holds for it too.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.relations import Axis
from onnxprune.layers.student import Student
from onnxprune.model.view import Edge, View, build_view
from onnxprune.rewrite.keeps import keep_masks, per_block

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
        of its own (products of two activations, shared or quantized weights, bodies).
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
    constant = {m.axis.value: m.axis for m in group.members if view.is_constant(m.axis.value)}
    for member in group.members:
        for index, contract in coupling.contracts.get(member.axis, ()):
            if contract.how != "sum":
                continue
            node = view.by_index[index]
            edges = [Edge(index, s) for s, v in enumerate(node.inputs) if v in constant]
            if node.owner >= 0 or not edges:
                yield Edge(index, contract.slot), None
            for edge in edges if node.owner < 0 else ():
                axis = constant[node.inputs[edge.slot]]
                own = student.owns(edge) and view.constant(axis.value).dtype.kind == "f"
                yield edge, axis if own else None
