"""Change of the output, as vectors that may be added up."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.keeps import WHOLE, Keeps, named, per_block

__all__ = ["OutputChange"]

_MOST = 256  # dimensions kept per sample and output; more are projected
_LOST = 1e6  # the change of an element that is no number any more


class OutputChange:
    """Turns outputs into change vectors whose squared norm is the relative squared error.

    Every float output is scaled by its own spread over the samples, so that several outputs
    weigh alike; wide outputs are projected at random (Johnson-Lindenstrauss), which keeps norms
    and sums of vectors.

    Parameters
    ----------
    clean : sequence of mappings of output name to array
        Outputs of the original, one mapping per batch.
    seed : int
        Of the projection.
    """

    def __init__(
        self, clean: Sequence[Mapping[str, NDArray[np.generic]]], *, seed: int = 0
    ) -> None:
        self._clean = clean
        self._seed = seed
        self._names = tuple(n for n, a in clean[0].items() if a.dtype.kind in "fV")
        self._scale = {n: self._spread(n) for n in self._names}
        self._matrices: dict[tuple[str, int], NDArray[np.float32]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Outputs that count: the float ones."""
        return self._names

    @property
    def scales(self) -> Mapping[str, float]:
        """What each output's change is divided by."""
        return self._scale

    def clean(self, batch: int) -> Mapping[str, NDArray[np.generic]]:
        """Return the outputs of the original on a batch."""
        return self._clean[batch]

    def vector(
        self, batch: int, outputs: Mapping[str, NDArray[np.generic]], keeps: Keeps = WHOLE
    ) -> NDArray[np.float32]:
        """Return the change of one batch.

        Parameters
        ----------
        batch : int
            Number of the batch in ``clean``.
        outputs : mapping of output name to array
            Outputs that are missing have not changed.
        keeps : mapping of Axis to mask
            What stays: what an output loses does not count, only how the rest changes.

        Returns
        -------
        float32 array, shape (dims,)
        """
        parts = []
        for name in self._names:
            clean = self._clean[batch][name]
            found = outputs.get(name)
            change = np.zeros(clean.shape, np.float32) if found is None else _finite(found, clean)
            if change.size:
                change = _kept(change, name, keeps)
                rows = (change / self._scale[name]).reshape(len(change) if change.ndim else 1, -1)
                parts.append(self._project(name, rows).ravel())
        return np.concatenate(parts) if parts else np.zeros(1, np.float32)

    def samples(self, batch: int) -> NDArray[np.int64]:
        """Number the sample of a batch that each dimension of its vector comes from.

        Outputs without an axis of samples count for the first.
        """
        parts = []
        for name in self._names:
            clean = self._clean[batch][name]
            rows = len(clean) if clean.ndim else 1
            width = clean.size // rows if rows else 0
            parts.append(np.repeat(np.arange(rows), min(width, _MOST)))
        return np.concatenate(parts) if parts else np.zeros(1, np.int64)

    def units(self, batch: int) -> NDArray[np.float64]:
        """Return what each dimension of a batch's vector has been divided by."""
        parts = [np.zeros(0)]
        for name in self._names:
            clean = self._clean[batch][name]
            rows = len(clean) if clean.ndim else 1
            width = clean.size // rows if rows else 0
            parts.append(np.full(rows * min(width, _MOST), self._scale[name]))
        return np.concatenate(parts) if self._names else np.ones(1)

    def _spread(self, name: str) -> float:
        """Root of the summed squared deviation over all samples and the outputs that count."""
        values = [np.asarray(batch[name], np.float64).ravel() for batch in self._clean]
        every = np.concatenate(values)
        every = every[np.isfinite(every)]
        total = float(((every - every.mean()) ** 2).sum()) if every.size else 0.0
        if total == 0.0:
            total = float((every**2).sum()) or 1.0
        return float(np.sqrt(total * len(self._names)))

    def _project(self, name: str, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        width = rows.shape[1]
        if width <= _MOST:
            return rows
        key = (name, width)
        if key not in self._matrices:
            rng = np.random.default_rng(self._seed)
            signs = rng.integers(0, 2, (width, _MOST), dtype=np.int8) * 2 - 1
            self._matrices[key] = signs.astype(np.float32) / np.float32(np.sqrt(_MOST))
        return rows @ self._matrices[key]


def _kept(change: NDArray[np.float32], name: str, keeps: Keeps) -> NDArray[np.float32]:
    for axis, mask in named({a: m for a, m in keeps.items() if a.value == name}):
        change = np.where(per_block(axis, mask, change.shape), change, np.float32(0))
    return change


def _finite(found: NDArray[np.generic], clean: NDArray[np.generic]) -> NDArray[np.float32]:
    """Subtract, in finite numbers.

    The same infinity on both sides (masked scores) is no change, a new NaN a large one. Where the
    size of an output depends on the data and is another now, all of it is lost.
    """
    f, c = found.astype(np.float32), clean.astype(np.float32)
    f = f if f.shape == c.shape else np.zeros_like(c)
    with np.errstate(invalid="ignore"):
        change = np.where((f == c) | np.isnan(c), np.float32(0), f - c)
    return np.nan_to_num(change, nan=_LOST, posinf=_LOST, neginf=-_LOST)
