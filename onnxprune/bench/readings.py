"""Reading sessions: warm up, then time runs in an order that favours no model."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.bench.clock import opened
from onnxprune.runtime.session import Feeds, Session

__all__ = ["WARM_UP_RUNS", "Readings", "Round", "Stopwatch"]

WARM_UP_RUNS, WARM_UP_SECONDS = 10, 0.2
READING_SECONDS = 0.002  # shorter readings drown in the clocks' own cost
ROUND_SECONDS = 0.2  # the slower model is read at least this long in each round


@dataclass(frozen=True, slots=True)
class Readings:
    """What one session took in one round, in nanoseconds.

    Attributes
    ----------
    wall : ndarray of shape (runs,)
        Wall time of every single run.
    cpu : ndarray of shape (readings,)
        CPU time per run, one thread, averaged over a batch of runs long enough to be read; empty
        where CPU time does not say what the model costs.
    warm_up : int
        Runs before the first reading.
    """

    wall: NDArray[np.float64]
    cpu: NDArray[np.float64]
    warm_up: int

    @property
    def cpu_seen(self) -> bool:
        """Whether the process clock saw the runs (on some systems it ticks at 16 ms)."""
        return len(self.cpu) > 0 and bool(np.median(self.cpu) > 0)


Round = tuple[Readings, ...]
"""The readings of each model in one round of fresh sessions."""


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Times the models on feeds of their own, in an order drawn by ``rng``."""

    models: Sequence[Path | bytes | onnx.ModelProto]
    feeds: Sequence[Sequence[Feeds]]
    provider: str
    min_runs: int
    warm_up: int
    rng: np.random.Generator

    def fresh(self, threads: int, share: float) -> Round:
        """Time one fresh session per model, in about ``share`` seconds."""
        start = time.perf_counter()
        count = len(self.models)
        sessions = {
            int(i): opened(self.models[i], threads=threads, provider=self.provider)
            for i in self.rng.permutation(count)
        }
        warm = [self._warm_up(sessions[i], self.feeds[i], share / 4 / count) for i in range(count)]
        took = [float(np.median(times)) for times in warm]
        batches = [math.ceil(READING_SECONDS / seconds) for seconds in took]
        lengths = [batch * seconds for batch, seconds in zip(batches, took, strict=True)]
        left = share - (time.perf_counter() - start)
        wanted = max(self.min_runs, ROUND_SECONDS / max(lengths))
        readings = max(1, math.ceil(min(wanted, left / sum(lengths))))
        wall: list[list[float]] = [[] for _ in warm]
        cpu: list[list[float]] = [[] for _ in warm]
        for i, feed in self._order(readings):
            times, busy = _read(sessions[i], self.feeds[i][feed], batches[i])
            wall[i] += times
            cpu[i].append(busy)
        return tuple(
            Readings(np.array(w), np.array(c), len(runs))
            for w, c, runs in zip(wall, cpu, warm, strict=True)
        )

    def _warm_up(self, session: Session, feeds: Sequence[Feeds], patience: float) -> list[float]:
        """Time runs until ``warm_up`` of them and 200 ms, or ``patience`` seconds, have passed."""
        times: list[float] = []
        passed = 0.0
        while True:
            start = time.perf_counter()
            session.run(feeds[len(times) % len(feeds)])
            times.append(time.perf_counter() - start)
            passed += times[-1]
            warm = len(times) >= self.warm_up and passed >= WARM_UP_SECONDS
            if warm or passed >= patience:
                return times

    def _order(self, readings: int) -> Iterator[tuple[int, int]]:
        """Yield (model, feed) of each reading: AB or BA by chance, then the other way round."""
        order: list[int] = []
        for i in range(readings):
            order = order[::-1] if i % 2 else self.rng.permutation(len(self.models)).tolist()
            for model in order:
                yield model, i // 2 % len(self.feeds[model])


def _read(session: Session, feeds: Feeds, batch: int) -> tuple[list[float], float]:
    """Return the wall time of each run of a batch, and its CPU time per run, in nanoseconds."""
    stamps = [time.perf_counter_ns()]
    busy = time.process_time_ns()
    for _ in range(batch):
        session.run(feeds)
        stamps.append(time.perf_counter_ns())
    busy = time.process_time_ns() - busy
    return [float(b - a) for a, b in pairwise(stamps)], busy / batch
