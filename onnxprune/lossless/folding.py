"""Constants of removed channels put into the biases of the layers that read them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.layers.rows import weight_blocks
from onnxprune.layers.sites import Site
from onnxprune.layers.student import Student
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["Fold", "folded"]


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """A model with folded biases, and which of its initializers changed or are new."""

    model: onnx.ModelProto
    changed: tuple[str, ...]
    added: tuple[str, ...]


def folded(
    view: View,
    trace: Trace,
    model: onnx.ModelProto,
    keeps: Keeps,
    sites: Mapping[int, Site],
    constants: Mapping[Axis, NDArray[np.float64]],
) -> Fold:
    """Add to each layer's bias what the removed constants gave to its output.

    Parameters
    ----------
    view, trace
        Of the original.
    model : ModelProto
        The cut model; not changed.
    keeps : Keeps
    sites : mapping of node number to Site
        From `foldable`.
    constants : mapping of Axis to float array
        What each position that may be folded holds; 0 or NaN elsewhere.

    Returns
    -------
    Fold
    """
    student = Student(model, (), view.base)
    for site in sites.values():
        axis = channel_axis(site, trace, site.source)
        keep, held = keeps.get(axis), constants.get(axis)
        if keep is None or held is None or site.bias is None:
            continue
        gone = np.where(keep, 0.0, np.nan_to_num(held))
        if not gone.any():
            continue
        bias = student.read(site.bias)
        shift = _given(view, site, gone)
        shift = shift[keeps.get(channel_axis(site, trace, site.output), np.ones(len(shift), bool))]
        old = np.zeros(len(shift)) if bias is None else bias.reshape(-1).astype(np.float64)
        dtype = site.weight_in(view).dtype if bias is None else bias.dtype
        student.write_bias(site.weight, site.bias, np.asarray(old + shift, dtype))
    if not (student.refitted or student.added):
        return Fold(model, (), ())
    return Fold(student.model, tuple(student.refitted), tuple(student.added))


def channel_axis(site: Site, trace: Trace, value: str) -> Axis:
    """Return where a layer's channels are in its input or output."""
    return Axis(value, 1 if site.node.op_type == "Conv" else len(trace.shapes[value]) - 1)


def _given(view: View, site: Site, inputs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what constant inputs give to each output where no border is near, shape (O,)."""
    weight = site.weight_in(view)
    groups = site.node.attributes.get("group", 1)
    assert isinstance(groups, int)
    blocks = weight_blocks(site, weight, groups).astype(np.float64)  # groups, D, O
    taps = int(np.prod(weight.shape[2:]))
    rows = np.repeat(inputs, taps).reshape(groups, 1, -1)
    return np.asarray(rows @ blocks).reshape(-1)
