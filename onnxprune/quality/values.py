"""What judging gives: the drop, and what is proven of it."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Certified", "Drop", "Judged"]


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
