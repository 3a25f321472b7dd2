"""Where outputs can be compared by size of change: the last float tensors before them."""

from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["float_frontier"]


def float_frontier(view: View, trace: Trace) -> tuple[str, ...]:
    """Return the graph's float outputs, and for every other one the float tensors it is made of.

    Class numbers behind ArgMax, token ids, maps and sequences jump or have no distance; what they
    are computed from changes smoothly.

    Parameters
    ----------
    view : View
    trace : Trace

    Returns
    -------
    tuple of str
        Value names, without repetition.
    """
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(reversed(view.outputs))
    while waiting:
        value = waiting.pop()
        if value in seen or view.is_constant(value):
            continue
        seen.add(value)
        dtype = trace.dtypes.get(value)
        if dtype is not None and dtype.kind in "fV":
            if value not in view.inputs:
                found[value] = None
        elif value in view.producers:
            waiting.extend(v for v in reversed(view.producers[value].inputs) if v)
    return tuple(found)
