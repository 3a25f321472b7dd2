"""How long a model takes, and whether a second one is really faster.

Fresh sessions differ from one another (memory layout), so intervals taken within one session are
falsely tight: every round makes its sessions anew, and the rounds are what the interval is over.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune.bench.machine import machine
from onnxprune.bench.readings import WARM_UP_RUNS, Round, Stopwatch
from onnxprune.bench.statistics import choose, clocks
from onnxprune.bench.summary import summarize
from onnxprune.bench.values import BenchReport, ProfileLatency
from onnxprune.progress import Progress, Silent
from onnxprune.runtime.session import Feeds

__all__ = ["measure", "worst"]

STEADY = 0.02  # half width of the interval that needs no further pairs
LEAST_PAIRS = 2  # one pair has no spread


def measure(
    models: Sequence[Path | bytes | onnx.ModelProto],
    feeds: Sequence[Feeds],
    *,
    names: Sequence[str],
    narrower: Sequence[Feeds] | None = None,
    threads: int = 1,
    provider: str = "CPUExecutionProvider",
    pairs: int = 6,
    seed: int = 0,
    min_runs: int = 20,
    warm_up: int = WARM_UP_RUNS,
    time_limit: float | None = 60.0,
    dims: Mapping[str, int] | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Time one model, or two against each other on the same inputs.

    A round makes fresh sessions in random order, warms them up and times runs in ABBA or BAAB
    order by chance. A round too slow for its share of the time limit cuts its warm-up, then its
    timed runs, then the number of rounds; ``warnings`` says each.

    Parameters
    ----------
    models, names : sequences of Path, bytes or ModelProto, and of str
        One or two, and what the report calls them.
    feeds, narrower : sequence of feeds
        At least one; used in turn. The second model gets ``narrower`` where its inputs are.
    threads : int
        Intra-op threads. With more than one, CPU time is read from one-thread sessions beside.
    provider : str
        Execution provider; CPU time is read only from onnxruntime's own CPU provider.
    pairs : int
        Rounds, at least two; up to twice as many while the interval is wider than +-2 %.
    seed, min_runs, warm_up : int
        Of the orders; timed readings per model and round, and runs before them, if time allows.
    time_limit, dims, progress : float, mapping of str to int, and Progress, optional
        Seconds that all rounds may take; sizes of the dynamic dimensions, for the report.

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
    facts = machine(threads, provider)
    each, rng = (feeds, narrower or feeds), np.random.default_rng(seed)
    stopwatch = Stopwatch(models, each, provider, min_runs, warm_up, rng)
    rounds = _rounds(stopwatch, threads, pairs, time_limit, progress or Silent())
    return summarize(
        rounds, names=names, threads=threads, provider=provider, pairs=pairs, min_runs=min_runs,
        warm_up=warm_up, dims=dims or {}, machine=facts,
    )  # fmt: skip


def worst(reports: Sequence[BenchReport]) -> BenchReport:
    """Join the reports of several profiles: the one counts that promises least.

    Parameters
    ----------
    reports : sequence of BenchReport
        At least one, all of the same models.

    Returns
    -------
    BenchReport
        The slowest where one model was timed.
    """

    def least(report: BenchReport) -> tuple[float, float]:
        high = report.interval[1] if report.interval is not None else 0.0
        return high, report.latency_ms[-1].median

    warnings = dict.fromkeys(warning for report in reports for warning in report.warnings)
    profiles = tuple(
        ProfileLatency(r.dims, r.latency_ms, r.ratio, r.interval, r.clock, r.verdict)
        for r in reports
    )
    return replace(max(reports, key=least), warnings=tuple(warnings), profiles=profiles)


def _rounds(
    stopwatch: Stopwatch, threads: int, pairs: int, time_limit: float | None, progress: Progress
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


def _enough(rounds: Sequence[Round], pairs: int) -> bool:
    if len(rounds) < pairs:
        return False
    wall, cpu = clocks(rounds)
    if wall is None:
        return True
    found = cpu if cpu is not None and choose(wall, cpu)[0] == "cpu" else wall
    return math.log(found.high / found.ratio) <= STEADY


def _round(stopwatch: Stopwatch, threads: int, share: float) -> Round:
    """Time fresh sessions of all models once, in about ``share`` seconds."""
    cpu_tells = stopwatch.provider == "CPUExecutionProvider"
    if cpu_tells and threads == 1:
        return stopwatch.fresh(1, share)
    if cpu_tells and len(stopwatch.models) == 2:
        walls, cpus = stopwatch.fresh(threads, share / 2), stopwatch.fresh(1, share / 2)
        return tuple(replace(w, cpu=c.cpu) for w, c in zip(walls, cpus, strict=True))
    return tuple(replace(w, cpu=np.empty(0)) for w in stopwatch.fresh(threads, share))
