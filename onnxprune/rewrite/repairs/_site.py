"""What a repair sees of a node under a cut, and the table of all repairs."""

from collections.abc import Callable, Set
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.keeps import Keeps, Mask
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Node
from onnxprune.registry import Registry
from onnxprune.runtime.trace import Trace

__all__ = ["Array", "Repair", "Site", "UnrepresentableError", "repair", "repairs"]

Array = NDArray[np.generic]


class UnrepresentableError(Exception):
    """The operator has no parameters that mean the wanted cut."""


class Site:
    """One node under a cut, at the sizes of one trace.

    ``attributes`` collects new attribute values (None: the attribute goes), ``parameters`` new
    values of parameter inputs; a slot past the last input is added. ``dropped`` collects optional
    inputs that go. ``known`` names the values that constants and shapes decide.
    """

    def __init__(self, node: Node, trace: Trace, keeps: Keeps, opset: int, known: Set[str]) -> None:
        self.node, self.trace, self.keeps, self.opset = node, trace, keeps, opset
        self.known = known
        self.attributes: dict[str, object] = {}
        self.parameters: dict[int, Array] = {}
        self.dropped: set[int] = set()

    def keep(self, value: str, axis: int) -> Mask | None:
        """Return the keep mask of an axis, None where it stays whole."""
        return self.keeps.get(Axis(value, axis))

    def full(self, value: str, axis: int) -> Mask:
        """Return the keep mask of an axis, all true where it stays whole."""
        mask = self.keep(value, axis)
        return np.ones(self.trace.shapes[value][axis], bool) if mask is None else mask

    def kept(self, value: str, axis: int) -> int:
        """Return how many positions of an axis stay."""
        mask, size = self.keep(value, axis), self.trace.shapes[value][axis]
        if mask is None:
            return size
        if len(mask) == size:
            return int(mask.sum())
        count = int(mask.sum()) * size  # the mask was made at other sizes of dynamic axes
        if count % len(mask):
            self.refuse("a dynamic axis does not divide")
        return count // len(mask)

    def ragged(self, value: str, axis: int) -> bool:
        """Say whether the blocks of an axis keep different positions."""
        joint = [a for a in self.keeps if a.by >= 0 and (a.value, a.axis) == (value, axis)]
        rows = [self.keeps[a].reshape(-1, self.trace.shapes[value][axis]) for a in joint]
        return any((found != found[:1]).any() for found in rows)

    def parameter(self, slot: int) -> Array | None:
        """Return the value of a parameter input at this trace, None where data decide it."""
        if slot >= len(self.node.inputs) or self.node.inputs[slot] not in self.known:
            return None
        return self.trace.values.get(self.node.inputs[slot])

    def refuse(self, why: str) -> None:
        """Give up: the cut cannot be written."""
        msg = f"{self.node.op_type} {self.node.name}: {why}"
        raise UnrepresentableError(msg)


Repair: TypeAlias = Callable[[Site], None]
repairs: Registry[Repair] = Registry("repair")


def repair(site: Site) -> None:
    """Fill in the attributes and parameters that a node needs after the cut."""
    function = repairs.lookup(site.node.domain, site.node.op_type)
    if function is not None:
        function(site)
