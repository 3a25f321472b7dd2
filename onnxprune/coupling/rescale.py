"""Statistics that can be kept as they were, by rescaling constants behind them.

With n positions of which k stay, a mean over what stays is r = n/k times the mean with zeros in
place of the rest. Powers of r are followed through the operators that hand factors on, up to
constants that undo them: the scale and the epsilon of an RMS normalization,

    gamma sqrt(r) x / sqrt(S/k + eps r)  =  gamma x / sqrt(S/n + eps),

those of a global response normalization, the weights of a convolution that reads a mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
from onnx import TensorProto

from onnxprune.coupling.relations import Axis, Contract
from onnxprune.model.view import Edge, Node, View

__all__ = ["Rescaled", "find_rescaled"]

_FUSED = ("RMSNormalization", "SimplifiedLayerNormalization")
_LINEAR = ("Conv", "ConvTranspose", "Gemm")  # a product of inputs 0 and 1, and an addend
# Operators that hand on a power of the factor of their input 0; their other inputs have none.
_HANDED_ON: Mapping[str, float] = {
    **dict.fromkeys(
        ("Abs", "Cast", "Dropout", "Expand", "Flatten", "Gather", "Identity", "LeakyRelu"), 1
    ),
    **dict.fromkeys(("Neg", "PRelu", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze"), 1),
    **dict.fromkeys(("Tile", "Transpose", "Unsqueeze", "AveragePool", "GlobalAveragePool"), 1),
    **dict.fromkeys(("GlobalMaxPool", "MaxPool", "ReduceL1", "ReduceL2", "ReduceMax"), 1),
    **dict.fromkeys(("ReduceMean", "ReduceMin", "ReduceSum"), 1),
    "Reciprocal": -1,
    "ReduceSumSquare": 2,
    "Sqrt": 0.5,
}
# Operators that want the same factor in these inputs (None: in all); constants can be given it.
_ALIKE: Mapping[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Add", "Clip", "Concat", "Max", "Mean", "Min", "Sub", "Sum")),
    "Where": (1, 2),
}
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
_PRODUCTS: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("MatMul", "Mul", *_LINEAR), (1.0, 1.0)),
    "Div": (1.0, -1.0),
}


@dataclass(frozen=True, slots=True)
class Rescaled:
    """What makes up for a cut of an axis that a mean runs over.

    Attributes
    ----------
    axis : Axis
        What the mean runs over.
    powers : mapping of Edge to float
        Slots of constants, which are multiplied by this power of (size / kept).
    epsilon : int, optional
        A node whose attribute of that name is multiplied by (size / kept).
    """

    axis: Axis
    powers: Mapping[Edge, float]
    epsilon: int | None = None


def find_rescaled(view: View, node: Node, contract: Contract) -> Rescaled | None:
    """Look for constants that make up for a changed statistic.

    Parameters
    ----------
    view : View
    node : Node
        That takes a mean, or a root of a mean square.
    contract : Contract
        What the node says of the axis.

    Returns
    -------
    Rescaled or None
        None where some way from the statistic to the outputs has no such constant in fp32 or fp64
        (rescaled halves would be rounded), or leads through an operator that hands no factor on.
    """
    if contract.how == "rms" and node.op_type in _FUSED and not any(node.outputs[1:]):
        scale = Edge(node.index, 1)
        return Rescaled(contract.axis, {scale: 0.5}, node.index) if _precise(view, scale) else None
    if contract.how != "mean" or _about_a_mean(view, node.inputs[0]):
        return None
    wave = _Wave(view, node)
    return Rescaled(contract.axis, wave.absorbed) if wave.dies_out() else None


def _about_a_mean(view: View, square: str) -> bool:
    """Whether a square is of differences: LayerNormalization, whose mean changes, too."""
    node = view.producers.get(square)
    base = None if node is None else view.producers.get(node.inputs[0])
    return base is not None and base.op_type == "Sub"


class _UnabsorbedError(Exception):
    """A factor that nothing takes up."""


@dataclass
class _Wave:
    """The factor of a statistic on its way through the graph, as powers of (size / kept)."""

    view: View
    start: Node
    absorbed: dict[Edge, float] = field(default_factory=dict)
    powers: dict[str, float] = field(default_factory=dict)
    waiting: list[int] = field(default_factory=list)  # a heap of nodes: all inputs come first
    held: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Look up what the body that the statistic lies in gives back."""
        owner = self.view.by_index.get(self.start.owner)
        bodies = () if owner is None else owner.bodies.values()
        self.held = frozenset(v for body in bodies for v in body.outputs) | {*self.view.outputs}

    def dies_out(self) -> bool:
        """Follow the factor; say whether every way ends in constants."""
        try:
            self._reach(self.start.outputs[0], 1.0)
            while self.waiting:
                index = heappop(self.waiting)
                if not self.waiting or self.waiting[0] != index:
                    self._pass(self.view.by_index[index])
        except _UnabsorbedError:
            return False
        return True

    def _reach(self, value: str, power: float) -> None:
        if not value or power == 0.0:
            return
        if value in self.held:
            raise _UnabsorbedError
        self.powers[value] = power
        for edge in self.view.consumers.get(value, ()):
            heappush(self.waiting, edge.node)

    def _pass(self, node: Node) -> None:
        """Hand the factors of a node's inputs on to its outputs."""
        fixed = node.op_type == "Clip" and node.attributes  # bounds of old opsets
        if node.domain or node.owner != self.start.owner or fixed:
            raise _UnabsorbedError
        power = self._given(node)
        for value in node.outputs:
            self._reach(value, power)

    def _given(self, node: Node) -> float:
        kind, powers = node.op_type, [self.powers.get(v, 0.0) for v in node.inputs]
        if kind in _PRODUCTS:
            return self._product(node, powers)
        if kind in _ALIKE:
            slots = _ALIKE[kind] or range(len(powers))
            return self._alike(node, [s for s in slots if node.inputs[s]], max(powers, key=abs))
        if any(powers[1:]):
            raise _UnabsorbedError
        if kind == "Pow":
            return powers[0] * self._exponent(node)
        if kind not in _HANDED_ON or node.attributes.get("to", TensorProto.FLOAT) not in _FLOATS:
            raise _UnabsorbedError
        return powers[0] * _HANDED_ON[kind]

    def _product(self, node: Node, powers: Sequence[float]) -> float:
        """Let a constant factor take up the power, or hand it on with that of the addend."""
        signs = _PRODUCTS[node.op_type]
        power = sum(sign * p for sign, p in zip(signs, powers, strict=False))
        addend = [2] if len(powers) > 2 and node.inputs[2] else []
        for slot, sign in enumerate(signs):
            edge = Edge(node.index, slot)
            if power and not any(powers[2:]) and self._absorbs(node, edge):
                self.absorbed[edge] = -sign * power
                return 0.0
        return self._alike(node, addend, power)

    def _absorbs(self, node: Node, edge: Edge) -> bool:
        """Whether a constant may take up a factor; the one of an inverse is left as it is."""
        if not _precise(self.view, edge):
            return False
        return node.op_type != "Div" or not (self.view.constant(node.inputs[edge.slot]) == 1).all()

    def _alike(self, node: Node, slots: Sequence[int], power: float) -> float:
        """Give constants the power that all addends must have."""
        for slot in slots:
            edge = Edge(node.index, slot)
            if self.powers.get(node.inputs[slot], 0.0) == power:
                continue
            if not _precise(self.view, edge):
                raise _UnabsorbedError
            self.absorbed[edge] = power
        return power

    def _exponent(self, node: Node) -> float:
        value = node.inputs[1]
        if not self.view.is_constant(value) or self.view.constant(value).size != 1:
            raise _UnabsorbedError
        return float(self.view.constant(value).flat[0])


def _precise(view: View, edge: Edge) -> bool:
    """Whether a slot reads a constant in which a factor is not rounded off."""
    value = view.by_index[edge.node].inputs[edge.slot]
    return view.is_constant(value) and view.constant(value).dtype in (np.float32, np.float64)
