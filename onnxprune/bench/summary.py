"""From readings to a report, with a warning for everything that makes it less sure."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnxprune.bench.readings import WARM_UP_RUNS, Round
from onnxprune.bench.statistics import UNSTEADY, Estimate, choose, clocks, variation, verdict
from onnxprune.bench.values import BenchReport, Latency

__all__ = ["summarize"]


def summarize(
    rounds: Sequence[Round], *, names: Sequence[str], threads: int, provider: str, pairs: int,
    min_runs: int, warm_up: int = WARM_UP_RUNS, dims: Mapping[str, int], machine: Mapping[str, str],
) -> BenchReport:  # fmt: skip
    """Turn readings into a report; other parameters as in :func:`measure`.

    ``rounds`` are at least two; of ``machine``, ``load average`` and ``cores`` are read.
    """
    walls = [np.concatenate([r[i].wall for r in rounds]) / 1e6 for i in range(len(names))]
    warnings = [*_load(machine), *_scarce(rounds, pairs, min_runs, warm_up)]
    if threads == 1:
        warnings += _shared(rounds)
    wall, cpu = clocks(rounds)
    clock, found = None, wall
    if wall is not None:
        clock, reason = choose(wall, cpu)
        found = cpu if cpu is not None and clock == "cpu" else wall
        warnings += [reason] if reason else []
    spread = found.cv if found else variation(np.array([np.median(r[0].wall) for r in rounds]))
    if spread > UNSTEADY:
        what = f"{clock or 'wall'} time varied by {spread:.1%} over fresh sessions"
        warnings.append(f"{what} (steady is under {UNSTEADY:.1%}): expect other figures next time")
    return BenchReport(
        models=tuple(names),
        latency_ms=tuple(Latency(*map(float, np.percentile(w, [50, 90, 99]))) for w in walls),
        ratio=found.ratio if found else None,
        interval=(found.low, found.high) if found else None,
        clock=clock,
        wall=_triple(wall),
        cpu=_triple(cpu),
        verdict=verdict(found) if found else None,
        pairs=len(rounds), runs=sum(len(w) for w in walls), threads=threads, provider=provider,
        dims=dict(dims), machine=dict(machine), warnings=tuple(warnings),
    )  # fmt: skip


def _triple(found: Estimate | None) -> tuple[float, float, float] | None:
    return (found.ratio, found.low, found.high) if found else None


def _load(machine: Mapping[str, str]) -> Iterator[str]:
    """Warn where more is running than the machine has cores for."""
    load, cores = machine["load average"].split()[0], machine["cores"]
    if load != "unknown" and float(load) > int(cores):
        yield (
            f"load average {load} on {cores} cores before timing: if other programs caused it, "
            "close them for steadier figures"
        )


def _scarce(rounds: Sequence[Round], pairs: int, min_runs: int, warm_up: int) -> Iterator[str]:
    """Warn where the time limit cost rounds, timed runs or warm-up runs."""
    every = [readings for pair in rounds for readings in pair]
    runs, warm = min(len(r.wall) for r in every), min(r.warm_up for r in every)
    if len(rounds) < pairs:
        yield f"only {len(rounds)} of {pairs} session pairs fitted the time limit"
    if runs < min_runs:
        yield f"slow model: the time limit cut the timed runs per session to {runs} of {min_runs}"
    if warm < warm_up:
        yield f"slow model: the time limit cut the warm-up to {warm} of {warm_up} runs"


def _shared(rounds: Sequence[Round]) -> Iterator[str]:
    """Warn where one-thread runs waited for the processor: latencies are then too high."""
    every = [r for pair in rounds for r in pair if r.cpu_seen]
    wait = np.median([np.median(r.wall) / np.median(r.cpu) for r in every]) if every else 1.0
    if wait > 1.1:
        yield (
            f"runs took {wait:.1f} times their CPU time: other work shares this machine, and "
            "the latencies in milliseconds are too high"
        )
