"""Channels that can go without changing anything, group by group."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group, Member
from onnxprune.coupling.keeps import by_position
from onnxprune.layers.sites import Site, find_sites
from onnxprune.lossless.proven import pads_nothing
from onnxprune.lossless.ranges import Constants
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["foldable", "free_channels"]

Mask = NDArray[np.bool_]


def free_channels(
    view: View, trace: Trace, coupling: Coupling, groups: Sequence[Group], constants: Constants
) -> dict[str, tuple[int, ...]]:
    """Find channels that no exit misses.

    An exit misses nothing of a channel that is zero there, that its weights are zero for, or that
    is constant where the layer's bias can take the constant over.

    Parameters
    ----------
    view, trace, coupling
        Of the original.
    groups : sequence of Group
    constants : Constants
        What positions always hold.

    Returns
    -------
    dict of group name to channel numbers, ascending
        As many of each block of a group, and never all of them; groups without any are left out.
    """
    sites = foldable(view, trace, coupling)
    found = {}
    for group in groups:
        channels = _even(group, _free(view, coupling, group, constants, sites))
        if channels:
            found[group.name] = channels
    return found


def foldable(view: View, trace: Trace, coupling: Coupling) -> dict[int, Site]:
    """Return the layers, by node, whose bias can take over a constant of their input exactly.

    Around a padded convolution's input lie zeros: there a constant is none. Quantized weights are
    left alone, for what they give to a constant is not what the bias would.
    """
    sites = find_sites(view, trace, coupling.collected)
    return {s.node.index: s for s in sites if s.bias is not None and _folds(view, s)}


def _folds(view: View, site: Site) -> bool:
    plain = view.is_constant(site.node.inputs[1])
    return plain and site.node.op_type != "ConvTranspose" and pads_nothing(site.node)


def _free(
    view: View,
    coupling: Coupling,
    group: Group,
    constants: Constants,
    sites: Mapping[int, Site],
) -> Mask:
    exits = list(_exits(coupling, group))
    free = np.full(group.size, bool(exits))
    for member, node, how in exits:
        if how != "sum":  # a statistic of what stays would change
            return np.zeros(group.size, bool)
        missed = ~_unread(view, group, member, node, coupling)
        held = constants.get(member.axis)
        if held is not None:
            site = sites.get(node)
            takes = site is not None and site.source == member.axis.value
            good = ~np.isnan(held) if takes else held == 0
            missed &= ~good[member.positions].all(axis=1)
        free &= ~missed
    return free


def _exits(coupling: Coupling, group: Group) -> Iterator[tuple[Member, int, str]]:
    for member in group.members:
        for node, contract in coupling.contracts.get(member.axis, ()):
            yield member, node, contract.how


def _unread(view: View, group: Group, member: Member, node: int, coupling: Coupling) -> Mask:
    """Whether the weights that an operator multiplies each channel with are all zero."""
    sizes, inputs = coupling.collected.sizes, view.by_index[node].inputs
    none = np.zeros(group.size, bool)
    for other in (member, *group.members):
        value = other.axis.value
        if value not in inputs or not view.is_constant(value) or other.axis not in sizes:
            continue
        if inputs.index(value) not in _WEIGHT_SLOTS.get(view.by_index[node].op_type, ()):
            continue
        rows = by_position(view.constant(value), other.axis, sizes[other.axis])
        zero = ~np.asarray(rows.any(axis=1))
        none |= zero[other.positions].all(axis=1)
    return none


# Where a zero says that nothing is read; elsewhere (biases, scales) it says no such thing.
_WEIGHT_SLOTS = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "LSTM": (2,),
    "GRU": (2,),
    "RNN": (2,),
}


def _even(group: Group, free: Mask) -> tuple[int, ...]:
    """Take as many channels of each block, and leave at least one in each."""
    blocks = [np.flatnonzero(free & (group.blocks == b)) for b in range(group.step)]
    most = min([len(block) for block in blocks] + [group.size // group.step - 1])
    return tuple(sorted(int(c) for block in blocks for c in block[:most]))
