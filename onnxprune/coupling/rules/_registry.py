"""Operators, as rules see them, and the table of all rules."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.relations import Axis, Relation, Tie
from onnxprune.registry import Registry

__all__ = [
    "MICROSOFT",
    "ML",
    "NCHWC",
    "UNKNOWN",
    "Op",
    "OpBody",
    "Rule",
    "Tensor",
    "lookup",
    "registered",
    "rule",
]

MICROSOFT = "com.microsoft"  # onnxruntime's own operators, which its optimizers write
ML = "ai.onnx.ml"
NCHWC = "com.microsoft.nchwc"  # its layout for one machine
UNKNOWN: tuple[int, ...] = (-1,)  # the shape of what no run has shown, and of what is no tensor


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value as one operator meets it.

    ``constant`` is true for initializers and what is computed from them alone; ``data`` holds the
    elements of small values: parameters such as a target shape can be read even when computed.
    ``uniform`` is the number that all elements of a recurrent layer's initial state are.
    """

    value: str
    shape: tuple[int, ...]
    constant: bool
    data: NDArray[np.generic] | None
    uniform: float | None = None

    @property
    def known(self) -> bool:
        """Whether it is a tensor that a run has shown."""
        return self.shape is not UNKNOWN

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def axis(self, axis: int) -> Axis:
        """Name one axis; negative numbers count from the end."""
        return Axis(self.value, axis % max(len(self.shape), 1))

    def axes(self) -> range:
        """Number the axes."""
        return range(len(self.shape))


@dataclass(frozen=True, slots=True)
class OpBody:
    """What a body of control flow takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class Op:
    """A node with everything a rule may look at; absent optional values are None."""

    name: str
    op_type: str
    domain: str
    opset: int
    attributes: dict[str, object]
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    bodies: Mapping[str, OpBody] = field(default_factory=dict)

    def x(self, slot: int) -> Tensor:
        """Return a required input."""
        tensor = self.inputs[slot]
        assert tensor is not None
        return tensor

    def y(self, slot: int = 0) -> Tensor:
        """Return a required output."""
        tensor = self.outputs[slot]
        assert tensor is not None
        return tensor

    def optional(self, slot: int) -> Tensor | None:
        """Return an optional input."""
        return self.inputs[slot] if slot < len(self.inputs) else None

    def present(self) -> list[Tensor]:
        """Return the inputs that are there."""
        return [tensor for tensor in self.inputs if tensor is not None]

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        value = self.attributes.get(name, default)
        assert isinstance(value, int)
        return value

    def integers(self, name: str) -> list[int]:
        """Return an attribute that lists integers, empty where it is not given."""
        return [int(value) for value in np.ravel(np.asarray(self.attributes.get(name, ())))]

    def flag(self, name: str) -> bool:
        """Return an attribute that is 0 or 1, 0 by default."""
        return bool(self.integer(name, 0))

    def tie(self, a: Tensor, i: int, b: Tensor, j: int) -> Iterator[Tie]:
        """Tie two axes of equal size; a broadcast axis of size 1 ties to nothing."""
        if a.shape[i] == b.shape[j]:
            yield Tie(a.axis(i), b.axis(j))

    def same(self, a: Tensor, b: Tensor, but: Iterable[int] = ()) -> Iterator[Tie]:
        """Tie all axes of two tensors of equal rank, but for some."""
        apart = {axis % max(a.rank, 1) for axis in but}
        for axis in a.axes():
            if axis not in apart:
                yield from self.tie(a, axis, b, axis)


Rule: TypeAlias = Callable[[Op], Iterator[Relation]]
rule: Registry[Rule] = Registry("rule")
"""Registers rules; the axes of an operator without one are frozen."""
lookup, registered = rule.lookup, rule.registered
