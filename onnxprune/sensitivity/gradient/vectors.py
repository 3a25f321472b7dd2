"""Every channel's change of the output as a vector: one number per sample and cotangent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, RunFailedError, Session, batch_size, with_outputs
from onnxprune.runtime.trace import Trace, trace
from onnxprune.sensitivity.gradient.cotangents import enough, signs
from onnxprune.sensitivity.gradient.probabilities import logits_of, probability_changes
from onnxprune.sensitivity.gradient.sketch import Sketcher
from onnxprune.sensitivity.output import OutputChange

__all__ = ["Sketches", "sketch"]

_ROWS = 128  # samples times cotangents, at least: fewer make no stable ranking
_LEAST = 4  # cotangents per sample: one alone costs some networks 0.03 of rank correlation
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
    checked: bool,
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
        Cotangents per sample; 4 by default, up to 8 where samples are few.
    checked : bool
        Whether the first pass is a small one with many cotangents, to compare exact removals with.
    rng : Generator

    Returns
    -------
    Sketches
    """
    run = _Run(view, seen, coupling, groups, outputs, rng)
    rows = sum(batch_size(feed) for feed in feeds)
    try:
        usual = int(np.clip(-(-_ROWS // rows), _LEAST, _MOST))
        return run.all(feeds, count or usual, checked=checked)
    except RunFailedError as error:
        why = dict.fromkeys([g.name for g in groups], str(error))
        return Sketches({}, feeds[0], {}, why, run.passes)


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
        self.logits = logits_of(view, seen, outputs)
        self.outputs = outputs if self.logits is None else (self.logits,)
        self.rng = rng
        self.missing: dict[str, str] = {}
        self.passes = 0
        self._rows: dict[str, list[NDArray[np.float32]]] = {g.name: [] for g in groups}
        self._sketchers: dict[object, Sketcher] = {}
        self._room = max(_MEMORY // _activations(view, seen), 1)  # samples per pass

    def all(self, feeds: Sequence[Feeds], count: int, *, checked: bool) -> Sketches:
        """Go through all samples."""
        several = len(self.outputs) > 1
        scales = self._scales(feeds) if several else dict.fromkeys(self.outputs, 1.0)
        clean: list[Feed] = []
        columns: dict[str, int] = {}
        for feed in self._chunks(feeds, small=checked):
            more = checked and not clean
            clean.append(self._chunk(feed, max(count, _MOST) if more else count, scales))
            if len(clean) == 1:
                first = feed
                columns = {name: sum(map(len, rows)) for name, rows in self._rows.items()}
        unit = 1.0 if several else next(iter(OutputChange(clean).scales.values()))
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
        self._room = max(_MEMORY * batch_size(feed) // max(bytes_, 1), 1)
        most = enough(outputs[n].shape for n in self.outputs)
        draws = min(draws, most) if self.logits is None else most
        drawn = {n: signs(outputs[n].shape, draws, self.rng) for n in self.outputs}
        for draw in range(draws):
            given = {
                n: np.asarray(s[draw] / (scales[n] * np.sqrt(draws)), sketcher.dtype)
                for n, s in drawn.items()
            }
            for name, rows in sketcher.backward(kept, given).items():
                self._rows[name].append(rows)
        self.passes += 1 + draws
        if self.logits is not None:
            return self._softened(outputs[self.logits], drawn[self.logits])
        return outputs

    def _softened(self, logits: NDArray[np.generic], drawn: Sequence[NDArray[np.float32]]) -> Feed:
        """Turn the rows of the last chunk into changes of the probabilities behind the logits."""
        values = logits.astype(np.float64)
        cotangents = [signs / np.sqrt(len(drawn)) for signs in drawn]
        for name, rows in self._rows.items():
            last = rows[-len(drawn) :]
            if not last:
                continue
            if len(last[0]) != len(values):
                self.missing.setdefault(name, "samples cannot be told apart behind Softmax")
                continue
            rows[-len(drawn) :] = [probability_changes(values, cotangents, last)]
        return {"probabilities": softmax(values, axis=1).astype(np.float32)}

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

    def _chunks(self, feeds: Sequence[Feeds], *, small: bool) -> Iterator[Feeds]:
        """Split feeds into parts as large as memory allows, the first one perhaps small."""
        whole = _fixed(self.view)
        for number, feed in enumerate(feeds):
            at = 0
            while at < batch_size(feed):
                size = _CHECKED if small and number == at == 0 else self._room
                size = batch_size(feed) if whole else min(size, batch_size(feed) - at)
                yield feed if size == batch_size(feed) else _part(feed, at, at + size)
                at += size

    def _scales(self, feeds: Sequence[Feeds]) -> Mapping[str, float]:
        """Return each output's spread; all samples have to be seen before the first cotangent."""
        session = Session(with_outputs(self.view.real, self.outputs))
        self.passes += len(feeds)
        return OutputChange([session.run(feed, self.outputs) for feed in feeds]).scales


def _part(feed: Feeds, start: int, stop: int) -> Feed:
    return {name: array[start:stop] if array.ndim else array for name, array in feed.items()}


def _activations(view: View, seen: Trace) -> int:
    """Count the bytes of all computed values per sample, before a pass has shown what is kept."""
    sizes = (np.prod(shape) for name, shape in seen.shapes.items() if not view.is_constant(name))
    batch = max((seen.shapes[name][:1] or (1,))[0] for name in view.inputs)
    return int(4 * sum(sizes) // max(batch, 1)) + 1


def _fixed(view: View) -> bool:
    """Whether feeds must stay whole: the model fixes the size of an input's first axis."""
    inputs = [i for i in view.model.graph.input if i.name in view.inputs]
    dims = [i.type.tensor_type.shape.dim[:1] for i in inputs]
    return any(dim[0].HasField("dim_value") for dim in dims if dim)
