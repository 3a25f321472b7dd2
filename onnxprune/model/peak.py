"""How much memory activations need at once."""

from math import prod

from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["peak_activations"]


def peak_activations(view: View, trace: Trace) -> int:
    """Return the most bytes of activations that are alive at once, in the order of the graph.

    A value lives from the node that makes it to its last reader; inputs from the start, outputs to
    the end. Runtimes fuse operators and reuse memory in place, so they may need less, or more for
    work space of their own: it is a figure to compare models by.

    Parameters
    ----------
    view : View
    trace : Trace
        At the sizes that the figure is asked for.
    """
    size = {
        value: prod(shape) * trace.dtypes[value].itemsize
        for value, shape in trace.shapes.items()
        if not view.is_constant(value)
    }
    last = dict.fromkeys(size, -1)
    for place, node in enumerate(view.nodes):
        last.update((v, place) for v in (*node.inputs, *node.outputs) if v in size)
    last.update((value, len(view.nodes)) for value in view.outputs if value in size)
    alive = sum(size[value] for value in view.inputs if value in size)
    peak = alive
    for place, node in enumerate(view.nodes):
        alive += sum(size.get(value, 0) for value in node.outputs)
        peak = max(peak, alive)
        ending = {v for v in (*node.inputs, *node.outputs) if last.get(v) == place}
        alive -= sum(size[value] for value in ending)
    return peak
