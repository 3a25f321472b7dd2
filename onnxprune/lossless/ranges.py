"""What positions of an axis hold whatever the input: seen on samples."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.keeps import by_position
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, with_outputs

__all__ = ["Constants", "seen_constants"]

Constants = Mapping[Axis, NDArray[np.float64]]
"""The number that each position of an axis always holds; NaN where it varies."""

_NOISE = 1e-6  # of the largest number of a value: what rounding alone may make of a constant


def seen_constants(
    view: View, axes: Iterable[Axis], sizes: Mapping[Axis, int], feeds: Sequence[Feeds]
) -> Constants:
    """Find the positions that hold the same number in all samples and at all places.

    Parameters
    ----------
    view : View
    axes : iterable of Axis
        Of activations; those of control-flow bodies are left out, for no run can show them.
    sizes : mapping of Axis to int
    feeds : sequence of Feeds

    Returns
    -------
    Constants
        What is zero but for rounding is zero.
    """
    wanted = [a for a in dict.fromkeys(axes) if a.value not in view.inner]
    inner = list(dict.fromkeys(a.value for a in wanted if a.value not in view.inputs))
    session = Session(with_outputs(view.real, inner)) if inner else None
    low: dict[Axis, NDArray[np.float64]] = {}
    high: dict[Axis, NDArray[np.float64]] = {}
    for feed in feeds:
        values = {**feed, **(session.run(feed, inner) if session else {})}
        for axis in wanted:
            array = values[axis.value]
            if array.dtype.kind != "f" or array.size == 0 or not _fits(array, axis, sizes[axis]):
                continue
            least, most = _extremes(array, axis, sizes[axis])
            low[axis] = np.minimum(low.get(axis, least), least)
            high[axis] = np.maximum(high.get(axis, most), most)
    found = {}
    for axis, least in low.items():
        both = np.abs([least, high[axis]])
        noise = _NOISE * both[np.isfinite(both)].max(initial=0.0)
        middle = (least + high[axis]) / 2
        middle = np.where(np.abs(middle) <= noise, 0.0, middle)
        found[axis] = np.where(high[axis] - least <= noise, middle, np.nan)
    return found


def _fits(array: NDArray[np.generic], axis: Axis, size: int) -> bool:
    """Whether samples have as many positions as the original was looked at with."""
    return array.shape[axis.axis] == size or (axis.by >= 0 and size % array.shape[axis.axis] == 0)


def _extremes(
    array: NDArray[np.generic], axis: Axis, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest number at each position of an axis."""
    if axis.by < 0:
        rest = tuple(number for number in range(array.ndim) if number != axis.axis)
        ends = array.min(axis=rest), array.max(axis=rest)
    else:
        rows = by_position(array, axis, size)
        ends = rows.min(axis=1), rows.max(axis=1)
    return np.asarray(ends[0], np.float64), np.asarray(ends[1], np.float64)
