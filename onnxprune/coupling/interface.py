"""Which axes of graph inputs and outputs stay, and which a cut may narrow where that is allowed."""

from collections.abc import Iterator, Set

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.relations import Axis, Freeze
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["changeable", "frozen_interface", "sizeless_inputs"]

_ASK = (
    "graph inputs and outputs stay as they are: other programs rely on them; "
    "--allow-interface-change lets states and features change"
)
_NEVER = "nothing: no channels that the model makes lie on this axis of its interface"


def frozen_interface(view: View, trace: Trace, free: Set[Axis] | None) -> Iterator[Freeze]:
    """Freeze the axes of graph inputs and outputs.

    Parameters
    ----------
    view : View
    trace : Trace
    free : set of Axis or None
        Axes that may change; None where nobody allowed any to.

    Yields
    ------
    Freeze
    """
    named = [(v, "input") for v in view.inputs] + [(v, "output") for v in view.outputs]
    for value, what in named:
        for number in range(len(trace.shapes.get(value, ()))):
            axis = Axis(value, number)
            if free is None or axis not in free:
                yield Freeze(axis, f"graph {what}", unlock=_ASK if free is None else _NEVER)


def sizeless_inputs(view: View) -> frozenset[Axis]:
    """Return the axes of graph inputs that have no fixed size: batches and times."""
    return frozenset(
        Axis(value.name, number)
        for value in view.model.graph.input
        for number, dim in enumerate(value.type.tensor_type.shape.dim)
        if dim.dim_value <= 0
    )


def changeable(view: View, coupling: Coupling) -> frozenset[Axis]:
    """Return the axes that a cut may narrow, of all that channels lie on.

    What only comes in and is handed on (an image behind its normalization) is data, whatever
    constants it meets on the way: a channel is made by the model.

    Parameters
    ----------
    view : View
    coupling : Coupling
        Found with no axis of fixed size frozen for being of the interface.

    Returns
    -------
    frozenset of Axis
    """
    return frozenset(
        member.axis.plain
        for group in coupling.groups
        if _is_made(view, coupling, group)
        for member in group.members
    )


def _is_made(view: View, coupling: Coupling, group: Group) -> bool:
    """Whether an operator makes the channels, and does not only hand on what came in."""
    values = {member.axis.value for member in group.members}
    if values.isdisjoint(view.inputs):
        return True
    constants = coupling.collected.constants
    summed = {
        (node, m.axis.value)
        for m in group.members
        for node, _ in coupling.contracts.get(m.axis, ())
    }
    for value in values & constants:
        for edge in view.consumers.get(value, ()):
            node = view.by_index[edge.node]
            handed = {v for v in node.inputs if v in values and (edge.node, v) not in summed}
            inside = (edge.node, value) in summed  # units of a cell, heads of a fused attention
            if values.intersection(node.outputs) - constants and (inside or not handed - constants):
                return True
    return False
