"""Which widths of a group are measured end to end."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["measured_levels"]

_LEVELS = 8


def measured_levels(widths: Sequence[int], size: int) -> NDArray[np.int64]:
    """Choose at most eight of the widths, evenly, the narrowest included; all channels first.

    Parameters
    ----------
    widths : sequence of int
        Numbers of channels to keep.
    size : int
        All channels.

    Returns
    -------
    int array, descending from ``size``
    """
    narrower = sorted((w for w in widths if w < size), reverse=True)
    if len(narrower) > _LEVELS:
        picks = np.linspace(0, len(narrower) - 1, _LEVELS).round().astype(int)
        narrower = [narrower[i] for i in picks]
    return np.array([size, *narrower], np.int64)
