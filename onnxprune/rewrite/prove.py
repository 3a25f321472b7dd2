"""Cut, verify, and where that fails find the groups at fault and go on without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, keep_masks
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError

__all__ = ["Proven", "Removal", "attempt", "prove"]

Removal = tuple[Group, Sequence[int]]
"""A group, and the channels of it that go."""


@dataclass(frozen=True, slots=True, eq=False)
class Proven:
    """A cut model that equals its reference.

    Attributes
    ----------
    model : ModelProto
    keeps : mapping of Axis to mask
    removed : tuple of (Group, channel numbers)
        What was cut in the end.
    error : float
        Relative error against the masked original.
    guilty : mapping of group name to reason
        Groups that were left whole because cutting them could not be written or proven.
    """

    model: onnx.ModelProto
    keeps: Keeps
    removed: tuple[Removal, ...]
    error: float
    guilty: Mapping[str, str]


def prove(found: Analysis, removed: Sequence[Removal]) -> Proven:
    """Cut groups and verify the result; drop the groups that make it fail.

    Parameters
    ----------
    found : Analysis
    removed : sequence of (Group, channel numbers)

    Returns
    -------
    Proven
        With ``removed`` empty and an untouched copy if no cut could be proven.
    """
    good = [r for r in removed if len(r[1])]
    guilty: dict[str, str] = {}
    while True:
        model, keeps, error, reason = _cut(found, good)
        if model is not None and not reason:
            return Proven(model, keeps, tuple(good), error, guilty)
        culprits = _culprits(found, good) or _clash(found, good, reason)
        guilty |= culprits
        good = [r for r in good if r[0].name not in culprits]


def attempt(found: Analysis, removed: Sequence[Removal]) -> tuple[float, str]:
    """Return the error of cutting some groups, and the reason where it is too large."""
    _, _, error, reason = _cut(found, removed)
    return error, reason


def _cut(
    found: Analysis, removed: Sequence[Removal]
) -> tuple[onnx.ModelProto | None, Keeps, float, str]:
    keeps = keep_masks(removed, found.coupling.collected.sizes)
    try:
        model = cut(found.view, found.coupling, found.traces, keeps)
    except UnrepresentableError as refusal:
        return None, keeps, float("inf"), str(refusal)
    error = found.verifier.error(model, keeps) if keeps else 0.0
    reason = found.verifier.objection(error, keeps) if keeps else ""
    return model, keeps, error, reason


def _culprits(found: Analysis, removed: Sequence[Removal]) -> dict[str, str]:
    """Bisect: cut halves until single groups are left that fail alone."""
    _, reason = attempt(found, removed)
    if not reason:
        return {}
    if len(removed) == 1:
        return {removed[0][0].name: reason}
    middle = len(removed) // 2
    return _culprits(found, removed[:middle]) | _culprits(found, removed[middle:])


def _clash(found: Analysis, removed: Sequence[Removal], reason: str) -> dict[str, str]:
    """No group fails alone: name the one that completes the shortest failing row of groups."""
    low, high = 1, len(removed)
    while low < high:
        middle = (low + high) // 2
        if not attempt(found, removed[:middle])[1]:
            low = middle + 1
        else:
            high = middle
    return {removed[low - 1][0].name: f"{reason} (only together with others)"}
