"""Losses of one candidate on some samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.quality.metrics import Kind

__all__ = ["Losses"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Losses:
    """What a candidate lost against the original.

    Attributes
    ----------
    drop : float
        The mean of the samples' losses, or what the user's function makes of all of them.
    values : float array, shape (samples,), optional
        None where only the whole has a loss.
    kind : Kind, optional
        What is known of the values beforehand; None where they have no bounds.
    by_class : float array, shape (samples, classes), optional
        NaN where a sample says nothing of a class.
    samples : int
    """

    drop: float
    values: Floats | None
    kind: Kind | None
    by_class: Floats | None
    samples: int
