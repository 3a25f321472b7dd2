"""Recovery as a stage: refit, and keep it only where held-out samples say that it helps.

What is good is decided with samples that nothing was fitted on. Once it is decided (turned streams
or not, how many sweeps) these samples are worth more as further rows: the same is done again on
both parts together.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.data.splits import Splits, affordable, drawn
from onnxprune.layers.readers import dense_sites
from onnxprune.progress import Progress
from onnxprune.recovery.heads import proven_heads, turn_heads
from onnxprune.recovery.refit import refit
from onnxprune.recovery.turn import Turn, find_turns, turned
from onnxprune.rewrite.prove import Proven
from onnxprune.runtime.session import Feeds
from onnxprune.sensitivity.error import OutputError

__all__ = [
    "Recovered",
    "Way",
    "enough",
    "fitting",
    "plain",
    "recover",
    "recover_again",
]

_BATCH = 32
_ROOM = 3 << 30  # bytes of the activations of a batch
_KEPT = 3 << 30  # bytes of what is kept of all samples from one layer to the next
_FOLDS = 4
_FEWEST = 4  # samples below which least squares only learns them by heart
_SWEEPS = 2
_WORTH = 0.99  # of the error: a sweep that leaves more of it is not worth its time


@dataclass(frozen=True, slots=True)
class Way:
    """How a model was refitted: with turned streams or not, in how many sweeps."""

    turned: bool
    sweeps: int


@dataclass(frozen=True, slots=True, eq=False)
class Recovered:
    """What recovery made of a cut model.

    Attributes
    ----------
    model : ModelProto
    refitted, added, rotated : tuple of str
        Initializers that were solved for, biases that were added, and which of both were put into
        another basis first.
    before, after : float, optional
        Relative squared output error on the selection samples; None where nothing was tried.
    way : Way, optional
        None where nothing was refitted.
    """

    model: onnx.ModelProto
    refitted: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None
    way: Way | None = None
    rotated: tuple[str, ...] = ()


def plain(proven: Proven) -> Recovered:
    """Leave a cut model as it is."""
    return Recovered(proven.model)


def enough(splits: Splits) -> bool:
    """Say whether there are samples enough to refit on."""
    return len(splits.fit) >= _FEWEST


def recover(
    found: Analysis,
    proven: Proven,
    splits: Splits,
    *,
    seed: int,
    time_limit: float,
    progress: Progress,
) -> Recovered:
    """Refit the layers of a cut model to the original on the fitting samples.

    A second sweep mends what the first one left, as long as the error on the selection samples
    falls; a sweep that does not help is dropped. So are turned heads where the same without them
    comes nearer.

    Parameters
    ----------
    found : Analysis
        Of what was cut; layers are refitted to its original.
    proven : Proven
    splits : Splits
    seed : int
    time_limit : float
        Seconds; no further sweep begins that would pass it.
    progress : Progress

    Returns
    -------
    Recovered
    """
    if not enough(splits) or not (proven.removed or found.longer):
        return plain(proven)
    held = list(found.samples.feeds(splits.select, _BATCH))
    judge = OutputError.of(found.original, held)
    before = judge.error(proven.model, proven.keeps)
    sweeps = _Sweeps(found, proven, fitting(found, splits.fit, seed), seed, progress)
    deadline = time.monotonic() + time_limit / 2
    untouched = Recovered(proven.model, before=before, after=before)
    best = untouched
    if turns := sweeps.turns():
        best = sweeps.choose(replace(untouched, after=np.inf), turns, judge, deadline)
        if not any(turn.proven for turn in turns) and (best.after or np.inf) < before:
            return best  # streams: their bases have always been worth it
    other = sweeps.choose(untouched, (), judge, deadline)
    return min(other, best, key=lambda one: np.inf if one.after is None else one.after)


def recover_again(
    found: Analysis,
    proven: Proven,
    splits: Splits,
    chosen: Recovered,
    *,
    seed: int,
    progress: Progress,
) -> Recovered:
    """Refit a cut model once more the way that was found good, on the selection samples too.

    Parameters
    ----------
    found : Analysis
    proven : Proven
    splits : Splits
    chosen : Recovered
        By `recover`.
    seed : int
    progress : Progress

    Returns
    -------
    Recovered
        With the errors of ``chosen``, which were measured on samples that it had not seen.
    """
    if chosen.way is None or splits.shared:
        return chosen
    both = np.union1d(splits.fit, splits.select)
    sweeps = _Sweeps(found, proven, fitting(found, both, seed), seed, progress)
    turns = sweeps.turns() if chosen.way.turned else []
    done = sweeps.start(turns)
    for number in range(chosen.way.sweeps):
        done = sweeps.sweep(done, turns, number)
    return replace(done, before=chosen.before, after=chosen.after, way=chosen.way)


def fitting(found: Analysis, indices: NDArray[np.int64], seed: int) -> list[Feeds]:
    """Return samples to fit on in batches, fewer samples where each takes long or much memory."""
    indices = affordable(indices, found.costs.total.macs, seed)
    # What a layer reads, and the skip that it meets, are kept of all samples.
    most = max(_KEPT // max(2 * max(found.activations), 1), _BATCH // 2)
    indices = drawn(indices, most, seed)
    room = max(_ROOM // max(sum(found.activations), 1), 1)
    # Every fold of the cross-validation needs samples of its own.
    return list(found.samples.feeds(indices, min(_BATCH, room, len(indices) // _FOLDS)))


@dataclass(frozen=True)
class _Sweeps:
    """Repeated refits of a cut model."""

    found: Analysis
    proven: Proven
    fit: Sequence[Feeds]
    seed: int
    progress: Progress

    def turns(self) -> list[Turn]:
        """Find the streams that are better turned than cut as they are."""
        found, proven = self.found, self.proven
        streams = find_turns(
            found.view,
            found.traces[0],
            found.coupling,
            proven.removed,
            self.fit,
            seed=self.seed,
        )
        cut = {axis.value for axis in proven.keeps}
        heads = proven_heads(found, cut, self.fit, seed=self.seed)
        if not heads:
            return streams
        return [*streams, replace(turn_heads(found, heads, proven.keeps), proven=True)]

    def start(self, turns: Sequence[Turn]) -> Recovered:
        """Return the cut model, turned."""
        found, proven = self.found, self.proven
        if not turns:
            return Recovered(proven.model)
        sites = dense_sites(found.view, found.traces[0], found.coupling)
        student = turned(proven.model, found.view, sites, proven.keeps, turns)
        names = student.refitted, student.added, student.rotated
        refitted, added, rotated = (tuple(dict.fromkeys(n)) for n in names)
        return Recovered(student.model, refitted, added, rotated=rotated)

    def choose(
        self, best: Recovered, turns: Sequence[Turn], judge: OutputError, deadline: float
    ) -> Recovered:
        """Sweep as long as the error on the selection samples falls."""
        now = self.start(turns)
        for number in range(_SWEEPS):
            now = self.sweep(now, turns, number)
            error = judge.error(now.model, self.proven.keeps)
            if not error < _WORTH * (best.after or 0.0):
                break
            way = Way(bool(turns), number + 1)
            best = replace(now, before=best.before, after=error, way=way)
            if time.monotonic() > deadline:
                break
        return best

    def sweep(self, now: Recovered, turns: Sequence[Turn], number: int) -> Recovered:
        """Refit every layer once more."""
        original = self.found.original
        done = refit(
            original.view,
            original.traces[0],
            original.coupling.collected,
            now.model,
            self.proven.keeps,
            self.fit,
            turns,
            seed=self.seed + number,
            progress=self.progress,
        )
        added = (*now.added, *done.added)
        names = dict.fromkeys((*now.refitted, *done.refitted))
        refitted = tuple(n for n in names if n not in added)
        return Recovered(done.model, refitted, added, rotated=now.rotated)
