"""What measuring gives to selection, whichever method measured."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.sensitivity.agreement import Ranks

__all__ = ["GroupSensitivity", "Method", "Sensitivity"]

Method = Literal["reconstruction", "perturbation", "gradient", "activation"]


@dataclass(frozen=True, slots=True, eq=False)
class GroupSensitivity:
    """One group's removal order, and what its widths cost in output error.

    Attributes
    ----------
    order : int array, shape (channels,)
        Channel numbers, the first to go first.
    scores : float array, shape (channels,)
        Relative squared change of the output when a channel alone goes (``perturbation``; an
        estimate of it: ``gradient``), or an importance in units of its own (``reconstruction``:
        the step's local error).
    widths : int array, shape (levels,)
        Kept channels, descending from all of them.
    errors : float array, shape (levels,)
        Relative squared output change with the group narrowed to each width, on samples that the
        order was not made from; never decreasing. For ``reconstruction`` it is the local error
        with refitted readers, brought to the output's scale by measured widths.
    method : Method
        Where the order comes from.
    vectors : float32 array, shape (channels, dims), optional
        Output changes that add up: the squared norm of a sum is about the joint change.
    halves : float array, shape (2, channels), optional
        Scores from every other sample, and from the rest.
    samples : int
        That the order was made from, where that is fewer than was asked for: time was up.
    """

    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    widths: NDArray[np.int64]
    errors: NDArray[np.float64]
    method: Method
    vectors: NDArray[np.float32] | None = None
    halves: NDArray[np.float64] | None = None
    samples: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """All groups, and how they were measured.

    Attributes
    ----------
    groups : mapping of group name to GroupSensitivity
    samples : int
        Samples that channels were perturbed on.
    runs : int
        Runs of suffixes, or passes, that it took.
    agreement : Ranks, optional
        Of estimated scores and a few exact ones.
    free : mapping of group name to int
        How many channels of a group's order, the first ones, can go without changing anything.
    reasons : tuple of str
        Which method measured how many groups, and why.
    """

    groups: Mapping[str, GroupSensitivity]
    samples: int
    runs: int
    agreement: Ranks | None = None
    free: Mapping[str, int] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
