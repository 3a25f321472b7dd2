"""Random signs on the outputs, drawn anew for every sample."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

__all__ = ["enough", "signs"]

_NARROW = 64  # outputs per sample up to which the draws of a sample are made orthogonal

Shape = tuple[int, ...]


def enough(shapes: Iterable[Shape]) -> int:
    """Return how many cotangents lose nothing of outputs of these shapes; 64 is never enough."""
    return max(_order(_width(shape)) for shape in shapes)


def signs(shape: Shape, count: int, rng: np.random.Generator) -> list[NDArray[np.float32]]:
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
    samples, width = _samples(shape), _width(shape)
    if width > _NARROW:
        drawn = rng.integers(0, 2, (count, samples, width)) * 2 - 1
    else:
        order = _order(width)
        turns = -(-count // order)
        rows = [
            np.concatenate([rng.permutation(order) for _ in range(turns)]) for _ in range(samples)
        ]
        flips = rng.integers(0, 2, (samples, width)) * 2 - 1
        drawn = hadamard(order)[np.stack(rows, axis=1)[:count]][:, :, :width] * flips
    return [np.asarray(draw.reshape(shape), np.float32, order="C") for draw in drawn]


def _samples(shape: Shape) -> int:
    return shape[0] if shape else 1


def _width(shape: Shape) -> int:
    return int(np.prod(shape)) // max(_samples(shape), 1)


def _order(width: int) -> int:
    """Return the least power of 2 that is no less."""
    return 1 << max(width - 1, 0).bit_length()
