"""BatchNormalizations retuned to made-up inputs, and put back afterwards.

What a network does on made-up inputs is nothing like what it does on real ones: activations drift
away from where they were trained to be. But each BatchNormalization has stored what its input was
like. With these statistics exchanged for those that the made-up inputs have at that very place,
everything behind sees the means and variances that real inputs would give. What is chosen and
refitted on that network holds better for the real one, which gets its own statistics back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.layers.slots import Slots
from onnxprune.layers.student import Student
from onnxprune.model.view import Edge, Node, View, build_view
from onnxprune.runtime.session import Feeds

__all__ = ["lifelike", "restored", "retuned"]

_MEAN, _VARIANCE = 3, 4  # input slots
_LEAST = 1e-3  # share of the stored variance below which a channel is left as it is: it sleeps
_BATCH = 16
Array = NDArray[np.generic]


def lifelike(found: Analysis) -> Analysis:
    """Look at a model with its BatchNormalizations retuned, where its inputs are made up.

    Parameters
    ----------
    found : Analysis

    Returns
    -------
    Analysis
        The same where the inputs are real, or there is nothing to retune.
    """
    if not found.samples.synthetic:
        return found
    feeds = list(found.samples.feeds(range(len(found.samples)), _BATCH))
    model = retuned(found.view, feeds)
    return found if model is None else replace(found, view=build_view(model, found.view.base))


def retuned(view: View, feeds: Sequence[Feeds]) -> onnx.ModelProto | None:
    """Exchange the statistics of BatchNormalizations for those of some inputs, first to last.

    Parameters
    ----------
    view : View
    feeds : sequence of Feeds

    Returns
    -------
    ModelProto, optional
        A copy; None where there is no BatchNormalization to retune.
    """
    student = Student(view.model, feeds, view.base)
    norms = [n for n in _norms(view) if all(student.owns(e) for e in _edges(n))]
    for number, norm in enumerate(norms):
        source = norm.inputs[0]
        student.forget(later.inputs[0] for later in norms[number:])
        moments = [_moments(found[source]) for found in student.values([source], [source])]
        counts = np.array([found[2] for found in moments], float)
        mean = np.average([found[0] for found in moments], axis=0, weights=counts)
        square = np.average([found[1] for found in moments], axis=0, weights=counts)
        stored = [view.constant(norm.inputs[edge.slot]) for edge in _edges(norm)]
        variance = square - mean**2
        awake = variance > _LEAST * stored[1].astype(np.float64)
        for edge, old, new in zip(_edges(norm), stored, (mean, variance), strict=True):
            student.write(edge, np.where(awake, new, old).astype(old.dtype))
    return student.model if norms else None


def restored(model: onnx.ModelProto, view: View, original: View, keeps: Keeps) -> onnx.ModelProto:
    """Give the BatchNormalizations of a cut model the original's statistics.

    Parameters
    ----------
    model : ModelProto
        Cut from ``view.model``; nodes keep their places. Not changed.
    view, original : View
        Of the retuned model, and of the one that it was made from.
    keeps : Keeps

    Returns
    -------
    ModelProto
        The same where nothing was retuned.
    """
    if view is original:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    slots = Slots(copy, view.base)
    for norm in _norms(original):
        mask = keeps.get(Axis(norm.outputs[0], 1))
        for edge in _edges(norm):
            value = norm.inputs[edge.slot]
            array = original.constant(value)
            if not np.array_equal(array, view.constant(view.by_index[edge.node].inputs[edge.slot])):
                slots.write(edge, array if mask is None else array[mask])
    return copy


def _norms(view: View) -> Iterator[Node]:
    for node in view.nodes:
        if node.op_type == "BatchNormalization" and node.owner < 0 and not node.domain:
            values = node.inputs[_MEAN], node.inputs[_VARIANCE]
            if all(map(view.is_constant, values)) and len(node.outputs) == 1:
                yield node


def _edges(norm: Node) -> tuple[Edge, Edge]:
    return Edge(norm.index, _MEAN), Edge(norm.index, _VARIANCE)


def _moments(values: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """Return mean and mean square per channel, and of how many numbers."""
    rest = tuple(axis for axis in range(values.ndim) if axis != 1)
    mean = values.mean(axis=rest, dtype=np.float64)
    square = (values.astype(np.float64) ** 2).mean(axis=rest)
    return mean, square, values.size // values.shape[1]
