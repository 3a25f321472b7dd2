"""What it costs to narrow heads whose dims are turned first: the last dims go, not any of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.layers.heads import Turned
from onnxprune.layers.rows import weight_blocks, weight_of
from onnxprune.layers.sites import Site
from onnxprune.layers.student import Student

__all__ = ["Dims", "dims_of"]

Array = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Dims:
    """A group of head dims, of which each head keeps its best directions.

    Attributes
    ----------
    heads : tuple of Turned
        All that the group's channels go through.
    order : int array, shape (channels,)
        In which they go where nothing is turned.
    errors : float array, shape (channels + 1,)
        Local error with k channels gone.
    step : int
        How many go at a time, one of each head's dims.
    """

    heads: tuple[Turned, ...]
    order: Places
    errors: Array
    step: int

    @property
    def nodes(self) -> set[int]:
        """Nodes whose weights `exchange` changes."""
        firsts = {one.pair.one.node.index for one in self.heads}
        return firsts | {one.pair.other.node.index for one in self.heads if one.pair.read}

    def exchange(self, student: Student, gone: int) -> None:
        """Let only the directions that stay through, and keep the mean of what is read."""
        for one in self.heads:
            pair, shift = one.pair, np.zeros(1)
            weight, bias = _read(student, pair.one)
            for head, mine, its in zip(one.heads, pair.ours, pair.theirs, strict=True):
                through = head.through(len(mine) - gone // self.step)
                weight[:, mine] = weight[:, mine] @ through
                bias[mine] = bias[mine] @ through
                if pair.read:
                    lost = head.mean - head.mean @ through
                    shift = shift + lost @ _read(student, pair.other)[0][its]
            _write(student, pair.one, weight, bias)
            if pair.read:
                last, known = _read(student, pair.other)
                _write(student, pair.other, last, known + shift)


def dims_of(coupling: Coupling, group: Group, heads: Sequence[Turned]) -> Dims | None:
    """Return the heads that a group's channels are the dims of; None if anything else reads them.

    Parameters
    ----------
    coupling : Coupling
    group : Group
    heads : sequence of Turned
        All of the model.

    Returns
    -------
    Dims, optional
    """
    labels = {
        member.axis.value: _labels(member.positions, coupling.collected.sizes[member.axis])
        for member in group.members
        if member.axis in coupling.collected.sizes
    }
    found = [(one, rows) for one in heads if (rows := _channels(one, labels)) is not None]
    ends = {(o.pair.other.node.index if o.pair.read else o.pair.product) for o, _ in found}
    exits = {n for m in group.members for n, _ in coupling.contracts.get(m.axis, ())}
    even = all(rows.shape[1] * group.step == group.size for _, rows in found)
    if not found or not exits <= ends or not even:
        return None
    worth, errors = np.zeros(group.size), np.zeros(group.size // group.step + 1)
    for one, rows in found:
        share = 1.0 if one.pair.read else 1.0 / len(one.heads)
        for head, channels in zip(one.heads, rows, strict=True):
            worth[channels] += share * head.worth
            errors += share * head.errors
    every = np.repeat(errors, group.step)[: group.size + 1]
    order = group.balanced(np.argsort(worth, kind="stable"))
    return Dims(tuple(one for one, _ in found), order, every, group.step)


def _labels(positions: Places, size: int) -> Places:
    """Return the channel at each position of an axis, -1 where there is none."""
    labels = np.full(size, -1)
    channels = np.repeat(np.arange(len(positions)), positions.shape[1])
    places = positions.ravel()
    labels[places[places >= 0]] = channels[places >= 0]
    return labels


def _channels(one: Turned, labels: dict[str, Places]) -> Places | None:
    """Return the channel of each dim of each head; None if they are not all the group's."""
    pair, nothing = one.pair, np.full(1, -1)
    ours = labels.get(pair.one.node.outputs[0], nothing)
    theirs = labels.get(pair.other.source if pair.read else pair.other.node.outputs[0], nothing)
    if len(ours) <= pair.ours.max() or len(theirs) <= pair.theirs.max():
        return None
    rows = ours[pair.ours]
    apart = (np.diff(np.sort(rows, axis=1), axis=1) > 0).all()
    return rows if apart and (rows >= 0).all() and (rows == theirs[pair.theirs]).all() else None


def _read(student: Student, site: Site) -> tuple[Array, Array]:
    weight = student.read(site.weight)
    assert weight is not None
    matrix = weight_blocks(site, weight)[0].astype(np.float64)
    bias = None if site.bias is None else student.read(site.bias)
    return matrix, np.zeros(matrix.shape[1]) + (0.0 if bias is None else bias.reshape(-1))


def _write(student: Student, site: Site, weight: Array, bias: Array) -> None:
    old = student.read(site.weight)
    assert old is not None
    student.write(site.weight, weight_of(site, weight[None], old.shape).astype(old.dtype))
    if site.bias is not None:
        student.write_bias(site.weight, site.bias, bias.astype(old.dtype))
