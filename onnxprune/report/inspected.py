"""What ``inspect`` ends with: groups, frozen axes, coverage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune.lossless.values import Lossless

__all__ = ["Coverage", "FrozenAxis", "GroupInfo", "Inspection"]


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
