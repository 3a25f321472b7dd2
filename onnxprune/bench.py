"""How long a model takes, and whether a second one is really faster.

Fresh sessions differ from one another (memory layout), so intervals taken within one session are
falsely tight: every round makes its sessions anew, and the rounds are what the interval is over.
Latency is skewed by whatever else the machine does: medians, never means or minima.
"""

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from scipy import stats

from onnxprune.progress import Progress, Silent
from onnxprune.report.values import BenchReport, Latency
from onnxprune.runtime.session import RUNTIME_VERSION, Feeds, Session

__all__ = ["Estimate", "Readings", "Round", "choose", "estimate", "measure", "summarize", "verdict"]

CONFIDENCE = 0.99
LEAST_CHANGE = 0.01  # below this a change is noise to anyone who deploys a model
STEADY = 0.02  # half width of the interval that needs no further pairs
UNSTEADY = 0.025  # coefficient of variation over pairs that is worth a warning (trtexec's)
LEAST_PAIRS = 2  # one pair has no spread

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
class Estimate:
    """Second over first, its 99 % interval, and the coefficient of variation over pairs."""

    ratio: float
    low: float
    high: float
    cv: float


def measure(
    models: Sequence[Path | bytes | onnx.ModelProto],
    feeds: Sequence[Feeds],
    *,
    names: Sequence[str],
    threads: int = 1,
    provider: str = "CPUExecutionProvider",
    pairs: int = 6,
    seed: int = 0,
    min_runs: int = 20,
    time_limit: float | None = 60.0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Time one model, or two against each other on the same inputs.

    A round makes fresh sessions in random order, warms them up (10 runs and 200 ms) and times runs
    in ABBA or BAAB order by chance. A round too slow for its share of the time limit cuts its
    warm-up, then its timed runs, then the number of rounds; ``warnings`` says each.

    Parameters
    ----------
    models : sequence of Path, bytes or ModelProto
        One or two.
    feeds : sequence of feeds
        At least one; used in turn, the same for both models.
    names : sequence of str
        What the report calls the models.
    threads : int
        Intra-op threads. With more than one, CPU time is read from one-thread sessions beside.
    provider : str
        Execution provider; CPU time is read only from onnxruntime's own CPU provider.
    pairs : int
        Rounds, at least two; up to twice as many while the interval is wider than +-2 %.
    seed, min_runs : int
        Of the orders; timed readings per model and round, if the time limit (seconds) allows.
    dims : mapping of str to int, optional
        Sizes of the dynamic dimensions, for the report.
    progress : Progress, optional

    Returns
    -------
    BenchReport

    Raises
    ------
    RunFailedError, UsageError, ValueError
        If a model does not run, the provider is not there, or the arguments make no sense.
    """
    if len(models) not in {1, 2} or len(names) != len(models) or not feeds or pairs < LEAST_PAIRS:
        msg = "measure needs one or two named models, at least one feed and two pairs"
        raise ValueError(msg)
    machine = _machine(threads, provider)
    stopwatch = _Stopwatch(models, feeds, provider, min_runs, np.random.default_rng(seed))
    rounds = _rounds(stopwatch, threads, pairs, time_limit, progress or Silent())
    return summarize(
        rounds, names=names, threads=threads, provider=provider, pairs=pairs, min_runs=min_runs,
        dims=dims or {}, machine=machine,
    )  # fmt: skip


def _rounds(
    stopwatch: "_Stopwatch", threads: int, pairs: int, time_limit: float | None, progress: Progress
) -> list[Round]:
    """Run rounds until they say enough, or the time is up."""
    start = time.perf_counter()
    share = math.inf if time_limit is None else time_limit / pairs
    rounds: list[Round] = []
    for _ in progress.track(range(2 * pairs), pairs, "session pairs"):
        begin = time.perf_counter()
        rounds.append(_round(stopwatch, threads, share))
        now = time.perf_counter()
        late = time_limit is not None and now - start + (now - begin) > time_limit
        if len(rounds) >= LEAST_PAIRS and (late or _enough(rounds, pairs)):
            break
    return rounds


def estimate(logs: NDArray[np.float64]) -> Estimate:
    """Return the ratio and its t-interval over the log ratios of independent pairs.

    Parameters
    ----------
    logs : ndarray of shape (pairs,)
        ``log(second / first)``, at least two.
    """
    center = float(np.mean(logs))
    width = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(logs) - 1) * stats.sem(logs))
    ends = math.exp(center - width), math.exp(center + width)
    return Estimate(math.exp(center), *ends, _variation(np.exp(logs)))


def verdict(found: Estimate) -> str:
    """Return ``faster``, ``slower``, or ``no measurable change`` (unclear, or under 1 %)."""
    if found.low <= 1 <= found.high or abs(found.ratio - 1) < LEAST_CHANGE:
        return "no measurable change"
    return "faster" if found.ratio < 1 else "slower"


def choose(wall: Estimate, cpu: Estimate | None) -> tuple[str, str | None]:
    """Return the clock to believe, ``wall`` or ``cpu``, and why if it is not the wall clock.

    Clocks that differ by less than a change that matters do not part, however tight they are.
    """
    if cpu is None:
        return "wall", None
    apart = abs(math.log(wall.ratio / cpu.ratio)) >= math.log1p(LEAST_CHANGE)
    if apart and (wall.low > cpu.high or cpu.low > wall.high):
        return "cpu", (
            f"the wall clock says {wall.ratio:.3f} and one-thread CPU time {cpu.ratio:.3f}: "
            "the ratio is read from CPU time"
        )
    if wall.cv > UNSTEADY and cpu.cv < wall.cv:
        return "cpu", (
            f"wall time varied by {wall.cv:.1%} over session pairs, one-thread CPU time by "
            f"{cpu.cv:.1%}: the ratio is read from CPU time"
        )
    return "wall", None


def summarize(
    rounds: Sequence[Round], *, names: Sequence[str], threads: int, provider: str, pairs: int,
    min_runs: int, dims: Mapping[str, int], machine: Mapping[str, str],
) -> BenchReport:  # fmt: skip
    """Turn readings into a report; other parameters as in :func:`measure`.

    ``rounds`` are at least two; of ``machine``, ``load average`` and ``cores`` are read.
    """
    walls = [np.concatenate([r[i].wall for r in rounds]) / 1e6 for i in range(len(names))]
    warnings = [*_load(machine), *_scarce(rounds, pairs, min_runs)]
    if threads == 1:
        warnings += _shared(rounds)
    wall, cpu = _clocks(rounds)
    clock, found = None, wall
    if wall is not None:
        clock, reason = choose(wall, cpu)
        found = cpu if cpu is not None and clock == "cpu" else wall
        warnings += [reason] if reason else []
    spread = found.cv if found else _variation(np.array([np.median(r[0].wall) for r in rounds]))
    if spread > UNSTEADY:
        what = f"{clock or 'wall'} time varied by {spread:.1%} over fresh sessions"
        warnings.append(f"{what} (steady is under {UNSTEADY:.1%}): expect other figures next time")
    return BenchReport(
        models=tuple(names),
        latency_ms=tuple(Latency(*map(float, np.percentile(w, [50, 90]))) for w in walls),
        ratio=found.ratio if found else None,
        interval=(found.low, found.high) if found else None,
        clock=clock,
        wall=_triple(wall),
        cpu=_triple(cpu),
        verdict=verdict(found) if found else None,
        pairs=len(rounds), runs=sum(len(w) for w in walls), threads=threads, provider=provider,
        dims=dict(dims), machine=dict(machine), warnings=tuple(warnings),
    )  # fmt: skip


def _clocks(rounds: Sequence[Round]) -> tuple[Estimate | None, Estimate | None]:
    """Estimate the ratio by the wall clock and by CPU time; None where there is no such ratio."""
    if len(rounds[0]) < 2:
        return None, None
    wall = estimate(np.array([_log_ratio(a.wall, b.wall) for a, b in rounds]))
    seen = all(r.cpu_seen for pair in rounds for r in pair)
    cpu = estimate(np.array([_log_ratio(a.cpu, b.cpu) for a, b in rounds])) if seen else None
    return wall, cpu


def _triple(found: Estimate | None) -> tuple[float, float, float] | None:
    return (found.ratio, found.low, found.high) if found else None


def _log_ratio(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    return math.log(np.median(second) / np.median(first))


def _variation(values: NDArray[np.float64]) -> float:
    return float(np.std(values, ddof=1) / np.mean(values))


def _enough(rounds: Sequence[Round], pairs: int) -> bool:
    if len(rounds) < pairs:
        return False
    wall, cpu = _clocks(rounds)
    if wall is None:
        return True
    found = cpu if cpu is not None and choose(wall, cpu)[0] == "cpu" else wall
    return math.log(found.high / found.ratio) <= STEADY


def _load(machine: Mapping[str, str]) -> Iterator[str]:
    """Warn where more is running than the machine has cores for."""
    load, cores = machine["load average"].split()[0], machine["cores"]
    if load != "unknown" and float(load) > int(cores):
        yield (
            f"load average {load} on {cores} cores before timing: if other programs caused it, "
            "close them for steadier figures"
        )


def _scarce(rounds: Sequence[Round], pairs: int, min_runs: int) -> Iterator[str]:
    """Warn where the time limit cost rounds, timed runs or warm-up runs."""
    every = [readings for pair in rounds for readings in pair]
    runs, warm = min(len(r.wall) for r in every), min(r.warm_up for r in every)
    if len(rounds) < pairs:
        yield f"only {len(rounds)} of {pairs} session pairs fitted the time limit"
    if runs < min_runs:
        yield f"slow model: the time limit cut the timed runs per session to {runs} of {min_runs}"
    if warm < WARM_UP_RUNS:
        yield f"slow model: the time limit cut the warm-up to {warm} of {WARM_UP_RUNS} runs"


def _shared(rounds: Sequence[Round]) -> Iterator[str]:
    """Warn where one-thread runs waited for the processor: latencies are then too high."""
    every = [r for pair in rounds for r in pair if r.cpu_seen]
    wait = np.median([np.median(r.wall) / np.median(r.cpu) for r in every]) if every else 1.0
    if wait > 1.1:
        yield (
            f"runs took {wait:.1f} times their CPU time: other work shares this machine, and "
            "the latencies in milliseconds are too high"
        )


def _round(stopwatch: "_Stopwatch", threads: int, share: float) -> Round:
    """Time fresh sessions of all models once, in about ``share`` seconds."""
    cpu_tells = stopwatch.provider == "CPUExecutionProvider"
    if cpu_tells and threads == 1:
        return stopwatch.fresh(1, share)
    if cpu_tells and len(stopwatch.models) == 2:
        walls, cpus = stopwatch.fresh(threads, share / 2), stopwatch.fresh(1, share / 2)
        return tuple(replace(w, cpu=c.cpu) for w, c in zip(walls, cpus, strict=True))
    return tuple(replace(w, cpu=np.empty(0)) for w in stopwatch.fresh(threads, share))


@dataclass(frozen=True, slots=True)
class _Stopwatch:
    """Times the models on the same inputs, in an order drawn by ``rng``."""

    models: Sequence[Path | bytes | onnx.ModelProto]
    feeds: Sequence[Feeds]
    provider: str
    min_runs: int
    rng: np.random.Generator

    def fresh(self, threads: int, share: float) -> Round:
        """Time one fresh session per model, in about ``share`` seconds."""
        start = time.perf_counter()
        count = len(self.models)
        sessions = {
            int(i): Session(self.models[i], threads=threads, provider=self.provider)
            for i in self.rng.permutation(count)
        }
        warm = [self._warm_up(sessions[i], share / 4 / count) for i in range(count)]
        took = [float(np.median(times)) for times in warm]
        batches = [math.ceil(READING_SECONDS / seconds) for seconds in took]
        lengths = [batch * seconds for batch, seconds in zip(batches, took, strict=True)]
        left = share - (time.perf_counter() - start)
        wanted = max(self.min_runs, ROUND_SECONDS / max(lengths))
        readings = max(1, math.ceil(min(wanted, left / sum(lengths))))
        wall: list[list[float]] = [[] for _ in warm]
        cpu: list[list[float]] = [[] for _ in warm]
        for i, feed in self._order(readings):
            times, busy = _read(sessions[i], self.feeds[feed], batches[i])
            wall[i] += times
            cpu[i].append(busy)
        return tuple(
            Readings(np.array(w), np.array(c), len(runs))
            for w, c, runs in zip(wall, cpu, warm, strict=True)
        )

    def _warm_up(self, session: Session, patience: float) -> list[float]:
        """Run until 10 runs and 200 ms, or ``patience`` seconds, have passed; time each run."""
        times: list[float] = []
        passed = 0.0
        while True:
            start = time.perf_counter()
            session.run(self.feeds[len(times) % len(self.feeds)])
            times.append(time.perf_counter() - start)
            passed += times[-1]
            warm = len(times) >= WARM_UP_RUNS and passed >= WARM_UP_SECONDS
            if warm or passed >= patience:
                return times

    def _order(self, readings: int) -> Iterator[tuple[int, int]]:
        """Yield (model, feed) of each reading: AB or BA by chance, then the other way round."""
        order: list[int] = []
        for i in range(readings):
            order = order[::-1] if i % 2 else self.rng.permutation(len(self.models)).tolist()
            for model in order:
                yield model, i // 2 % len(self.feeds)


def _read(session: Session, feeds: Feeds, batch: int) -> tuple[list[float], float]:
    """Return the wall time of each run of a batch, and its CPU time per run, in nanoseconds."""
    stamps = [time.perf_counter_ns()]
    busy = time.process_time_ns()
    for _ in range(batch):
        session.run(feeds)
        stamps.append(time.perf_counter_ns())
    busy = time.process_time_ns() - busy
    return [float(b - a) for a, b in pairwise(stamps)], busy / batch


def _machine(threads: int, provider: str) -> dict[str, str]:
    """Say where the times were taken; the load is the one before the measurement adds its own."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    load = " ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else ""
    return {
        "cpu": _cpu_model(),
        "cores": str(cores),
        "load average": load or "unknown",
        "onnxruntime": RUNTIME_VERSION,
        "provider": provider,
        "threads": str(threads),
        "python": platform.python_version(),
        "os": platform.platform(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine() or "unknown"
