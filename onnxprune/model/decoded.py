"""What integers with a scale stand for, and back: one scale for all, per position or per block."""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

__all__ = ["decode", "encode"]

Array = NDArray[np.generic]
Floats = NDArray[np.float32]


def decode(
    array: Array, scale: Array, zero: Array | None = None, *, axis: int, block: int
) -> Floats:
    """Return (array - zero) * scale, as DequantizeLinear does.

    Parameters
    ----------
    array : array
        Integers, or narrow floats.
    scale, zero : array
        Of one element, of one per position of ``axis``, or of one per block of them.
    axis : int
    block : int
        Positions per block; 0 where the shapes say it.

    Returns
    -------
    float32 array, of the shape of ``array``
    """
    wide = array.astype(np.float32)
    if zero is not None:
        wide = wide - _spread(zero, array.shape, axis, block)
    return np.asarray(wide * _spread(scale, array.shape, axis, block), np.float32)


def encode(
    real: NDArray[Any], like: Array, scale: Array, zero: Array | None, *, axis: int, block: int
) -> Array:
    """Return the nearest integers under a given scale: what `decode` decodes.

    Parameters
    ----------
    real : float array
    like : array
        Of the type to round to; its shape is that of ``real``.
    scale, zero, axis, block
        As of `decode`.

    Returns
    -------
    array, of the type of ``like``
    """
    steps = np.rint(real / _spread(scale, real.shape, axis, block))
    if zero is not None:
        steps = steps + _spread(zero, real.shape, axis, block)
    info = ml_dtypes.iinfo(like.dtype)  # type: ignore[no-untyped-call]
    return np.asarray(np.clip(steps, int(info.min), int(info.max)).astype(like.dtype))


def _spread(side: Array, shape: tuple[int, ...], axis: int, block: int) -> Floats:
    """Give every element its scale or zero point."""
    wide = side.astype(np.float32)
    if wide.size == 1:
        return wide.reshape(())
    if wide.ndim == 1:
        return wide.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
    if wide.shape == shape:
        return wide
    axis %= len(shape)
    block = block or -(-shape[axis] // wide.shape[axis])
    return np.take(np.repeat(wide, block, axis), np.arange(shape[axis]), axis)
