"""Samples: what is fed to a model to measure it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.runtime.session import Feeds

__all__ = ["Samples", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Frozen samples, each a feed of all inputs.

    Attributes
    ----------
    names : tuple of str
        Input names.
    entries : tuple of feeds
        One per sample. Of stacked samples each array holds one sample on axis 0 (scalar inputs
        are the same in all); otherwise each entry is a full feed.
    stacked : bool
        Whether samples may be joined along axis 0.
    synthetic : bool
        Whether chance made them: figures measured on them say little about real inputs.
    notes : tuple of str
        What the user should know about the reading, such as "ignored extra key 'labels'".
    fixed_batch : int, optional
        The size that the model fixes for axis 0, where samples are stacked.
    origin : tuple of int, optional
        Which of the data's samples each one is; None where not all of the data was read.
    there : int, optional
        How many samples the data holds; None where nobody knows.
    """

    names: tuple[str, ...]
    entries: tuple[Feeds, ...]
    stacked: bool
    synthetic: bool = False
    notes: tuple[str, ...] = ()
    fixed_batch: int | None = None
    origin: tuple[int, ...] | None = None
    there: int | None = None

    def __len__(self) -> int:
        return len(self.entries)

    def feeds(self, indices: Sequence[int] | NDArray[np.integer], batch: int) -> Iterator[Feeds]:
        """Yield feeds of the samples in the order of ``indices``.

        Parameters
        ----------
        indices : sequence of int
        batch : int
            Most samples per feed, where samples are stacked. A model whose axis 0 is fixed at b
            gets exactly b; a remainder is dropped, but samples that do not fill one single feed
            are repeated until they do.

        Yields
        ------
        mapping of input name to array
            Of stacked samples, each array has shape (samples, ...); else one entry's feed.
        """
        for _, feed in self.batches(indices, batch):
            yield feed

    def batches(
        self, indices: Sequence[int] | NDArray[np.integer], batch: int
    ) -> Iterator[tuple[list[int], Feeds]]:
        """Yield feeds as :meth:`feeds` does, each with the numbers of its samples."""
        chosen = [int(i) for i in indices]
        if not self.stacked:
            yield from (([i], self.entries[i]) for i in chosen)
            return
        size = self.fixed_batch or batch
        if self.fixed_batch and chosen:
            whole = max(len(chosen) // size, 1) * size
            chosen = [chosen[k % len(chosen)] for k in range(whole)]
        for start in range(0, len(chosen), size):
            part = chosen[start : start + size]
            yield part, self._join(part)

    def example(self) -> Feeds:
        """Return the first sample as a feed (as many as the model's fixed batch asks for)."""
        return next(self.feeds(range(min(self.fixed_batch or 1, len(self))), 1))

    def _join(self, indices: Sequence[int]) -> Feeds:
        first = self.entries[indices[0]]
        return {
            name: np.concatenate([self.entries[i][name] for i in indices])
            if first[name].ndim
            else first[name]
            for name in self.names
        }


def choose(n: int, limit: int, seed: int) -> NDArray[np.int64]:
    """Return ``limit`` of n indices at random, ascending; all of them if there are no more."""
    if n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, limit, replace=False))
