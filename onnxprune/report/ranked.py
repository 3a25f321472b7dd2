"""What ``sensitivity`` ends with: groups, and how far to trust their ranking."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Agreement", "RankedGroup", "Ranking"]


@dataclass(frozen=True, slots=True)
class RankedGroup:
    """What the channels of one group are worth.

    ``order`` names the first channel to go first; ``scores`` are by channel number, ``errors`` the
    relative squared output change at each of ``widths``. ``samples`` made the order. ``stability``
    is the rank correlation of the orders that two halves of the samples give. ``lost`` is the loss
    in the metric without the first half of the order, ``worst_class`` that of the class that
    suffers most.
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
    lost: float | None = None
    worst_class: float | None = None


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
    metric: str | None
    dims: Mapping[str, int]
    seed: int
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    warnings: Sequence[str]
