"""Samples on which a channel says nothing: taking it away cannot change them.

Behind a ReLU many channels are zero everywhere on some samples. A gate that puts zeros where there
are zeros changes nothing downstream, so those samples need not be run.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.keeps import Mask
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.stacked import close
from onnxprune.runtime.suffix import Suffix

__all__ = ["Exits", "Heard", "Outputs", "Removals", "exits_of", "heard", "rows_of", "same_rows"]

Array = NDArray[np.generic]
Outputs = Mapping[str, Array]
Heard = NDArray[np.bool_]
Exits = Mapping[int, tuple[Axis, ...]]

# Where a weight's slice is only ever multiplied by the channel of the other operand.
_PRODUCTS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def exits_of(view: View, coupling: Coupling, group: Group) -> Exits | None:
    """Return the activations that carry a group into each operator that sums it up.

    Parameters
    ----------
    view : View
    coupling : Coupling
    group : Group

    Returns
    -------
    mapping of node number to tuple of Axis, or None
        None where zeros at the exits do not prove that nothing changes: at statistics, in bodies,
        and inside operators such as recurrent ones.
    """
    known = coupling.collected.constants
    found: dict[int, list[Axis]] = {}
    for axis in dict.fromkeys(member.axis for member in group.members):
        for number, contract in coupling.contracts.get(axis, ()):
            inside = axis.value in view.inner or axis.by >= 0 or axis.axis == 0
            if contract.how != "sum" or contract.zero is not None:
                return None
            if axis.value in known:
                if view.by_index[number].op_type not in _PRODUCTS:
                    return None
                found.setdefault(number, [])
            elif inside:
                return None
            else:
                found.setdefault(number, []).append(axis)
    if not all(found.values()):
        return None
    return {number: tuple(axes) for number, axes in found.items()}


def heard(group: Group, exits: Exits, values: Outputs) -> Heard | None:
    """Say which channels are not all zero on which samples.

    Parameters
    ----------
    group : Group
    exits : mapping of node number to tuple of Axis
    values : mapping of value name to array
        What the exits read in the original.

    Returns
    -------
    bool array, shape (samples, channels), or None
        None where the first axes are not those of the samples.
    """
    places = {member.axis: member.positions for member in group.members}
    every = {axis: values[axis.value] for axes in exits.values() for axis in axes}
    if len({len(array) for array in every.values()}) != 1:
        return None
    loud: dict[Axis, Heard] = {}
    for axis, array in every.items():
        others = tuple(k for k in range(1, array.ndim) if k != axis.axis)
        found = np.pad((array != 0).any(axis=others), ((0, 0), (0, 1)))  # -1 stands for no place
        loud[axis] = np.asarray(found[:, places[axis].reshape(group.size, -1)].any(axis=2))
    products = [np.all([loud[axis] for axis in axes], axis=0) for axes in exits.values()]
    return np.asarray(np.any(products, axis=0))


class Removals:
    """Takes channels away from one batch, running only the samples that can change.

    Parameters
    ----------
    suffix : Suffix
    cache : mapping of name to array
        What crosses into the suffix on the batch.
    rows : set of str, optional
        Those of them with a row per sample; None where samples must stay together.
    clean : mapping of output name to array
        Outputs of the original.
    """

    def __init__(
        self, suffix: Suffix, cache: Feeds, rows: frozenset[str] | None, clean: Outputs
    ) -> None:
        self._suffix, self._cache, self._rows, self._clean = suffix, cache, rows, clean
        self._checked = False

    def without(self, keeps: Mapping[Axis, Mask], loud: Heard | None) -> Outputs:
        """Return the outputs without a channel; those that are missing have not changed.

        Parameters
        ----------
        keeps : mapping of Axis to mask
        loud : bool array, shape (samples,), optional
            Samples that the channel is heard on.
        """
        if loud is not None and not loud.any():
            return {}
        if loud is None or self._rows is None or loud.all():
            return self._suffix.run(self._cache, keeps)
        rows = self._rows
        part = {name: a[loud] if name in rows else a for name, a in self._cache.items()}
        found = self._suffix.run(part, keeps)
        shapes = {name: (int(loud.sum()), *self._clean[name].shape[1:]) for name in found}
        if not self._checked or any(array.shape != shapes[n] for n, array in found.items()):
            self._checked = True
            whole = self._suffix.run(self._cache, keeps)
            if not all(same_rows(array, whole[name], loud) for name, array in found.items()):
                self._rows = None
                return whole
        return {name: self._filled(name, array, loud) for name, array in found.items()}

    def _filled(self, name: str, array: Array, loud: Heard) -> Array:
        full = self._clean[name].copy()
        full[loud] = array
        return full


def rows_of(cache: Feeds, part: Feeds, picks: Heard) -> frozenset[str] | None:
    """Return what is cached by sample, from the caches of a batch and of some of its samples.

    Parameters
    ----------
    cache, part : mapping of name to array
    picks : bool array, shape (samples,)
        Samples that ``part`` holds; not all.

    Returns
    -------
    frozenset of str, or None
        None where something is neither the same for all samples nor a row for each.
    """
    common = {name for name, array in cache.items() if np.array_equal(array, part[name])}
    rows = cache.keys() - common
    return frozenset(rows) if all(same_rows(part[n], cache[n], picks) for n in rows) else None


def same_rows(some: Array, whole: Array, picks: Heard) -> bool:
    """Say whether an array is some rows of another, but for rounding."""
    if not whole.ndim or len(whole) != len(picks) or some.shape != whole[picks].shape:
        return False
    return close(some, whole[picks])
