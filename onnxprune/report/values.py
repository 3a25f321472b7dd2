"""What ``run``, ``apply`` and ``verify`` end with; rendering it is somebody else's work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune.bench.values import Latency, ProfileLatency
from onnxprune.lossless.values import Lossless
from onnxprune.quality.values import Drop

__all__ = [
    "Figures",
    "GroupChange",
    "InterfaceChange",
    "Ratios",
    "RemovedPositions",
    "Report",
    "VerifyReport",
]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a model costs: parameters, multiply-accumulates, bytes of the file, latency.

    ``peak_bytes`` is the most that activations need at once, in the order of the graph.
    """

    params: int
    macs: int
    bytes: int
    latency_ms: Latency | None
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Ratios:
    """After over before; ``latency_interval`` is the 99 % t-interval over session pairs.

    ``latency_clock`` is ``wall`` or ``cpu``: the clock that the ratio was read from.
    """

    params: float
    macs: float
    bytes: float
    latency: float | None
    latency_interval: tuple[float, float] | None
    latency_clock: str | None


@dataclass(frozen=True, slots=True)
class RemovedPositions:
    """Positions cut from one axis, in the original's index; ``value`` as named in the file.

    Where each block of the axis ``by`` loses others, they are counted block by block.
    """

    value: str
    axis: int
    positions: tuple[int, ...]
    initializer: bool
    by: int | None = None


@dataclass(frozen=True, slots=True)
class InterfaceChange:
    """A graph input or output that is narrower now, and what of the original it holds.

    ``kept`` are positions of the original's axis, in order; where each block of the axis ``by``
    keeps others, they are counted block by block. ``before`` and ``after`` are sizes of the axis.
    """

    name: str
    role: str  # input, output
    axis: int
    before: int
    after: int
    kept: tuple[int, ...]
    by: int | None = None


@dataclass(frozen=True, slots=True)
class GroupChange:
    """How many channels of one group there were and are; ``exact``: equals its masked original.

    ``method`` says how its channels were ordered: ``perturbation`` (each one measured),
    ``reconstruction`` (what the others can stand in for, where layers are refitted),
    ``activation`` (the cheaper importance, when the time limit did not allow more) or ``plan``.
    """

    name: str
    kind: str
    before: int
    after: int
    exact: bool
    method: str


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that ``run`` and ``apply`` have to say; see the schema ``onnxprune-report/1``."""

    source: str
    target: str | None
    before: Figures
    after: Figures
    ratios: Ratios
    drop: Drop | None
    removed: Sequence[RemovedPositions]
    groups: Sequence[GroupChange]
    verified: Mapping[str, float] | None  # {"max_rel_error": float, "samples": int}
    dims: Mapping[str, int]
    options: Mapping[str, object]
    seconds: Mapping[str, float]
    seed: int
    versions: Mapping[str, str]
    warnings: Sequence[str]
    refitted: Sequence[str] = ()
    added: Sequence[str] = ()
    rotated: Sequence[str] = ()
    rescaled: Sequence[str] = ()
    removed_nodes: Sequence[str] = ()
    lossless: Lossless | None = None
    profiles: Sequence[ProfileLatency] = ()
    interface: Sequence[InterfaceChange] = ()


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What ``verify`` found; see ``onnxprune-verify/1``."""

    source: str
    target: str
    max_rel_error: float
    samples: int
    same_bytes: bool
    differences: Sequence[str]
    ok: bool
