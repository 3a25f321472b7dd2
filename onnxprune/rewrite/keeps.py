"""Keep masks: from the channels of groups to the positions of axes."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis

__all__ = ["Keeps", "Mask", "keep_masks"]

Mask = NDArray[np.bool_]
Keeps = Mapping[Axis, Mask]


def keep_masks(
    removed: Iterable[tuple[Group, Sequence[int] | NDArray[np.int64]]], sizes: Mapping[Axis, int]
) -> dict[Axis, Mask]:
    """Turn removed channels into a keep mask per axis.

    Groups of different readings may share an axis (heads and head dims): what stays is what all
    of them keep.

    Parameters
    ----------
    removed : iterable of (Group, channel numbers)
    sizes : mapping of Axis to int

    Returns
    -------
    dict of Axis to bool array
        Only axes that lose positions.
    """
    masks: dict[Axis, Mask] = {}
    for group, channels in removed:
        if not len(channels):
            continue
        for member in group.members:
            if member.axis not in sizes:
                continue  # the invented group axis of a grouped convolution
            mask = masks.setdefault(member.axis, np.ones(sizes[member.axis], bool))
            mask[member.positions[np.asarray(channels)].ravel()] = False
    return masks
