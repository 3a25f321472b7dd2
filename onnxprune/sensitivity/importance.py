"""The cheaper order: how much a channel puts into the operators that read it."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group, Member
from onnxprune.coupling.keeps import by_position
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds

__all__ = ["activation_importance"]


def activation_importance(
    view: View, coupling: Coupling, group: Group, caches: Sequence[Feeds]
) -> NDArray[np.float64]:
    """Score channels by mean squared activation times squared outgoing weight, summed over exits.

    Each exit's scores are divided by their sum, so that readers of different scale count alike.

    Parameters
    ----------
    view : View
    coupling : Coupling
    group : Group
    caches : sequence of feeds
        With the activations at the group's exits.

    Returns
    -------
    float array, shape (channels,)
    """
    members = {member.axis: member for member in group.members}
    sizes = coupling.collected.sizes
    total = np.zeros(group.size)
    for axis, member in members.items():
        arrays = [feed[axis.value] for feed in caches if axis.value in feed]
        for node, contract in coupling.contracts.get(axis, ()):
            inner = axis.value in view.inner  # no run shows it: the weights alone count
            if not (arrays or inner) or contract.how != "sum":
                continue
            shown = np.ones(sizes[axis]) if inner else _energy(arrays, axis, sizes[axis])
            energy = member.total(shown)
            weights = _weights(view, view.by_index[node].inputs, members, sizes)
            score = energy * weights
            total += score / score.sum() if score.sum() > 0 else 0.0
    return total


def _energy(arrays: Sequence[NDArray[np.generic]], axis: Axis, size: int) -> NDArray[np.float64]:
    """Mean square at each position of an axis."""
    parts = []
    for array in arrays:
        square = np.asarray(array.astype(np.float64) ** 2)
        parts.append(by_position(square, axis, size).mean(axis=1))
    return np.asarray(np.mean(parts, axis=0))


def _weights(
    view: View, inputs: Sequence[str], members: Mapping[Axis, Member], sizes: Mapping[Axis, int]
) -> NDArray[np.float64]:
    """Mean square of what each channel is multiplied with; 1 where that is no constant."""
    for axis, member in members.items():
        if axis.value in inputs and view.is_constant(axis.value):
            return member.total(_energy([view.constant(axis.value)], axis, sizes[axis]))
    return np.ones(())
