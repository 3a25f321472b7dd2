"""What could go for free, as it is reported."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["FreeChannels", "Lossless"]


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
