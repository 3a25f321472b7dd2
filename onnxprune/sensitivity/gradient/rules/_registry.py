"""One operator to be differentiated, and the table of all rules."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onnxprune.coupling.rules import Op
from onnxprune.registry import Registry
from onnxprune.sensitivity.gradient.tape import Tape

__all__ = ["Call", "Rule", "lookup", "registered", "vjp"]


@dataclass(frozen=True, slots=True)
class Call:
    """A node, the gradients of its outputs, and the inputs whose gradient somebody needs.

    Attributes
    ----------
    op : Op
    gradients : sequence of str or None
        One per output; None where nothing depends on it.
    slots : frozenset of int
    """

    op: Op
    gradients: Sequence[str | None]
    slots: frozenset[int]

    @property
    def g(self) -> str:
        """The gradient of the only output that anything depends on."""
        assert self.gradients[0] is not None
        return self.gradients[0]

    @property
    def x(self) -> str:
        """The first input."""
        return self.op.x(0).value

    @property
    def y(self) -> str:
        """The first output."""
        return self.op.y().value


Rule: TypeAlias = Callable[[Tape, Call], Iterator[tuple[int, str]]]
vjp: Registry[Rule] = Registry("rule")
"""Registers vector-Jacobian products, which yield (slot, gradient) pairs.

A rule may yield gradients nobody asked for: what nobody reads is not run. Groups behind an
operator without a rule are measured otherwise.
"""
lookup, registered = vjp.lookup, vjp.registered
