"""Streams that may be turned: their channels are coordinates, and any basis would do.

Where only linear layers make and read a group of channels and only sums lie between (the linear
bottlenecks of MobileNets), the function stays the same when the makers are multiplied by any
invertible matrix and the readers by its inverse. Instead of dropping coordinates, the directions
are dropped that the readers hear least of.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.layers.readers import Reader
from onnxprune.layers.sites import Site
from onnxprune.model.view import Node, View

__all__ = ["Subspace", "is_linear", "makers_of", "subspace"]

Array = NDArray[np.float64]
_RIDGE = 1e-6  # of the mean diagonal: directions in which the stream does not vary
_THROUGH = frozenset(
    {"Add", "Sub", "Sum", "Identity", "Dropout", "AveragePool", "GlobalAveragePool"}
)
_GRID = 48  # widths whose error is computed; those between are interpolated


@dataclass(frozen=True, eq=False)
class Subspace:
    """A basis of a stream, the direction that its readers hear most of first.

    Attributes
    ----------
    basis : float array, shape (channels, channels)
        One direction a row: kept coordinates are ``basis[:k] @ channels``.
    errors : float array, shape (channels + 1,)
        Local error with the last k directions gone and the readers refitted, by what it is worth,
        summed over readers.
    readers : sequence of Reader
    """

    basis: Array
    errors: Array
    readers: Sequence[Reader]

    def decoder(self, reader: Reader, width: int) -> Array:
        """Return how a reader best guesses its inputs from the kept coordinates.

        Returns
        -------
        float array, shape (channels, width)
        """
        return _decoder(self.basis[:width], _channel_moments(reader))

    def stand_in(self, reader: Reader, gone: int) -> Array:
        """Return a reader's weight (D, O) that hears only what the kept directions tell."""
        width = len(self.basis) - gone
        through = self.basis[:width].T @ self.decoder(reader, width).T
        found = reader.weight.copy()
        found[reader.places] = np.einsum("cb,bto->cto", through, reader.weight[reader.places])
        return found


def is_linear(view: View, coupling: Coupling, group: Group, sites: Sequence[Site]) -> bool:
    """Say whether a group may be turned: it fills its axes, and all that touches it is linear."""
    made = makers_of(sites, group)
    biases = {s.bias for s in made if s.bias is not None}
    edges = {s.weight for s in made} | biases
    contracts = coupling.contracts
    readers = {node for m in group.members for node, _ in contracts.get(m.axis, ())}
    if not readers <= {s.node.index for s in sites}:
        return False
    whole = np.arange(group.size)[:, None]
    for member in group.members:
        value = member.axis.value
        filled = coupling.collected.sizes.get(member.axis) == group.size
        if not filled or not np.array_equal(member.positions, whole) or value in view.outputs:
            return False
        uses = view.consumers.get(value, ())
        if value in coupling.collected.constants:
            fine = all(e in edges or e.node in readers for e in uses)
        else:
            fine = _is_through(view.producers.get(value), made) and all(
                e.node in readers or view.by_index[e.node].op_type in _THROUGH for e in uses
            )
        if not fine:
            return False
    return bool(made) and group.step == 1


def _is_through(node: Node | None, made: Sequence[Site]) -> bool:
    return node is not None and (
        node.op_type in _THROUGH or any(node.index == s.node.index for s in made)
    )


def makers_of(sites: Iterable[Site], group: Group) -> list[Site]:
    """Return the dense layers whose outputs a group's channels are."""
    values = {member.axis.value for member in group.members}
    return [s for s in sites if s.node.outputs[0] in values]


def subspace(readers: Sequence[Reader]) -> Subspace:
    """Find the directions of a stream that its readers hear most of.

    For one reader with inputs of moments G and weight V the best k directions are the largest
    generalized eigenvectors of (G V V' G, G); several readers are weighed by what their outputs
    vary.

    Parameters
    ----------
    readers : sequence of Reader
        All layers that read the stream.

    Returns
    -------
    Subspace
    """
    moments = [_channel_moments(reader) for reader in readers]
    heard = [
        np.einsum("cto,dto,o->cd", w, w, r.worth) for r in readers for w in [r.weight[r.places]]
    ]
    size = len(moments[0])
    signal, total = np.zeros((size, size)), np.zeros((size, size))
    for g, v in zip(moments, heard, strict=True):
        level = max(float(np.trace(g)), 1e-12)
        signal += g @ v @ g / level
        total += g / level
    total += _RIDGE * np.trace(total) / size * np.eye(size)
    _, vectors = linalg.eigh(signal, total)
    basis = np.ascontiguousarray(vectors[:, ::-1].T)
    counts = np.unique(np.linspace(0, size, min(size, _GRID) + 1).round().astype(int))
    lost = np.zeros(len(counts))
    for reader, g, v in zip(readers, moments, heard, strict=True):
        # Taps of a kernel are taken as uncorrelated; what that misses is the same at every width.
        exact = float(((reader.weight * (reader.moments @ reader.weight)) @ reader.worth).sum())
        rough = max(float((g * v).sum()), 1e-30)
        lost += exact / rough * np.array([_lost(basis[: size - n], g, v) for n in counts])
    errors = np.maximum.accumulate(np.interp(np.arange(size + 1), counts, lost))
    return Subspace(basis, errors - errors[0], readers)


def _channel_moments(reader: Reader) -> Array:
    """Average the second moments of channels over the taps of a kernel."""
    blocks = reader.moments[reader.places[:, None, :], reader.places[None, :, :]]
    return np.asarray(blocks.mean(axis=2))


def _decoder(basis: Array, moments: Array) -> Array:
    seen = moments @ basis.T
    inner = basis @ seen
    inner += _RIDGE * max(np.trace(inner) / max(len(inner), 1), 1e-30) * np.eye(len(inner))
    return np.asarray(np.linalg.solve(inner, seen.T).T)


def _lost(basis: Array, moments: Array, heard: Array) -> float:
    if not len(basis):
        return float((moments * heard).sum())
    left = moments - _decoder(basis, moments) @ (basis @ moments)
    return max(float((left * heard).sum()), 0.0)
