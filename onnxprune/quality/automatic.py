"""Which metric suits an output: guessed from what makes it, what reads it, and its name."""

import re

from onnxprune.model.view import Node, View
from onnxprune.runtime.trace import Trace

__all__ = ["class_axis", "guess"]

_SCORES = re.compile(r"logit|prob|score|class|label|pred|softmax", re.IGNORECASE)
# Names that exporters give to class scores, but to anything else, too.
_VAGUE = re.compile(r"output|dense|identity|partitionedcall|^y$|^\d+$", re.IGNORECASE)
_FEATURES = re.compile(r"embed|hidden|feature|state(?!ful)|pool", re.IGNORECASE)
_MASKS = re.compile(r"mask|segm|semantic", re.IGNORECASE)
_FEATURE_MAKERS = ("LayerNormalization", "LpNormalization", "Relu", "Tanh")
_SOFT = ("Softmax", "LogSoftmax")


def guess(view: View, trace: Trace, output: str) -> str:
    """Name the metric that suits an output.

    Class scores (two axes, behind Softmax or with a name that says so) are compared by their top
    class; masks (four axes, one score per class and pixel) by intersection over union; anything
    else by the size of its change.

    Parameters
    ----------
    view : View
    trace : Trace
    output : str
        A value of the float frontier.

    Returns
    -------
    str
        ``agreement``, ``mean_iou`` or ``relative_l2``.
    """
    shape = trace.shapes.get(output, ())
    if len(shape) == 2 and shape[1] >= 2 and _scores(view, output):
        return "agreement"
    if len(shape) == 4 and _dense(view, trace, output):
        return "mean_iou"
    return "relative_l2"


def class_axis(view: View, trace: Trace, output: str) -> int:
    """Return the axis that counts classes.

    That of Softmax or ArgMax around it; else axis 1 of images, and the last one of anything else.
    """
    rank = len(trace.shapes.get(output, ()))
    for node in (*_makers(view, output), *_readers(view, output)):
        axis = node.attributes.get("axis")
        if isinstance(axis, int) and node.op_type in (*_SOFT, "ArgMax", "Hardmax"):
            return axis % rank
    return 1 if rank >= 4 else max(rank - 1, 0)


def _scores(view: View, output: str) -> bool:
    behind = any(node.op_type in _SOFT for node in _makers(view, output))
    named = _SCORES.search(output) or (_VAGUE.search(output) and not _is_feature(view, output))
    return behind or bool(named and not _FEATURES.search(output))


def _is_feature(view: View, output: str) -> bool:
    """What comes out of an activation, or is divided by its own norm, is no score of a class."""
    for node in _makers(view, output):
        if node.op_type == "Div" and not any(view.is_constant(v) for v in node.inputs):
            whole = view.producers.get(node.inputs[0])
            return whole is None or whole.op_type != "Exp"  # a Softmax written out
        return node.op_type in _FEATURE_MAKERS
    return False


def _dense(view: View, trace: Trace, output: str) -> bool:
    """One score per class and pixel: behind or before an operator that says so, or so named."""
    if class_axis(view, trace, output) == 0 or not all(size > 0 for size in trace.shapes[output]):
        return False
    decides = any(n.op_type in ("ArgMax", "Hardmax") for n in _readers(view, output))
    soft = any(n.op_type in _SOFT for n in _makers(view, output))
    return decides or soft or bool(_MASKS.search(output))


def _makers(view: View, output: str) -> list[Node]:
    maker = view.producers.get(output)
    return [] if maker is None else [maker]


def _readers(view: View, output: str) -> list[Node]:
    return [view.by_index[edge.node] for edge in view.consumers.get(output, ())]
