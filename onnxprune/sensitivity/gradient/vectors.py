"""Every channel's change of the output as a vector: one number per sample and cotangent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, RunFailedError, Session, with_outputs
from onnxprune.runtime.trace import Trace, trace
from onnxprune.sensitivity.gradient.cotangents import enough, signs
from onnxprune.sensitivity.gradient.sketch import Sketcher
from onnxprune.sensitivity.output import OutputChange

__all__ = ["Sketches", "sketch"]

_ROWS = 128  # samples times cotangents that make a stable ranking
_CHECKED = 8  # samples of the first pass, which exact removals are compared on
_MOST = 8  # cotangents of the first pass, and at most
_MEMORY = 1 << 29  # bytes of activations that are kept between the passes

Feed = dict[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True, eq=False)
class Sketches:
    """What the backward passes gave.

    Attributes
    ----------
    vectors : mapping of group name to float32 array, shape (channels, dims)
        The squared norm estimates the relative squared change of the output.
    first : feeds
        The samples of the first pass.
    columns : mapping of group name to int
        Columns that come from the first pass.
    missing : mapping of group name to str
        Groups without a derivative, and why.
    passes : int
        Runs, forward and backward, of any number of samples.
    """

    vectors: Mapping[str, NDArray[np.float32]]
    first: Feeds
    columns: Mapping[str, int]
    missing: Mapping[str, str]
    passes: int


def sketch(
    view: View,
    seen: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    feeds: Sequence[Feeds],
    *,
    outputs: Sequence[str],
    count: int | None,
    rng: np.random.Generator,
) -> Sketches:
    """Sketch what the loss of each channel does to the outputs, to first order.

    Parameters
    ----------
    view : View
    seen : Trace
    coupling : Coupling
    groups : sequence of Group
    feeds : sequence of Feeds
        Split further where memory is short.
    outputs : sequence of str
    count : int, optional
        Cotangents per sample; by default as many as give 128 rows with all samples, 8 at most.
    rng : Generator

    Returns
    -------
    Sketches
    """
    run = _Run(view, seen, coupling, groups, outputs, rng)
    rows = sum(length(feed) for feed in feeds)
    try:
        return run.all(feeds, count or int(np.clip(-(-_ROWS // rows), 1, _MOST)))
    except RunFailedError as error:
        why = dict.fromkeys([g.name for g in groups], str(error))
        return Sketches({}, feeds[0], {}, why, run.passes)


def length(feed: Feeds) -> int:
    """Return the number of samples in a feed."""
    first = next(iter(feed.values()))
    return len(first) if first.ndim else 1


class _Run:
    """Passes over chunks of samples, with a derivative for each set of sizes."""

    def __init__(
        self,
        view: View,
        seen: Trace,
        coupling: Coupling,
        groups: Sequence[Group],
        outputs: Sequence[str],
        rng: np.random.Generator,
    ) -> None:
        self.view, self.seen, self.coupling, self.groups = view, seen, coupling, groups
        self.outputs, self.rng = outputs, rng
        self.missing: dict[str, str] = {}
        self.passes = 0
        self._rows: dict[str, list[NDArray[np.float32]]] = {g.name: [] for g in groups}
        self._sketchers: dict[object, Sketcher] = {}
        self._room = 1  # samples per pass that the memory allows, once a pass has shown it

    def all(self, feeds: Sequence[Feeds], count: int) -> Sketches:
        """Go through all samples."""
        several = len(self.outputs) > 1
        scales = self._scales(feeds) if several else dict.fromkeys(self.outputs, 1.0)
        clean, columns = [], {}
        chunks = self._chunks(feeds)
        for number, feed in enumerate(chunks):
            if number == 0:
                first, draws = feed, max(count, _MOST)
            clean.append(self._chunk(feed, draws if number == 0 else count, scales))
            if number == 0:
                columns = {name: sum(map(len, rows)) for name, rows in self._rows.items()}
        unit = 1.0 if several else OutputChange(clean).scales[self.outputs[0]]
        found = {}
        for name, rows in self._rows.items():
            table = np.concatenate(rows).T / unit if rows else np.empty(0)
            if not np.isfinite(table).all():
                self.missing.setdefault(name, "it is not finite")
            if name not in self.missing:
                found[name] = table.astype(np.float32)
        return Sketches(found, first, columns, self.missing, self.passes)

    def _chunk(self, feed: Feeds, draws: int, scales: Mapping[str, float]) -> Feed:
        """Run one feed forward, and backward once per draw."""
        sketcher = self._sketcher(feed)
        outputs, kept = sketcher.forward(feed)
        bytes_ = sum(array.nbytes for array in kept.values())
        self._room = max(_MEMORY * length(feed) // max(bytes_, 1), 1)
        draws = min(draws, enough(outputs[n].shape for n in self.outputs))
        drawn = {n: signs(outputs[n].shape, draws, self.rng) for n in self.outputs}
        for draw in range(draws):
            given = {
                n: np.asarray(s[draw] / (scales[n] * np.sqrt(draws)), sketcher.dtype)
                for n, s in drawn.items()
            }
            for name, rows in sketcher.backward(kept, given).items():
                self._rows[name].append(rows)
        self.passes += 1 + draws
        return outputs

    def _sketcher(self, feed: Feeds) -> Sketcher:
        """Return the derivative for the sizes of a feed."""
        sizes = tuple((name, array.shape[1:]) for name, array in feed.items())
        if sizes not in self._sketchers:
            known = tuple((name, self.seen.shapes[name][1:]) for name in feed)
            seen = self.seen if sizes == known else trace(self.view, feed)
            groups = [g for g in self.groups if g.name not in self.missing]
            made = Sketcher(self.view, seen, self.coupling, groups, self.outputs, feed)
            self.missing |= made.derivative.missing
            self._sketchers[sizes] = made
        return self._sketchers[sizes]

    def _chunks(self, feeds: Sequence[Feeds]) -> Iterator[Feeds]:
        """Split feeds: a small one for the check, then as large as memory allows."""
        whole = _fixed(self.view)
        for number, feed in enumerate(feeds):
            at = 0
            while at < length(feed):
                size = _CHECKED if number == at == 0 else self._room
                size = length(feed) if whole else min(size, length(feed) - at)
                yield feed if size == length(feed) else _part(feed, at, at + size)
                at += size

    def _scales(self, feeds: Sequence[Feeds]) -> Mapping[str, float]:
        """Return each output's spread; all samples have to be seen before the first cotangent."""
        session = Session(with_outputs(self.view.real, self.outputs))
        self.passes += len(feeds)
        return OutputChange([session.run(feed, self.outputs) for feed in feeds]).scales


def _part(feed: Feeds, start: int, stop: int) -> Feed:
    return {name: array[start:stop] if array.ndim else array for name, array in feed.items()}


def _fixed(view: View) -> bool:
    """Whether feeds must stay whole: the model fixes the size of an input's first axis."""
    inputs = [i for i in view.model.graph.input if i.name in view.inputs]
    dims = [i.type.tensor_type.shape.dim[:1] for i in inputs]
    return any(dim[0].HasField("dim_value") for dim in dims if dim)
