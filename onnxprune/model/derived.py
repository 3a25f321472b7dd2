"""Numbers that are computed from shapes: they follow a cut, or must be told about it."""

import numpy as np

from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["constant_values", "derived_nodes"]


def constant_values(view: View) -> frozenset[str]:
    """Return the values that depend on constants alone: weights and what is made of them."""
    known = set(view.uses)
    for node in view.nodes:
        given = [value for value in node.inputs if value]
        if given and not node.bodies and all(value in known for value in given):
            known.update(value for value in node.outputs if value)
    return frozenset(known)


def derived_nodes(view: View, trace: Trace) -> frozenset[int]:
    """Return the nodes that compute with shapes rather than with data.

    Those are Shape and Size, and every node that reads only their results and constants, as long
    as its outputs are small; and integer arithmetic on constants alone (TorchScript writes
    paddings that way). Their axes are no channels, but their numbers may count some.
    """
    constants = constant_values(view)
    given_out = {v for n in view.nodes for body in n.bodies.values() for v in body.outputs}
    derived: set[str] = set()
    nodes: set[int] = set()
    for node in view.nodes:
        given = [value for value in node.inputs if value]
        if node.bodies or not given_out.isdisjoint(node.outputs):
            continue  # what a body gives out is nobody's parameter
        if not all(_is_number(value, trace) for value in node.outputs if value):
            continue
        if node.op_type in ("Shape", "Size"):
            wanted = True
        elif not given or any(value not in derived and value not in constants for value in given):
            wanted = False
        else:
            wanted = any(value in derived for value in given) or _integers(node.outputs, trace)
        if wanted:
            nodes.add(node.index)
            derived.update(value for value in node.outputs if value)
    return frozenset(nodes)


def _is_number(value: str, trace: Trace) -> bool:
    """A list or table of integers, or a single number of any type: not an activation."""
    array = trace.values.get(value)
    if array is None:
        return False
    return array.size == 1 or (array.ndim <= 2 and _integral(array.dtype))


def _integers(outputs: tuple[str, ...], trace: Trace) -> bool:
    return all(_integral(trace.values[value].dtype) for value in outputs if value)


def _integral(dtype: np.dtype[np.generic]) -> bool:
    """Narrow integers are quantized data, not numbers to compute shapes with."""
    return dtype.kind == "b" or (dtype.kind == "i" and dtype.itemsize >= 4)
