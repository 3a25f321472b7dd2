"""Nodes in the order that data flow: ONNX asks for it, onnxruntime does not, some forget it."""

import onnx

from onnxprune.model.scopes import values_read

__all__ = ["in_order"]


def in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model with every node behind the nodes that it reads.

    Parameters
    ----------
    model : ModelProto
        Not changed.

    Returns
    -------
    ModelProto
        The model itself where it is in order, as it should be.
    """
    nodes = list(model.graph.node)
    makers = {value: number for number, node in enumerate(nodes) for value in node.output if value}
    needs = [{makers[v] for v in values_read(node) if v in makers} for node in nodes]
    if all(max(wanted, default=-1) < number for number, wanted in enumerate(needs)):
        return model
    order = _sorted(needs)
    if len(order) < len(nodes):
        return model  # a cycle, or a name made twice: onnxruntime says so better
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes[number] for number in order)
    return copy


def _sorted(needs: list[set[int]]) -> list[int]:
    """Take the first node that is ready, again and again; those in a cycle never are."""
    done: set[int] = set()
    order: list[int] = []
    waiting = list(range(len(needs)))
    while waiting:
        later = []
        for number in waiting:
            if needs[number] <= done:
                done.add(number)
                order.append(number)
            else:
                later.append(number)
        if len(later) == len(waiting):
            break
        waiting = later
    return order
