"""Second moments of what layers read, summed up in one pass over the samples."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.recurrent import Recurrence, Sum
from onnxprune.layers.rows import input_rows, output_rows, places_of
from onnxprune.layers.sites import Site
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, batch_size, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Key", "Moments", "key_of", "moments_of"]

Array = NDArray[np.float64]
Key = tuple[object, ...]
_ROWS = 2  # rows per input that moments need


class Moments:
    """Streaming first and second moments; only the diagonal of the second unless ``full``."""

    def __init__(self, *, full: bool) -> None:
        self.full = full
        self.n = 0
        self.first: Array = np.zeros(1)
        self.second: Array = np.zeros(1)

    def add(self, rows: NDArray[np.float32]) -> None:
        """Add rows (n, D)."""
        self.n += len(rows)
        self.first = self.first + rows.sum(axis=0, dtype=np.float64)
        square = rows.T @ rows if self.full else (rows.astype(np.float64) ** 2).sum(axis=0)
        self.second = self.second + square

    @property
    def enough(self) -> bool:
        """Whether there are rows enough for everything not to seem replaceable."""
        return self.n >= _ROWS * len(self.first)

    @property
    def mean(self) -> Array:
        """Mean of the rows, shape (D,)."""
        return self.first / self.n

    def centred(self) -> Array:
        """Return the second moments about the mean, shape (D, D), or (D,) unless ``full``."""
        outer = np.outer(self.mean, self.mean) if self.full else self.mean**2
        return np.asarray(self.second / self.n - outer)


def key_of(layer: Site | Sum) -> Key:
    """Tell layers apart: their node, and which of its sums."""
    return (layer.node.index, *((layer.direction, layer.part) if isinstance(layer, Sum) else ()))


def moments_of(
    view: View, trace: Trace, layers: Sequence[Site | Sum], feeds: Sequence[Feeds], seed: int
) -> dict[Key, tuple[Moments, float]]:
    """Sum up the inputs of layers, and the variance of their outputs (with the skips they meet).

    Parameters
    ----------
    view, trace
        Of the original.
    layers : sequence of Site or Sum
    feeds : sequence of Feeds
    seed : int
        Of the output positions that are looked at.

    Returns
    -------
    dict of key to (moments of the inputs, variance of the outputs)
    """
    rng = np.random.default_rng(seed)
    samples = sum(map(batch_size, feeds))
    sites = [layer for layer in layers if isinstance(layer, Site)]
    batch = max(map(batch_size, feeds), default=1)
    places = {key_of(s): places_of(trace, s, rng, samples, batch) for s in sites}
    sums = {key_of(layer): Moments(full=True) for layer in layers}
    outs = {key_of(layer): Moments(full=False) for layer in layers}
    recurrences = list({s.node.index: s.layer for s in layers if isinstance(s, Sum)}.values())
    wanted = [n for s in sites for n in (s.source, s.heard)]
    wanted += [n for layer in recurrences for n in layer.reads]
    inner = [name for name in dict.fromkeys(wanted) if name not in view.inputs]
    session = Session(with_outputs(view.real, inner))
    for feed in feeds:
        values = {**feed, **session.run(feed, inner)}
        for site in sites:
            at, weight = places[key_of(site)], site.weight_in(view)
            sums[key_of(site)].add(input_rows(site, values[site.source], weight, at)[0])
            outs[key_of(site)].add(output_rows(values[site.heard], at))
        for layer in recurrences:
            for key, rows, made in _lived(view, layer, values):
                if key in sums:
                    sums[key].add(rows)
                    outs[key].add(made)
    return {key: (sums[key], float(outs[key].centred().sum())) for key in sums}


def _lived(
    view: View, layer: Recurrence, values: Mapping[str, NDArray[np.generic]]
) -> Iterator[tuple[Key, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield what each sum of a layer reads and adds up to over all steps, as rows."""
    cells = layer.taught(view)
    for found in layer.sums(view):
        cell = cells[found.direction]
        inputs = layer.sequences(values, found.direction)
        starts = layer.starts(values, layer.constants(view), found.direction, cell.units)
        rows = cell.run(inputs, *starts).rows(found.part)[0]
        weight, bias = cell.block(found.part)
        yield key_of(found), rows, rows @ weight + bias
