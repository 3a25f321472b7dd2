"""Class probabilities: what a final softmax does to a change is taken exactly.

Where a network is sure of itself its softmax is flat, and to first order nothing changes; what
channels do to the logits in front of it is nearly linear. Enough cotangents give the changes of
the logits in full, and softmax of the sum is cheap.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["logits_of", "probability_changes"]

_CLASSES = 16  # up to which as many cotangents are worth it


def logits_of(view: View, seen: Trace, outputs: Sequence[str]) -> str | None:
    """Return what a final softmax over few classes reads, where that is the only output."""
    node = view.producers.get(outputs[0]) if len(outputs) == 1 else None
    while node is not None and node.op_type in ("Identity", "Cast"):
        node = view.producers.get(node.inputs[0])
    if node is None or node.op_type != "Softmax" or node.owner >= 0:
        return None
    shape = seen.shapes[outputs[0]]
    axis = node.attributes.get("axis", -1 if view.opset >= 13 else 1)
    few = len(shape) == 2 and shape[1] <= _CLASSES and axis in (1, -1)
    return node.inputs[0] if few else None


def probability_changes(
    logits: NDArray[np.floating],
    cotangents: Sequence[NDArray[np.floating]],
    products: Sequence[NDArray[np.floating]],
) -> NDArray[np.float32]:
    """Return the changes of the probabilities.

    Parameters
    ----------
    logits : float array, shape (samples, classes)
    cotangents : sequence of float array, shape (samples, classes)
        Rows of a whole Hadamard matrix for each sample, each divided by the root of their number.
    products : sequence of float array, shape (samples, channels)
        Of each cotangent with the changes of the logits.

    Returns
    -------
    float32 array, shape (samples * classes, channels)
    """
    changes = np.einsum("kns,knc->nsc", np.stack(cotangents), np.stack(products))
    moved = softmax(logits[:, :, None] + changes, axis=1) - softmax(logits, axis=1)[:, :, None]
    return np.asarray(moved.reshape(-1, moved.shape[2]), np.float32)
