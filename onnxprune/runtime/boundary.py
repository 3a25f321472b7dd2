"""What is cached: the values that cross into the part of a model that is run again and again."""

from collections.abc import Callable, Sequence

import onnx

from onnxprune.runtime.downstream import entering

__all__ = ["within"]


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
        read = entering(graph, [maker], made)
        kept = [name for name in dict.fromkeys((*kept, *read)) if name not in made]
    return tuple(kept)
