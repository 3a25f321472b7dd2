"""Where weights can be refitted: convolutions and linear layers, with what their output feeds."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.collect import Collected
from onnxprune.model.view import Edge, Node, View
from onnxprune.model.weights import is_weight, weight_of
from onnxprune.runtime.trace import Trace

__all__ = ["Site", "find_sites"]


@dataclass(frozen=True, slots=True)
class Site:
    """One operator whose weight and bias are solved for.

    Attributes
    ----------
    node : Node
    source : str
        The value it reads.
    weight : Edge
        Slot of its constant weight.
    bias : Edge, optional
        Slot that holds, or may be given, its bias; None for a MatMul without an Add behind.
    output : str
        The value with the bias in: what the teacher's target is taken from.
    norm : Node, optional
        BatchNormalization behind the output.
    total : str, optional
        The sum that the output goes into, where it meets a skip.
    skip : str, optional
        The other addend of ``total``.
    gate : (float, float), optional
        Bounds outside of which the activation behind (and behind ``norm``) is constant.
    """

    node: Node
    source: str
    weight: Edge
    bias: Edge | None
    output: str
    norm: Node | None = None
    total: str | None = None
    skip: str | None = None
    gate: tuple[float, float] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The values that its inputs and goals follow from."""
        return (self.source, self.skip) if self.skip else (self.source,)

    @property
    def heard(self) -> str:
        """The value that shows what the output matters: behind its normalization or its sum."""
        return self.total or (self.norm.outputs[0] if self.norm is not None else self.output)

    def weight_in(self, view: View) -> NDArray[np.generic]:
        """Return the constant weight as the original has it, decoded where it is quantized."""
        weight = weight_of(view, self.node.inputs[self.weight.slot])
        assert weight is not None
        return weight


def find_sites(view: View, trace: Trace, collected: Collected) -> Iterator[Site]:
    """Yield the operators that can be refitted, in the order of the graph.

    What bodies compute no run can show, so their layers are left as they are.
    """
    for node in view.nodes:
        site = None
        if node.owner < 0 and node.op_type in _SITES and is_weight(view, node.inputs[1]):
            site = _SITES[node.op_type](view, trace, node)
        if site is not None:
            yield _joined(view, trace, collected, site)


def _conv(view: View, trace: Trace, node: Node) -> Site:
    return Site(node, node.inputs[0], Edge(node.index, 1), Edge(node.index, 2), node.outputs[0])


def _gemm(view: View, trace: Trace, node: Node) -> Site | None:
    if node.attributes.get("transA") or node.attributes.get("alpha", 1.0) != 1.0:
        return None
    return _conv(view, trace, node) if node.attributes.get("beta", 1.0) == 1.0 else None


def _matmul(view: View, trace: Trace, node: Node) -> Site | None:
    """A MatMul's bias is the constant vector of the Add behind it."""
    if len(trace.shapes[node.inputs[1]]) != 2 or len(trace.shapes[node.inputs[0]]) < 2:
        return None
    weight = Edge(node.index, 1)
    after = _only_reader(view, node.outputs[0])
    if after is not None and after.op_type == "Add":
        for slot, value in enumerate(after.inputs):
            wide = trace.shapes[node.outputs[0]][-1]
            shape = trace.shapes[value]
            if view.is_constant(value) and shape and shape[-1] == np.prod(shape) == wide:
                bias = Edge(after.index, slot)
                return Site(node, node.inputs[0], weight, bias, after.outputs[0])
    return Site(node, node.inputs[0], weight, None, node.outputs[0])


def _transposed(view: View, trace: Trace, node: Node) -> Site | None:
    """A ConvTranspose whose padding is written out: what else sets it is left alone."""
    given = node.attributes
    if given.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in given:
        return None
    return _conv(view, trace, node)


_SITES = {"Conv": _conv, "ConvTranspose": _transposed, "Gemm": _gemm, "MatMul": _matmul}


def _joined(view: View, trace: Trace, collected: Collected, site: Site) -> Site:
    """Follow the output through BatchNormalization into a sum with a skip, or an activation."""
    value = site.output
    after = _only_reader(view, value)
    if after is not None and after.op_type == "BatchNormalization":
        if any(view.fixed(v) is None for v in after.inputs[1:5]):
            return site
        site, value = replace(site, norm=after), after.outputs[0]
        after = _only_reader(view, value)
    if after is None:
        return site
    if after.op_type != "Add":
        return replace(site, gate=_gate(view, after))
    other = after.inputs[1] if after.inputs[0] == value else after.inputs[0]
    same = trace.shapes.get(other) == trace.shapes.get(value)
    if other in collected.constants or other == value or not same or view.depends(other, value):
        return site
    return replace(site, total=after.outputs[0], skip=other)


def _gate(view: View, node: Node) -> tuple[float, float] | None:
    """Return the bounds between which a clipping activation lets its input through."""
    if node.op_type == "Relu":
        return 0.0, float("inf")
    if node.op_type != "Clip":
        return None
    given = [node.attributes.get("min"), node.attributes.get("max")]
    for slot, value in enumerate(node.inputs[1:3]):
        if value and not view.is_constant(value):
            return None
        given[slot] = float(view.constant(value)) if value else None
    low, high = given
    return (
        float(low) if isinstance(low, float) else -float("inf"),
        float(high) if isinstance(high, float) else float("inf"),
    )


def _only_reader(view: View, value: str) -> Node | None:
    edges = view.consumers.get(value, ())
    return view.by_index[edges[0].node] if len(edges) == 1 and value not in view.outputs else None


def affine_of(view: View, norm: Node) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return scale and shift of a BatchNormalization, per channel."""
    found = [view.fixed(v) for v in norm.inputs[1:5]]
    gamma, beta, mean, variance = (a.astype(np.float64) for a in found if a is not None)
    epsilon = norm.attributes.get("epsilon", 1e-5)
    assert isinstance(epsilon, float)
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale
