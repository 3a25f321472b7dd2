"""Free channels put in front of every removal order: they go first, at no error."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.coupling.groups import Group
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity

__all__ = ["freed"]


def freed(
    measured: Sensitivity, groups: Sequence[Group], free: Mapping[str, tuple[int, ...]]
) -> Sensitivity:
    """Put free channels first.

    Parameters
    ----------
    measured : Sensitivity
    groups : sequence of Group
    free : mapping of group name to channel numbers

    Returns
    -------
    Sensitivity
        The curves of groups with free channels are bounds: at each width the error at which the
        measured order had lost as many channels that are not free.
    """
    known = dict(measured.groups)
    for group in groups:
        if group.name in free and group.name in known:
            known[group.name] = _first(known[group.name], group, free[group.name])
    counts = {name: len(channels) for name, channels in free.items() if name in known}
    return replace(measured, groups=known, free=counts)


def _first(curve: GroupSensitivity, group: Group, free: tuple[int, ...]) -> GroupSensitivity:
    inside = np.isin(curve.order, free)
    order = np.concatenate([group.balanced(curve.order[inside]), curve.order[~inside]])
    lost = np.concatenate([[0], np.cumsum(~inside)])  # others among the first 0, 1, ... to go
    kept = np.arange(group.size, 0, -1)
    others = np.maximum(group.size - kept - len(free), 0)
    gone = np.searchsorted(lost, others)
    errors = np.interp(-(group.size - gone), -curve.widths, curve.errors)
    errors[others == 0] = 0.0
    scores = curve.scores.copy()
    scores[list(free)] = 0.0
    return replace(curve, order=order, scores=scores, widths=kept, errors=errors)
