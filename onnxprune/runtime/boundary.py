"""What is cached: the values that cross into the part of a model that is run again and again."""

from collections.abc import Callable, Collection, Sequence

import onnx

from onnxprune.runtime.gates import NORM
from onnxprune.runtime.session import captured_values

__all__ = ["OURS", "boundary_of", "downstream", "within"]

OURS = "onnxprune/"  # how the names of masks and of what is lost begin


def downstream(model: onnx.ModelProto) -> tuple[set[str], list[onnx.NodeProto]]:
    """Return the values that depend on a mask, or that the original has not got, and their makers.

    Parameters
    ----------
    model : ModelProto
        Gated.
    """
    reached, nodes = {i.name for i in model.graph.input if i.name.startswith(OURS)}, []
    for node in model.graph.node:
        added = any(name.startswith(NORM) for name in node.output)
        if added or any(name in reached for name in (*node.input, *captured_values(node))):
            nodes.append(node)
            reached.update(node.output)
    return reached, nodes


def boundary_of(
    nodes: Sequence[onnx.NodeProto], reached: Collection[str], model: onnx.ModelProto
) -> tuple[str, ...]:
    """Return the values that nodes read from before them; weights are computed where they are read.

    Parameters
    ----------
    nodes : sequence of NodeProto
    reached : collection of str
        What they make.
    model : ModelProto
        That they are part of.
    """
    values, past = _values(model), {*reached, *_constants(model)}
    found = dict.fromkeys(name for node in nodes for name in _read(node) if name not in past)
    return tuple(n for n in found if n in values or n.startswith(OURS))  # not those inside bodies


def within(
    boundary: Sequence[str], model: onnx.ModelProto, size: Callable[[str], float], room: float
) -> tuple[str, ...]:
    """Move a boundary towards the inputs until what crosses it fits into some room.

    The largest value is made again in every run, from what its maker reads, then the next one.

    Parameters
    ----------
    boundary : sequence of str
    model : ModelProto
    size : callable
        Gives a value's size.
    room : float
        In the same unit.

    Returns
    -------
    tuple of str
        At worst the inputs, and what no node of the model makes.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    values = _values(model) - _constants(model)
    kept, made = dict.fromkeys(boundary), set[str]()
    while sum(map(size, kept)) > room:
        inner = [name for name in kept if name in makers]
        if not inner:
            break
        largest = max(inner, key=size)
        made.update(makers[largest].output)
        read = [name for name in _read(makers[largest]) if name in values]
        kept = dict.fromkeys(name for name in (*kept, *read) if name not in made)
    return tuple(kept)


def _read(node: onnx.NodeProto) -> list[str]:
    return [*node.input, *captured_values(node)]


def _values(model: onnx.ModelProto) -> set[str]:
    given = (value.name for value in model.graph.input)
    return {*given, *(name for node in model.graph.node for name in node.output)}


def _constants(model: onnx.ModelProto) -> set[str]:
    """Return what hangs on weights alone."""
    constants = {"", *(t.name for t in model.graph.initializer)}
    for node in model.graph.node:
        if node.op_type == "Constant" or (node.input and constants.issuperset(node.input)):
            constants.update(node.output)
    return constants
