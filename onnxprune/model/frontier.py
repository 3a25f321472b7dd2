"""Where outputs can be compared by size of change: the last float tensors before they jump."""

from onnxprune.model.view import Node, View
from onnxprune.runtime.trace import Trace

__all__ = ["float_frontier"]

# What these give is a set of rows that the data picks, in an order that the data decides.
_PICKING = frozenset({"Compress", "NonMaxSuppression", "NonZero", "TopK", "Unique"})
# These put rows back where they came from, or sum over all of them.
_GATHERING = frozenset({"ScatterElements", "ScatterND", "Scatter"}) | {
    f"Reduce{how}"
    for how in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
}


def float_frontier(view: View, trace: Trace) -> tuple[str, ...]:
    """Return the graph's float outputs, and in place of others the float tensors they come from.

    Class numbers behind ArgMax, token ids, maps and sequences have no distance; boxes behind
    NonMaxSuppression, TopK or NonZero come in numbers and an order that a small change upsets, so
    that nothing can be compared row by row. What they are made from changes smoothly. The search
    never goes back past an operator with weights: behind it, something could be cut unseen.

    Parameters
    ----------
    view : View
    trace : Trace

    Returns
    -------
    tuple of str
        Value names, without repetition.
    """
    shuffled = _shuffled(view)
    found: dict[str, None] = {}
    seen: set[str] = set()
    waiting = list(reversed(view.outputs))
    while waiting:
        value = waiting.pop()
        if value in seen or view.is_constant(value):
            continue
        seen.add(value)
        dtype = trace.dtypes.get(value)
        maker = view.producers.get(value)
        smooth = value not in shuffled or (maker is not None and _weighted(maker, view))
        if dtype is not None and dtype.kind in "fV" and smooth:
            if value not in view.inputs:
                found[value] = None
        elif maker is not None:
            waiting.extend(v for v in reversed(maker.inputs) if v)
    return tuple(found)


def _shuffled(view: View) -> set[str]:
    """Values whose rows are picked by the data."""
    found: set[str] = set()
    for node in view.nodes:  # in topological order
        fed = [v for v in node.inputs if v and not view.is_constant(v)]
        picks = node.op_type in _PICKING and bool(fed) and not _picks_one(node, view)
        passes = node.op_type not in _GATHERING and not found.isdisjoint(fed)
        if picks or passes:
            found.update(v for v in node.outputs if v)
    return found


def _picks_one(node: Node, view: View) -> bool:
    """The best one alone has no order: TopK of 1 is ArgMax, and stays where it is."""
    if node.op_type != "TopK" or len(node.inputs) < 2 or not view.is_constant(node.inputs[1]):
        return False
    return bool((view.constant(node.inputs[1]) == 1).all())


def _weighted(node: Node, view: View) -> bool:
    """Whether the operator holds weights that contract an axis, or could."""
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "LSTM", "GRU", "RNN", "Attention"):
        return True
    if node.op_type in ("MatMul", "Einsum", "MatMulInteger", "QLinearConv", "QLinearMatMul"):
        return any(v and view.is_constant(v) for v in node.inputs)
    return node.op_type in ("If", "Loop", "Scan")
