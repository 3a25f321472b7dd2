"""What is cached: the values that cross into the part of a model that is run again and again."""

from collections.abc import Callable, Sequence

import onnx

from onnxprune.runtime.downstream import entering

__all__ = ["given_from_outside", "within"]


def given_from_outside(
    graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], made: set[str]
) -> tuple[str, ...]:
    """Return the values that must be fed to nodes: those that enter, but no names inside bodies.

    Parameters
    ----------
    graph : GraphProto
    nodes : sequence of NodeProto
    made : set of str
        Values that the nodes make themselves.
    """
    values = {value.name for value in graph.input}
    values.update(name for node in graph.node for name in (*node.input, *node.output))
    return tuple(name for name in entering(graph, nodes, made) if name in values)


def within(
    boundary: Sequence[str], graph: onnx.GraphProto, size: Callable[[str], float], room: float
) -> tuple[str, ...]:
    """Move a boundary towards the inputs until what crosses it fits into some room.

    The largest value is made again in every run, from what its maker reads, then the next one.

    Parameters
    ----------
    boundary : sequence of str
    graph : GraphProto
    size : callable
        Gives a value's size.
    room : float
        In the same unit.

    Returns
    -------
    tuple of str
        At worst the inputs, and what no node of the graph makes.
    """
    makers = {name: node for node in graph.node for name in node.output}
    kept, made = list(dict.fromkeys(boundary)), set[str]()
    while sum(map(size, kept)) > room:
        inner = [name for name in kept if name in makers]
        if not inner:
            break
        maker = makers[max(inner, key=size)]
        made.update(maker.output)
        read = given_from_outside(graph, [maker], made)
        kept = [name for name in dict.fromkeys((*kept, *read)) if name not in made]
    return tuple(kept)
