"""What timing gives: latencies of one model, or of two against each other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["BenchReport", "Latency", "ProfileLatency"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one run of a model: median, 90th and 99th percentile of all timed runs."""

    median: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class ProfileLatency:
    """Latency at the sizes of one profile: of one model, or of two and their ratio."""

    dims: Mapping[str, int]
    latency_ms: Sequence[Latency]
    ratio: float | None
    interval: tuple[float, float] | None
    clock: str | None
    verdict: str | None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Latency of one model, or of two against each other; see ``onnxprune-bench/1``.

    ``ratio`` is second over first with ``interval`` its 99 % t-interval over session pairs;
    ``verdict`` is ``faster``, ``slower`` or ``no measurable change``. ``wall`` and ``cpu`` hold
    ``(ratio, low, high)`` of each clock; ``clock`` names the one that the verdict is read from.
    With ``profiles``, the other figures are those of the worst of them.
    """

    models: Sequence[str]
    latency_ms: Sequence[Latency]
    ratio: float | None
    interval: tuple[float, float] | None
    clock: str | None
    wall: tuple[float, float, float] | None
    cpu: tuple[float, float, float] | None
    verdict: str | None
    pairs: int
    runs: int
    threads: int
    provider: str
    dims: Mapping[str, int]
    machine: Mapping[str, str]
    warnings: Sequence[str]
    profiles: Sequence[ProfileLatency] = ()
