"""Random signs on the outputs, drawn anew for every sample."""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

__all__ = ["signs"]

_NARROW = 64  # outputs per sample up to which the draws of a sample are made orthogonal


def signs(
    shape: tuple[int, ...], count: int, rng: np.random.Generator
) -> list[NDArray[np.float32]]:
    """Draw +-1 cotangents for one output.

    The mean over draws of (cotangent . change)^2 is the squared norm of the change. Few outputs
    per sample get rows of a Hadamard matrix, in random order and with random signs by column: as
    many rows as the matrix has give the norm exactly, fewer have less variance than free signs.

    Parameters
    ----------
    shape : tuple of int
        Of the output; samples first.
    count : int
    rng : Generator

    Returns
    -------
    list of float32 array, each of that shape
    """
    samples = shape[0] if shape else 1
    width = int(np.prod(shape)) // max(samples, 1)
    flips = (rng.integers(0, 2, (samples, width)) * 2 - 1).astype(np.float32)
    order = 1 << max(width - 1, 0).bit_length()
    if width > _NARROW or count > order:
        drawn = (rng.integers(0, 2, (count, samples, width)) * 2 - 1).astype(np.float32)
    else:
        rows = np.stack([rng.permutation(order)[:count] for _ in range(samples)], axis=1)
        drawn = hadamard(order).astype(np.float32)[rows][:, :, :width] * flips
    return [np.ascontiguousarray(draw.reshape(shape)) for draw in drawn]
