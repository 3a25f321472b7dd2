"""The part of a graph that a change of some nodes can reach, and what enters it."""

from collections.abc import Callable, Iterable, Sequence

import onnx

from onnxprune.model.scopes import values_read

__all__ = ["downstream", "entering"]


def downstream(
    graph: onnx.GraphProto,
    starts: Callable[[int, onnx.NodeProto], bool],
    changed: Iterable[str] = (),
) -> tuple[list[onnx.NodeProto], set[str]]:
    """Follow a change through a graph.

    Parameters
    ----------
    graph : GraphProto
        Its nodes in topological order.
    starts : callable
        Whether a node changes by itself, given its index and the node.
    changed : iterable of str
        Values that change from the start.

    Returns
    -------
    nodes : list of NodeProto
        Those that change or read what does, in the graph's order.
    reached : set of str
        Values that change.
    """
    reached, nodes = set(changed), []
    for number, node in enumerate(graph.node):
        if starts(number, node) or not reached.isdisjoint(values_read(node)):
            nodes.append(node)
            reached.update(node.output)
    return nodes, reached


def entering(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], reached: set[str]
) -> tuple[str, ...]:
    """Return the values that must be fed to nodes: what they read from before them.

    Graph inputs are among them, names inside bodies are not. Constants, and what is computed from
    these alone, are left out: they are computed where they are read.

    Parameters
    ----------
    graph : GraphProto
    nodes : sequence of NodeProto
    reached : set of str
        Values that the nodes make themselves, or that are given otherwise.
    """
    constants = {"", *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        if node.op_type == "Constant" or (node.input and constants.issuperset(values_read(node))):
            constants.update(node.output)
    values = {value.name for value in graph.input}
    values.update(name for node in graph.node for name in (*node.input, *node.output))
    found = dict.fromkeys(name for node in nodes for name in values_read(node))
    values -= reached | constants
    return tuple(name for name in found if name in values)
