"""Second-order elimination: which channels the others can stand in for, and how well.

A channel may go cheaply not because it does little but because the rest can do it. Greedy
group-OBS:
from the second moments of what a group's readers read, remove in each step the channel whose loss,
with everything else refitted, hurts the readers' outputs least (Schur updates keep the inverse).
One pass over the samples gives the order and the exact local error at every width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from onnxprune.coupling.footprints import block_shares
from onnxprune.layers.readers import Reader

__all__ = ["Elimination", "eliminate"]

Array = NDArray[np.float64]
_RIDGE = 1e-3  # of the mean diagonal of the second moments
_LIVE = 0.8  # share of rows below which those of what is gone are dropped
_STEPS = 256  # of an elimination; larger groups lose several channels a step


@dataclass(frozen=True, eq=False)
class Elimination:
    """One group's removal order.

    Attributes
    ----------
    order : int array, shape (channels,)
        The first to go first.
    errors : float array, shape (channels + 1,)
        Local error with the first k gone and the readers refitted, by what it is worth, summed
        over readers.
    readers : sequence of Reader
    """

    order: NDArray[np.int64]
    errors: Array
    readers: Sequence[Reader]

    def stand_in(self, reader: Reader, gone: int) -> Array:
        """Return a reader's weight (D, O) with the first channels gone and the rest refitted."""
        lost = np.zeros(len(reader.weight), bool)
        lost[reader.inputs(self.order[:gone])] = True
        inner = reader.moments[np.ix_(~lost, ~lost)] + _damping(reader) * np.eye((~lost).sum())
        found = reader.weight.copy()
        found[lost] = 0.0
        found[~lost] += linalg.solve(
            inner, reader.moments[np.ix_(~lost, lost)] @ reader.weight[lost], assume_a="pos"
        )
        return found


def _damping(reader: Reader) -> float:
    return _RIDGE * max(float(np.diag(reader.moments).mean()), 1e-12)


def eliminate(readers: Sequence[Reader], blocks: NDArray[np.int64]) -> Elimination:
    """Remove channels one after the other, always the cheapest with the rest refitted.

    Where channels lie in blocks that must stay equally wide, the cheapest of each goes in turn.

    Parameters
    ----------
    readers : sequence of Reader
        All layers that read the group; judged together.
    blocks : int array, shape (channels,)
        The block of each channel.

    Returns
    -------
    Elimination
    """
    states = [_State(reader) for reader in readers]
    alive = np.ones(len(blocks), bool)
    order: list[int] = []
    errors = [0.0]
    while alive.any():
        left = np.flatnonzero(alive)
        scores = np.sum([state.scores(left) for state in states], axis=0)
        gone = _cheapest(left[np.argsort(scores, kind="stable")], blocks)
        costs = np.sum([state.remove(gone) for state in states], axis=0)
        alive[gone] = False
        order.extend(gone)
        errors.extend(errors[-1] + np.cumsum(np.maximum(costs, 0.0)))
    return Elimination(np.asarray(order, np.int64), np.asarray(errors), readers)


def _cheapest(ranked: NDArray[np.int64], blocks: NDArray[np.int64]) -> list[int]:
    """Take the first channels, or the first of each block where there are several."""
    if blocks.any():
        firsts = [
            np.flatnonzero(blocks[ranked] == block)[:share]
            for block, share in enumerate(block_shares(blocks).tolist())
        ]
        return [int(channel) for channel in ranked[np.sort(np.concatenate(firsts))]]
    return [int(channel) for channel in ranked[: max(1, len(blocks) // _STEPS)]]


class _State:
    """One reader during elimination: the inverse moments and the refitted weight."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.inverse = linalg.inv(reader.moments + _damping(reader) * np.eye(len(reader.moments)))
        self.weight = reader.weight.copy()
        self.places = reader.places
        self.live = np.ones(len(self.weight), bool)

    def scores(self, channels: NDArray[np.int64]) -> Array:
        costs = np.zeros(len(channels))
        heard = np.flatnonzero(self.places[channels, 0] >= 0)
        channels = channels[heard]
        places = self.places[channels]
        weights = self.weight[places]
        blocks = self.inverse[places[:, :, None], places[:, None, :]]
        losses = (weights * np.linalg.solve(blocks, weights)).sum(axis=1) * self.reader.worth
        if self.reader.own is not None:  # what goes with a channel need not do without it
            losses[np.arange(len(channels))[:, None], self.reader.own[channels]] = 0.0
        # Rounding may leave a channel that cannot go any cheaper than for nothing.
        costs[heard] = np.maximum(losses.sum(axis=1), 0.0)
        return costs

    def remove(self, channels: Sequence[int]) -> Array:
        """Take channels away, and return what each costs if they go one after the other."""
        costs = np.zeros(len(channels))
        heard = np.flatnonzero(self.places[channels, 0] >= 0)
        if not len(heard):
            return costs
        known = np.asarray(channels)[heard]
        at = self.places[known].ravel()
        block = self.inverse[np.ix_(at, at)]
        costs[heard] = self._costs(known, block, self.weight[at])
        if self.reader.own is not None:
            self.weight[:, self.reader.own[known].ravel()] = 0.0
        column = self.inverse[:, at]
        self.weight -= column @ np.linalg.solve(block, self.weight[at])
        self.inverse -= column @ np.linalg.solve(block, column.T)
        # What is gone must never come back through rounding.
        self.weight[at] = 0.0
        self.inverse[at, :] = 0.0
        self.inverse[:, at] = 0.0
        self.inverse[at, at] = 1.0
        self.live[at] = False
        if self.live.sum() < _LIVE * len(self.live):
            self._compact()
        return costs

    def _compact(self) -> None:
        """Drop the rows of what is gone: every step takes as long as there are rows squared."""
        live, number = self.live, np.cumsum(self.live) - 1
        self.weight, self.inverse = self.weight[live], self.inverse[np.ix_(live, live)]
        self.places = np.where(self.places >= 0, number[self.places], -1)
        self.live = np.ones(len(self.weight), bool)

    def _costs(self, channels: NDArray[np.int64], block: Array, weights: Array) -> Array:
        """Eliminate channels one after the other, within the rows of all of them only."""
        costs, taps = np.zeros(len(channels)), len(weights) // len(channels)
        for number, channel in enumerate(channels):
            if self.reader.own is not None:
                weights[:, self.reader.own[channel]] = 0.0
            solved = np.linalg.solve(block[:taps, :taps], weights[:taps])
            costs[number] = ((weights[:taps] * solved) @ self.reader.worth).sum()
            rest = block[taps:, :taps]
            weights = weights[taps:] - rest @ solved
            block = block[taps:, taps:] - rest @ np.linalg.solve(block[:taps, :taps], rest.T)
        return costs
