"""Correcting the table's sum on whole models: operators do not quite add up."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

__all__ = ["Fit", "fit"]

_PRIOR = 0.1  # weight of the belief that the table's sum needs no scaling, in relative errors


@dataclass(frozen=True, slots=True)
class Fit:
    """Nanoseconds of a model: ``scale * table + per_element * elements + fixed``.

    Attributes
    ----------
    scale : float
        Of the summed table.
    per_element : float
        Nanoseconds for each element that operators outside the table write.
    fixed : float
        Nanoseconds that no cut saves.
    error : float
        Largest relative error on the models that it was fitted to; NaN where there was none.
    """

    scale: float = 1.0
    per_element: float = 0.0
    fixed: float = 0.0
    error: float = float("nan")


def fit(tables: Sequence[float], elements: Sequence[float], measured: NDArray[np.float64]) -> Fit:
    """Fit the three numbers, none of them negative, to relative errors.

    Parameters
    ----------
    tables : sequence of float
        The table's sum for each model, nanoseconds.
    elements : sequence of float
        What the other operators of each model write.
    measured : float array, shape (models,)
        Nanoseconds.
    """
    features = np.stack([tables, elements, np.ones(len(tables))], axis=1).astype(np.float64)
    # Numbers of the size of one: each feature's largest part of the slowest model.
    unit = np.maximum(features.max(axis=0), 1e-9) / measured.max()
    rows = features / unit / measured[:, None]
    prior = np.array([[_PRIOR / unit[0], 0.0, 0.0]])
    target = np.append(np.ones(len(measured)), _PRIOR)
    solution, _ = optimize.nnls(np.concatenate([rows, prior]), target)
    numbers = solution / unit
    error = float(np.abs(features @ numbers / measured - 1).max())
    scale, per_element, fixed = map(float, numbers)
    return Fit(scale, per_element, fixed, error)
