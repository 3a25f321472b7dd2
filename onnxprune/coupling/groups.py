"""From closed relations to groups of interchangeable channels."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.collect import Collected
from onnxprune.coupling.footprints import Footprint, Member, block_shares, footprints
from onnxprune.coupling.relations import Axis, Contract, Positions
from onnxprune.coupling.rules.joint_movement import MOVES
from onnxprune.coupling.solver import Frozen, Solution
from onnxprune.model.view import Node, View
from onnxprune.model.weights import plain

__all__ = ["Coupling", "Group", "Kind", "Member", "make_groups"]

Kind = Literal["filter", "neuron", "head", "head_dim", "unit", "stream", "expert", "conv_group"]
_CONVOLUTIONS = ("Conv", "ConvTranspose")
_RECURRENT = ("GRU", "LSTM", "RNN")
_MOVES = (*MOVES, "Cast", "Concat", "DequantizeLinear", "Expand", "Identity", "Tile")


@dataclass(frozen=True, eq=False)
class Group:
    """An ordered set of interchangeable channels with identical footprint.

    Attributes
    ----------
    name : str
        The node that makes the channels, unique in the model.
    kind : Kind
    size : int
        Number of channels.
    members : tuple of Member
        In the order of the graph; the first one is where the channels are made.
    exact : bool
        Whether the cut equals the original with the channels masked; False where removal changes
        a statistic of what stays.
    nodes : tuple of str
        Names of the weighted operators on the way.
    blocks : int array, shape (size,)
        The block that each channel lies in. The same share of each block must go: units of each
        direction, inputs of each group of a convolution.
    """

    name: str
    kind: Kind
    size: int
    members: tuple[Member, ...]
    exact: bool
    nodes: tuple[str, ...]
    blocks: NDArray[np.int64]

    @property
    def step(self) -> int:
        """How many channels must go at a time: one of each block where these are equal."""
        return int(self.shares.sum())

    @property
    def shares(self) -> NDArray[np.int64]:
        """How many channels of each block go at a time."""
        return block_shares(self.blocks)

    def balanced(self, order: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Reorder channels so that every ``step`` in a row hold the share of each block.

        Within a block the order stays; blocks are paired by rank.
        """
        given = np.asarray(order, np.int64)
        if self.step == 1:
            return given
        rank = np.empty(len(given), np.int64)
        for block, share in enumerate(self.shares.tolist()):
            inside = np.flatnonzero(self.blocks[given] == block)
            rank[inside] = np.arange(len(inside)) // share
        return np.asarray(given[np.argsort(rank, kind="stable")])


@dataclass(frozen=True, eq=False)
class Coupling:
    """What can be cut and what not.

    Attributes
    ----------
    groups : tuple of Group
    frozen : mapping of Axis to Frozen
    contracts : mapping of Axis to list of (node index, Contract)
        Exits by axis.
    collected : Collected
    """

    groups: tuple[Group, ...]
    frozen: Mapping[Axis, Frozen]
    contracts: Mapping[Axis, Sequence[tuple[int, Contract]]]
    collected: Collected


def make_groups(
    view: View, collected: Collected, solutions: Iterable[Solution], frozen: Mapping[Axis, Frozen]
) -> Coupling:
    """Form groups of channels with the same footprint.

    A class is a channel if something makes it (a constant enters an operator whose result
    carries it), an activation carries it, and an exit contracts it; or if a layer does so that
    computes a constant (a bias of attention from relative positions).
    """
    contracts: dict[Axis, list[tuple[int, Contract]]] = defaultdict(list)
    summed: dict[int, set[str]] = defaultdict(set)
    for node, contract in collected.contracts:
        axis = collected.replaced.get(contract.axis, contract.axis)
        contracts[axis].append((node, replace(contract, axis=axis)))
        summed[node].add(axis.value)
    context = _Context(view, collected, contracts, summed)
    groups: list[Group] = []
    seen: set[str] = set()
    for solution in solutions:
        for found in footprints(solution, collected.blocks):
            digest = _digest(found.members)
            if digest in seen or not context.is_channel(found.members):
                continue
            seen.add(digest)
            groups.append(context.group(found, bool(solution.reading)))
    return Coupling(tuple(_named(_apart(groups))), frozen, contracts, collected)


def _apart(groups: Sequence[Group]) -> list[Group]:
    """Drop balanced groups that share positions with a larger one.

    Heads and their dimensions may both go: each reading takes the same share of what the other
    leaves. Two ways to balance the same positions do not leave each other balanced.
    """
    taken: dict[Axis, NDArray[np.int64]] = {}
    dropped = set()
    for number in sorted(range(len(groups)), key=lambda n: -groups[n].size):
        group = groups[number]
        if group.step == 1:
            continue
        places = {m.axis: m.positions[m.positions >= 0] for m in group.members}
        if any(np.isin(found, taken.get(axis, ())).any() for axis, found in places.items()):
            dropped.add(number)
            continue
        for axis, found in places.items():
            taken[axis] = np.concatenate([taken.get(axis, found), found])
    return [group for number, group in enumerate(groups) if number not in dropped]


def _digest(members: Sequence[Member]) -> str:
    """Tell apart groups that different readings found twice."""
    digest = hashlib.sha256()
    for member in sorted(members, key=lambda m: m.axis):
        digest.update(f"{member.axis}".encode())
        digest.update(np.ascontiguousarray(np.sort(member.positions, axis=0)).tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class _Context:
    view: View
    collected: Collected
    contracts: Mapping[Axis, list[tuple[int, Contract]]]
    summed: Mapping[int, set[str]]

    def is_channel(self, members: Sequence[Member]) -> bool:
        """Has an exit that reads an activation, and something that makes it."""
        axes = {member.axis for member in members}
        exits = any(not self._constant(axis) for axis in axes if axis in self.contracts)
        exits = exits or bool(self._inside(axes)) or bool(self._folded(axes))
        return exits and bool(self._makers(axes))

    def _folded(self, axes: set[Axis]) -> list[int]:
        """Nodes of a layer that computes a constant, and does more than to move numbers."""
        if not all(map(self._constant, axes)) or self.contracts.keys().isdisjoint(axes):
            return []
        made = (self.view.producers.get(axis.value) for axis in axes)
        return sorted(n.index for n in made if n is not None and n.op_type not in _MOVES)

    def _inside(self, axes: set[Axis]) -> list[int]:
        """Nodes that make channels and sum them up again: queries and keys of fused attention."""
        found = [
            n for axis in axes if self._constant(axis) for n, _ in self.contracts.get(axis, ())
        ]
        return [n for n in found if set(self.view.by_index[n].outputs) - self.collected.constants]

    def _constant(self, axis: Axis) -> bool:
        return axis.value in self.collected.constants

    def _makers(self, axes: set[Axis]) -> list[int]:
        """Nodes through which a constant of the class enters a computed value of it."""
        nodes = {*self._inside(axes), *self._folded(axes)}
        values = {axis.value for axis in axes}
        for value in values & self.collected.constants:
            for edge in self.view.consumers.get(value, ()):
                outputs = self.view.by_index[edge.node].outputs
                if any(o in values and o not in self.collected.constants for o in outputs):
                    nodes.add(edge.node)
        return sorted(nodes)

    def _passes(self, node: Node, values: set[str]) -> bool:
        """Whether a weighted operator hands channels on instead of making them (depthwise)."""
        summed = self.summed.get(node.index, set())
        handed = set(node.inputs) & values - self.collected.constants
        return bool(handed - summed)

    def group(self, found: Footprint, read: bool) -> Group:
        members = found.members
        values = {member.axis.value for member in members}
        makers = [self.view.by_index[i] for i in self._makers({m.axis for m in members})]
        weighted = [
            n
            for n in makers
            if plain(n).op_type in (*_CONVOLUTIONS, *_RECURRENT, "MatMul", "Gemm", "Gather")
            and not self._passes(n, values)
        ] or [n for n in makers if plain(n).op_type in _RECURRENT]  # states pass through and out
        first = (weighted or makers)[0]
        real = [m for m in members if "/" not in m.axis.value or m.axis in self.collected.sizes]
        made = set(first.outputs)
        ordered = sorted(real, key=lambda m: (m.axis.value not in made, m.axis))
        exact = all(
            contract.how == "sum" or self._whole_runs(member, contract)
            for member in members
            for _, contract in self.contracts.get(member.axis, ())
        )
        nodes = tuple(dict.fromkeys(n.name for n in (weighted or makers)))
        kind = _kind([plain(n).op_type for n in weighted], ordered[0], found, read)
        size = len(found.blocks)
        return Group(first.name, kind, size, tuple(ordered), exact, nodes, found.blocks)

    def _whole_runs(self, member: Member, contract: Contract) -> bool:
        """Whether each channel is whole groups, which have statistics of their own."""
        run = self.collected.sizes[member.axis] // max(contract.groups, 1)
        places = np.sort(member.positions, axis=1)
        if contract.groups < 2 or places.shape[1] % run:
            return False
        runs = places.reshape(-1, run)
        return bool((runs == runs[:, :1] // run * run + np.arange(run)).all())


def _kind(makers: Sequence[str], first: Member, found: Footprint, read: bool) -> Kind:
    convolution = bool(makers) and makers[0] in _CONVOLUTIONS
    places = first.positions
    if makers and makers[0] in _RECURRENT:
        return "unit"
    if found.blocks.any() and not convolution:
        return "head_dim"
    if read and places.shape[1] > 1:
        consecutive = _longest_run(places[0]) > 2
        if convolution:
            return "conv_group" if consecutive else "filter"
        return "head" if consecutive else "head_dim"
    if sum(op != "Gather" for op in makers) > 1 or "Gather" in makers:
        return "stream"
    return "filter" if convolution else "neuron"


def _longest_run(places: Positions) -> int:
    """Length of the longest run of neighbouring positions: whole heads have long ones."""
    breaks = np.flatnonzero(np.diff(places, prepend=-2, append=-2) != 1)
    return int(np.diff(breaks).max(initial=1))


def _named(groups: Sequence[Group]) -> list[Group]:
    """Give every group its own name."""
    counts: dict[str, int] = defaultdict(int)
    named = []
    for group in groups:
        counts[group.name] += 1
        suffix = f"#{counts[group.name]}" if counts[group.name] > 1 else ""
        named.append(replace(group, name=group.name + suffix))
    return named
