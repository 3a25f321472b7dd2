"""The vocabulary of the rules: what an operator says about the axes of its values."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CONSTANT",
    "NOTHING",
    "Axis",
    "Balance",
    "Contract",
    "Free",
    "Freeze",
    "How",
    "Positions",
    "Relation",
    "Split",
    "Tie",
]

Positions = NDArray[np.int64]
How = Literal["sum", "mean", "norm", "rms"]
NOTHING = "nothing: the operator looks at the whole axis at once"
CONSTANT = "an export in which these numbers are constants (fold the model's constants first)"


class Axis(NamedTuple):
    """One axis of one value of the view.

    With ``by`` it is a *joint* axis: the positions of ``axis`` told apart by the block of axis
    ``by`` that they lie in, numbered block by block (blocks are equal runs of ``by``). Different
    positions may then go in each block: units per direction, inputs per group of a convolution.
    """

    value: str
    axis: int
    by: int = -1

    @property
    def plain(self) -> "Axis":
        """The axis that positions are counted on."""
        return Axis(self.value, self.axis)

    def __str__(self) -> str:
        return f"{self.value}[{self.axis}]" + (f" by [{self.by}]" if self.by >= 0 else "")


@dataclass(frozen=True, slots=True)
class Tie:
    """Position ``a_index[k]`` of axis ``a`` *is* position ``b_index[k]`` of axis ``b``.

    Without indices the axes run in step, position by position.
    """

    a: Axis
    b: Axis
    a_index: Positions | None = None
    b_index: Positions | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """An axis that is also several axes: C = heads x dim, C = groups x offset.

    A cut follows one of the factors (the site's *reading*); ``factors`` pairs each factor with
    the map from positions of ``axis`` to positions of the factor (-1 where there is none).
    """

    axis: Axis
    factors: tuple[tuple[Axis, Positions], ...]


@dataclass(frozen=True, slots=True)
class Freeze:
    """The axis (or only the positions of ``index``) cannot be cut, for a reason one can read.

    ``unlock`` says what would free it.
    """

    axis: Axis
    reason: str
    index: Positions | None = None
    unlock: str = NOTHING


@dataclass(frozen=True, slots=True)
class Free:
    """Nothing holds this axis: its positions are copies of each other (Expand, ConstantOfShape)."""

    axis: Axis


@dataclass(frozen=True, slots=True)
class Contract:
    """The operator sums over this axis of its input ``slot``: an exit of the channels on it.

    ``how`` is ``sum`` where a removed channel just is one addend less, ``mean`` where the operator
    averages over the axis, ``norm`` and ``rms`` where it normalizes over the axis by mean and
    variance or by mean square: there removal changes a statistic of what stays. The axis still
    has to be tied or split by another relation. ``zero`` is the input slot of a quantized
    operand's zero point: what stands for nothing there. With ``groups`` each of so many equal runs
    of the axis has a statistic of its own, so that a whole run can go without changing any.
    """

    axis: Axis
    slot: int
    how: How = "sum"
    zero: int | None = None
    groups: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """Equally many positions must stay in each of ``blocks`` equal runs of an axis.

    The axis is a joint one, or one that the rule invents (a ``/`` in its name).
    """

    axis: Axis
    blocks: int


Relation: TypeAlias = Tie | Split | Freeze | Free | Contract | Balance
