"""Keep masks: from the channels of groups to the positions of axes."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis

__all__ = [
    "WHOLE",
    "Keeps",
    "Mask",
    "by_position",
    "counted",
    "keep_masks",
    "named",
    "narrow",
    "per_block",
    "take",
    "widen",
]

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]
Keeps = Mapping[Axis, Mask]
"""What stays. An axis with a joint one has its mask too, which counts but names no positions."""
WHOLE: Keeps = MappingProxyType({})


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
            places = member.positions[np.asarray(channels)]
            mask[places[places >= 0]] = False
    return counted(masks, sizes)


def counted(masks: Mapping[Axis, Mask], sizes: Mapping[Axis, int]) -> dict[Axis, Mask]:
    """Give the plain axis of every joint one the mask of the first block: it says how many stay."""
    first = {axis.plain: mask[: sizes[axis.plain]] for axis, mask in masks.items() if axis.by >= 0}
    return {**first, **masks}


def named(keeps: Keeps) -> list[tuple[Axis, Mask]]:
    """Return the masks that name positions, sorted by axis."""
    joint = {axis.plain for axis in keeps if axis.by >= 0}
    return sorted((item for item in keeps.items() if item[0] not in joint), key=lambda i: i[0])


def per_block(axis: Axis, mask: Mask, shape: Sequence[int]) -> Mask:
    """Shape a mask so that it broadcasts against its value.

    Parameters
    ----------
    axis : Axis
    mask : bool array
        Of all positions of the axis.
    shape : sequence of int
        Of the value.

    Returns
    -------
    bool array
        Its rank is the value's; size 1 on every axis that it says nothing of.
    """
    full = [1] * len(shape)
    if axis.by < 0:
        full[axis.axis] = len(mask)
        return mask.reshape(full)
    rows = mask.reshape(-1, shape[axis.axis])
    rows = np.repeat(rows, shape[axis.by] // len(rows), axis=0)
    full[axis.axis], full[axis.by] = shape[axis.axis], len(rows)
    return (rows if axis.by < axis.axis else rows.T).reshape(full)


def by_position(array: Array, axis: Axis, size: int) -> Array:
    """Return an array as one row per position of an axis, shape (size, the rest).

    Parameters
    ----------
    array : array
    axis : Axis
        Of a joint one, positions are counted block by block.
    size : int
        Positions of the axis.
    """
    if axis.by < 0:
        return np.moveaxis(array, axis.axis, 0).reshape(size, -1)
    moved = np.moveaxis(array, (axis.by, axis.axis), (0, 1))
    blocks = size // moved.shape[1]  # equal runs
    return moved.reshape(blocks, -1, *moved.shape[1:]).swapaxes(1, 2).reshape(size, -1)


def take(array: Array, axis: Axis, keep: Mask) -> Array:
    """Take what stays on an axis, from each block its own.

    Raises
    ------
    ValueError
        If the blocks do not keep equally many positions.
    """
    if axis.by < 0:
        return np.compress(keep, array, axis=axis.axis)
    mask = per_block(axis, keep, array.shape)
    counts = np.unique(mask.sum(axis=axis.axis))
    if len(counts) > 1:
        msg = f"{axis}: the blocks do not keep equally many positions"
        raise ValueError(msg)
    places = np.argsort(~mask, axis=axis.axis, kind="stable")
    return np.take_along_axis(array, places.take(range(int(counts[0])), axis.axis), axis.axis)


def narrow(values: Mapping[str, Array], keeps: Keeps) -> dict[str, Array]:
    """Take of each value what a cut leaves of it: feeds of the original become those of the cut.

    The same makes outputs of the original comparable with those of the cut. Only a cut of graph
    inputs or outputs narrows any.

    Parameters
    ----------
    values : mapping of value name to array
        What is no array (sequences and maps) stays.
    keeps : mapping of Axis to mask
    """
    found = dict(values)
    mine = named({axis: mask for axis, mask in keeps.items() if axis.value in found})
    for axis, mask in sorted(mine, key=lambda item: item[0].by < 0):  # blocks lie on whole axes
        found[axis.value] = take(found[axis.value], axis, mask)
    return found


def widen(values: Mapping[str, Array], keeps: Keeps) -> dict[str, Array]:
    """Put class scores back where they were, with minus infinity for what was cut away.

    Parameters
    ----------
    values : mapping of value name to float array
        Narrowed by a cut.
    keeps : mapping of Axis to mask
        Axes with a joint one stay as they are.
    """
    found = dict(values)
    for axis, mask in named(keeps):
        if axis.value in found and axis.by < 0:
            whole = np.moveaxis(found[axis.value], axis.axis, 0)
            full = np.full((len(mask), *whole.shape[1:]), -np.inf, whole.dtype)
            full[mask] = whole
            found[axis.value] = np.moveaxis(full, 0, axis.axis)
    return found
