"""What positions hold whatever the input: proven from the weights alone.

A filter of zeros gives its bias everywhere; a BatchNormalization with gamma 0 gives beta; an
element-wise operator makes a constant of constants. Followed through the graph, this shows
channels that no input can wake.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group, Member
from onnxprune.coupling.relations import Axis
from onnxprune.layers.sites import affine_of
from onnxprune.lossless.ranges import Constants
from onnxprune.model.view import Node, View
from onnxprune.model.weights import weight_of
from onnxprune.runtime.single import single
from onnxprune.runtime.trace import Trace

__all__ = ["pads_nothing", "proven_constants"]

Array = NDArray[np.float64]
_Fact = tuple[int, Array]  # axis, and what each of its positions holds
_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "MaxPool")
_MOVES = ("Concat", "Flatten", "Reshape", "Split", "Squeeze", "Transpose", "Unsqueeze")
_ELEMENTWISE = (
    *("Abs", "Add", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Max", "Min", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu"),
    *("Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"),
)


def proven_constants(view: View, trace: Trace, groups: Sequence[Group]) -> Constants:
    """Find the positions that hold the same number for every input.

    Parameters
    ----------
    view : View
    trace : Trace
    groups : sequence of Group
        Their members say where movement operators bring channels.

    Returns
    -------
    Constants
        Of activations' axes where anything is known.
    """
    prover = _Prover(view, trace, groups)
    for node in view.nodes:
        if node.owner < 0 and node.outputs and not node.domain:
            prover.visit(node)
    return {Axis(value, axis): array for value, (axis, array) in prover.facts.items()}


def pads_nothing(node: Node) -> bool:
    """Whether a convolution or pool looks at what is there only, no border of zeros around it."""
    pads = node.attributes.get("pads", ())
    return node.attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and not (
        isinstance(pads, list) and any(pads)
    )


class _Prover:
    def __init__(self, view: View, trace: Trace, groups: Sequence[Group]) -> None:
        self.view, self.trace = view, trace
        self.facts: dict[str, _Fact] = {}
        self.members: dict[str, list[tuple[Group, Member]]] = defaultdict(list)
        for group in groups:
            for member in group.members:
                if member.axis.by < 0:
                    self.members[member.axis.value].append((group, member))

    def visit(self, node: Node) -> None:
        fact = None
        if node.op_type in ("Conv", "ConvTranspose"):
            fact = self.convolution(node)
        elif node.op_type in ("Gemm", "MatMul"):
            fact = self.linear(node)
        elif node.op_type == "BatchNormalization":
            fact = self.norm(node)
        elif node.op_type in _POOLS or (node.op_type == "AveragePool" and pads_nothing(node)):
            fact = self.facts.get(node.inputs[0])
        elif node.op_type in _ELEMENTWISE:
            fact = self.elementwise(node)
        elif node.op_type in _MOVES:
            for output in node.outputs:
                self.keep(output, self.moved(node, output))
        self.keep(node.outputs[0], fact)

    def keep(self, value: str, fact: _Fact | None) -> None:
        shape = self.trace.shapes.get(value)
        if fact is None or shape is None or shape[fact[0]] != len(fact[1]):
            return
        if not np.isnan(fact[1]).all():
            self.facts[value] = fact

    def inputs(self, node: Node, axis: int, size: int) -> Array:
        """Return what is known of an operator's first input, NaN everywhere if nothing is."""
        known, found = self.facts.get(node.inputs[0], (axis, np.full(size, np.nan)))
        return found if known == axis and len(found) == size else np.full(size, np.nan)

    def convolution(self, node: Node) -> _Fact | None:
        weight = weight_of(self.view, node.inputs[1])
        bias = self.vector(node, 2)
        if weight is None or bias is None or weight.ndim < 3:
            return None
        groups = node.attributes.get("group", 1)
        assert isinstance(groups, int)
        taps = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
        if node.op_type == "ConvTranspose":  # how many taps meet differs from place to place
            taps = taps.reshape(groups, -1, *taps.shape[1:]).swapaxes(1, 2)
            read = np.asarray(taps.any(axis=(2, 3))).reshape(-1)
            return 1, np.where(read, np.nan, bias)
        known = self.inputs(node, 1, taps.shape[1] * groups).reshape(groups, -1)
        known = np.repeat(known, len(taps) // groups, axis=0)
        if not pads_nothing(node):
            known = np.where(known == 0, known, np.nan)
        used = taps.any(axis=2)
        return 1, bias + np.where(used, known * taps.sum(axis=2), 0.0).sum(axis=1)

    def linear(self, node: Node) -> _Fact | None:
        weight = weight_of(self.view, node.inputs[1])
        shape = self.trace.shapes.get(node.outputs[0], ())
        if weight is None or weight.ndim != 2 or not shape or node.attributes.get("transA"):
            return None
        matrix = weight.astype(np.float64)
        scale, bias = 1.0, np.zeros(1)
        if node.op_type == "Gemm":
            matrix = matrix.T if node.attributes.get("transB") else matrix
            given = self.vector(node, 2)
            if given is None:
                return None
            alpha, beta = (node.attributes.get(n, 1.0) for n in ("alpha", "beta"))
            assert isinstance(alpha, float)
            assert isinstance(beta, float)
            scale, bias = alpha, beta * given
        known = self.inputs(node, len(self.trace.shapes[node.inputs[0]]) - 1, len(matrix))
        summed = np.where(matrix != 0, known[:, None] * matrix, 0.0).sum(axis=0)
        return len(shape) - 1, np.asarray(scale * summed + bias)

    def vector(self, node: Node, slot: int) -> Array | None:
        """Return a constant vector, zero where none is given; None where it is computed."""
        if slot >= len(node.inputs) or not node.inputs[slot]:
            return np.zeros(1)
        found = weight_of(self.view, node.inputs[slot])
        if found is None or found.size != max(found.shape, default=1):
            return None
        return found.reshape(-1).astype(np.float64)

    def norm(self, node: Node) -> _Fact | None:
        if node.attributes.get("training_mode") or not all(
            self.view.is_constant(v) for v in node.inputs[1:5]
        ):
            return None
        scale, shift = affine_of(self.view, node)
        known = self.inputs(node, 1, len(scale))
        return 1, np.where(scale == 0, shift, scale * known + shift)

    def elementwise(self, node: Node) -> _Fact | None:
        """Run an operator on what is known; its result is known where all that enters is."""
        shape = self.trace.shapes.get(node.outputs[0], ())
        axis = self.axis_of(node)
        if axis is None or len(shape) < -axis:
            return None
        size = shape[axis]
        parts = {v: self.column(v, axis, size) for v in dict.fromkeys(node.inputs) if v}
        known = np.all([~np.isnan(part) for part in parts.values()], axis=0)
        zero = np.any([part == 0 for part in parts.values()], axis=0)
        result = np.full(size, np.nan)
        if node.op_type == "Mul":
            result[zero] = 0.0  # whatever the other factor is, as long as it is finite
        if known.any():
            result[known] = self.evaluated(node, parts)[known]
        return len(shape) + axis, result

    def axis_of(self, node: Node) -> int | None:
        """Return the axis, from the back, that an input is known on or a factor's zeros lie on."""
        for value in node.inputs:
            if value in self.facts:
                return self.facts[value][0] - len(self.trace.shapes[value])
        for value in node.inputs if node.op_type == "Mul" else ():
            if self.view.is_constant(value):
                shape = self.view.constant(value).shape
                wide = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
                if len(wide) == 1:
                    return wide[0]
        return None

    def column(self, value: str, axis: int, size: int) -> Array:
        """Return what an input holds at each position of an axis, counted from the back."""
        if value in self.facts:
            known, array = self.facts[value]
            same = known - len(self.trace.shapes[value]) == axis and len(array) == size
            return array if same else np.full(size, np.nan)
        if not self.view.is_constant(value):
            return np.full(size, np.nan)
        constant = self.view.constant(value)
        if constant.dtype.kind not in "fiu":
            return np.full(size, np.nan)
        wide = constant.ndim >= -axis and constant.shape[axis] == size
        if constant.size == (size if wide else 1):
            return np.broadcast_to(constant.astype(np.float64).reshape(-1), size)
        return np.full(size, np.nan)

    def evaluated(self, node: Node, parts: Mapping[str, Array]) -> Array:
        """Run an operator on vectors; settings (bounds, ratios) as they are in the file."""
        feeds = {
            v: self.view.constant(v).reshape(())
            if self.view.is_constant(v) and self.view.constant(v).size == 1
            else np.nan_to_num(part, nan=1.0).astype(np.float32)
            for v, part in parts.items()
        }
        renamed = dict(zip(node.inputs, node.proto.input, strict=True))
        try:
            run = single(node.proto, self.view.opset)
            result: Any = run.run(None, {renamed[v]: a for v, a in feeds.items()})
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            return np.full(len(next(iter(parts.values()))), np.nan)
        return np.asarray(result[0], np.float64)

    def moved(self, node: Node, output: str) -> _Fact | None:
        """Bring constants of whole channels to where their group says that they are moved."""
        rank = len(self.trace.shapes.get(output, ()))
        found: dict[int, Array] = {}
        for group, member in self.members.get(output, ()):
            for source in (m for g, m in self.members_of(node) if g is group):
                fact = self.facts.get(source.axis.value)
                if fact is None or fact[0] != source.axis.axis or member.axis.axis >= rank:
                    continue
                size = self.trace.shapes[output][member.axis.axis]
                array = found.setdefault(member.axis.axis, np.full(size, np.nan))
                held = fact[1][source.positions]
                same = (held == held[:, :1]).all(axis=1)
                array[member.positions[same]] = held[same][:, :1]
        return next(iter(found.items())) if found else None

    def members_of(self, node: Node) -> list[tuple[Group, Member]]:
        return [pair for value in node.inputs for pair in self.members.get(value, ())]
