"""The values that a command ends with; rendering them is somebody else's work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Agreement",
    "BenchReport",
    "Certified",
    "Coverage",
    "Drop",
    "Figures",
    "FreeChannels",
    "FrozenAxis",
    "GroupChange",
    "GroupInfo",
    "Inspection",
    "Judged",
    "Latency",
    "Lossless",
    "ProfileLatency",
    "RankedGroup",
    "Ranking",
    "Ratios",
    "RemovedPositions",
    "Report",
    "VerifyReport",
]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one run of a model: median, 90th and 99th percentile of all timed runs."""

    median: float
    p90: float
    p99: float


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
class Certified:
    """Proven on ``samples`` held out: the drop is at most ``alpha``, with this confidence."""

    alpha: float
    confidence: float
    samples: int


@dataclass(frozen=True, slots=True)
class Judged:
    """One output's part in the drop; weights add up to 1."""

    output: str
    metric: str
    weight: float


@dataclass(frozen=True, slots=True)
class Drop:
    """Quality lost against the original on held-out samples.

    ``value`` is the mean of the samples' losses, or the user's number for all of them;
    ``interval`` is its 95 % interval (None for one number); ``worst_class`` is the loss of the
    class that suffers most (None without classes); ``before_recovery`` is the drop of the plain
    cut, ``limit`` the most that was allowed (None: nothing was said).
    """

    metric: str
    value: float
    interval: tuple[float, float] | None
    samples: int
    worst_class: float | None
    certified: Certified | None = None
    before_recovery: float | None = None
    limit: float | None = None
    outputs: Sequence[Judged] = ()


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
class FreeChannels:
    """Channels of one group that can go for free, by number."""

    name: str
    channels: Sequence[int]


@dataclass(frozen=True, slots=True)
class Lossless:
    """Channels that never vary, or that nothing reads: their removal changes nothing.

    ``proven`` of them by the weights alone; the rest never varied on ``samples`` samples (0: none
    were looked at). ``params`` and ``macs`` are the shares that all of them save, ``removed`` is
    how many of them went (None where nothing was cut).
    """

    channels: int
    proven: int
    samples: int
    removed: int | None
    params: float
    macs: float
    groups: Sequence[FreeChannels]


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
    profiles: Sequence["ProfileLatency"] = ()
    interface: Sequence[InterfaceChange] = ()


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """One group of interchangeable channels, with what all of its channels cost together.

    ``members`` are ``(value, axis, positions per channel)``. ``verified`` is None when it was not
    cut alone (``--no-verify``), else whether its cut to half equals its reference.
    """

    name: str
    kind: str
    channels: int
    params: int
    macs: int
    exact: bool
    members: Sequence[tuple[str, int, int]]
    verified: bool | None


@dataclass(frozen=True, slots=True)
class FrozenAxis:
    """An axis of a weight that cannot be cut: what forbids it, why, and what would free it.

    ``source`` is the ``(value, axis)`` where the freeze came about. ``params`` and ``macs`` are the
    weight's where no group shrinks it by another axis, else 0: the coverage that is missing.
    """

    value: str
    axis: int
    node: str
    op: str
    reason: str
    source: tuple[str, int]
    unlock: str
    params: int
    macs: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """Share (0-1) of the weighted operators that at least one cuttable group can shrink."""

    params: float
    macs: float
    exact_params: float
    exact_macs: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """Everything that ``inspect`` has to say; see the schema ``onnxprune-inspect/1``."""

    source: str
    params: int
    macs: int
    bytes: int
    opset: int
    groups: Sequence[GroupInfo]
    frozen: Sequence[FrozenAxis]
    coverage: Coverage
    dims: Mapping[str, int]
    warnings: Sequence[str]
    lossless: Lossless | None = None


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """What the channels of one group are worth.

    ``order`` names the first channel to go first; ``scores`` are by channel number, ``errors`` the
    relative squared output change at each of ``widths``. ``samples`` made the order. ``stability``
    is the rank correlation of the orders that two halves of the samples give.
    """

    name: str
    kind: str
    channels: int
    method: str
    samples: int
    partial: bool
    stability: float | None
    order: Sequence[int]
    scores: Sequence[float]
    widths: Sequence[int]
    errors: Sequence[float]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Rank correlations of what two methods say of the same ``channels``.

    ``pooled`` is over all of them together, None where scores of different groups do not compare;
    ``median`` and ``worst`` (of the group ``weakest``) are inside the ``groups`` that have enough
    channels, not all tied.
    """

    first: str
    second: str
    channels: int
    pooled: float | None
    groups: int
    median: float | None
    worst: float | None
    weakest: str


@dataclass(frozen=True, slots=True)
class Ranking:
    """What ``sensitivity`` measured; see the schema ``onnxprune-sensitivity/1``.

    ``forwards`` is the processor time that measuring took in passes of the whole model over the
    samples it was measured on; ``stability`` the median of the groups'.
    """

    source: str
    method: str
    reasons: Sequence[str]
    groups: Sequence[RankedGroup]
    samples: int
    forwards: float
    agreement: Sequence[Agreement]
    stability: float | None
    partial: bool
    dims: Mapping[str, int]
    seed: int
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    warnings: Sequence[str]


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
