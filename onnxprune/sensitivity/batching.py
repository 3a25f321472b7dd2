"""How many samples are measured at once."""

from collections.abc import Iterator

import numpy as np

from onnxprune.analysis import Analysis
from onnxprune.runtime.session import batch_size
from onnxprune.sensitivity.request import MEMORY

__all__ = ["samples_at_once"]

_MOST, _FEWEST = 32, 4
_NEAR = 1 << 22  # bytes that a matrix product writes or reads before it waits for memory
_TILED = {"Conv", "ConvTranspose"}  # go through their maps piece by piece, however many


def samples_at_once(found: Analysis) -> int:
    """Return as many samples as keep their activations within memory.

    Networks of matrix products are quicker where each of these stays near the processor. Those with
    convolutions are not: they take few samples no sooner than many.

    Parameters
    ----------
    found : Analysis
    """
    most = min(MEMORY // max(sum(found.activations), 1), _MOST)
    if not _TILED & {node.op_type for node in found.view.by_index.values()}:
        most = min(most, max(_NEAR // max((1, *_products(found))), _FEWEST))
    return max(most, 1)


def _products(found: Analysis) -> Iterator[int]:
    """Size what matrix products read and write of a sample."""
    shapes, view = found.traces[0].shapes, found.view
    traced = max(batch_size(found.probes[0]), 1)
    for node in view.by_index.values():
        if node.op_type in {"MatMul", "Gemm"}:
            values = [v for v in (*node.inputs, *node.outputs) if v in shapes]
            made = (v for v in values if not view.is_constant(v))
            yield from (4 * int(np.prod(shapes[value])) // traced for value in made)
