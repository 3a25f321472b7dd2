"""Which samples fit, which select and which certify; never one for two of these."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Splits", "affordable", "drawn", "split_samples"]

_WORK = 3e11  # multiply-accumulates that one pass over the samples may take
_PLENTY = 256  # samples that are used whatever they take


@dataclass(frozen=True, slots=True)
class Splits:
    """Indices of the samples of each part, ascending.

    Attributes
    ----------
    fit, select, certify : array of int64
        Disjoint unless ``shared``.
    shared : bool
        True with fewer than four samples: every part holds all of them, so figures on held-out
        samples are too good.
    """

    fit: NDArray[np.int64]
    select: NDArray[np.int64]
    certify: NDArray[np.int64]
    shared: bool = False


def split_samples(n: int, seed: int) -> Splits:
    """Split samples 50 / 25 / 25 % at random.

    Parameters
    ----------
    n : int
        Number of samples, at least 1.
    seed : int

    Returns
    -------
    Splits
        With n of at least 4 no part is empty, and together they hold every sample once.
    """
    if n < 1:
        msg = f"cannot split {n} samples"
        raise ValueError(msg)
    if n < 4:
        everything = np.arange(n)
        return Splits(everything, everything, everything, shared=True)
    order = np.random.default_rng(seed).permutation(n)
    quarter = (n + 2) // 4
    parts = np.split(order, [n - 2 * quarter, n - quarter])
    fit, select, certify = (np.sort(part) for part in parts)
    return Splits(fit, select, certify)


def affordable(indices: NDArray[np.int64], macs: float, seed: int) -> NDArray[np.int64]:
    """Draw fewer samples where each takes long: to fit on more of them is worth little then.

    Parameters
    ----------
    indices : array of int64
        Ascending.
    macs : float
        Multiply-accumulates of one sample.
    seed : int

    Returns
    -------
    array of int64
        Ascending.
    """
    return drawn(indices, int(max(_PLENTY, _WORK / max(macs, 1.0))), seed)


def drawn(indices: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """Draw at most so many of some indices, ascending; all of them where there are no more."""
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, most, replace=False))
