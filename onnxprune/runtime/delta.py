"""First readers take off what they got from the lost channels instead of being run again.

An operator that sums over gated channels and reads nothing else that the gates have changed gives
``y - f(lost channels)``: its whole result is cached, and one channel of hundreds is little work.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxprune.coupling.keeps import Mask
from onnxprune.coupling.relations import Axis
from onnxprune.model.scopes import values_read
from onnxprune.runtime.gates import Gated, mask_name

__all__ = ["KNOWN", "Delta", "Few", "Shapes", "shortened"]

KNOWN = "onnxprune/known/"  # how the names of what the original gives begin
_CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 0}  # the weight's axis of what is summed over
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Few:
    """A change that is the product of two matrices of few dimensions.

    Attributes
    ----------
    lost : str
        Value, shape (..., lost channels).
    taken : str
        Value, shape (lost channels, features).
    less : str
        Their product.
    """

    lost: str
    taken: str
    less: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A gated model whose first readers only see what is lost.

    Attributes
    ----------
    gated : Gated
    known : mapping of input name to value name
        What the first readers give in the original, fed back.
    few : mapping of value name to Few
        How results of linear layers differ from the original's.
    carried : bool
        Whether linear layers behind a normalization take off what is lost, too.
    """

    gated: Gated
    known: Mapping[str, str]
    few: Mapping[str, Few]
    _lost: Mapping[Axis, str]
    carried: bool = False

    def feeds(self, keeps: Mapping[Axis, Mask]) -> dict[str, NDArray[np.generic]]:
        """Turn keep masks, of which each loses something, into feeds."""
        lost = {name: np.flatnonzero(~keeps[axis]) for axis, name in self._lost.items()}
        return {**self.gated.feeds(keeps), **lost}


def shortened(gated: Gated, shapes: Shapes) -> Delta:
    """Let convolutions and linear layers right behind the gates take off what is lost.

    Parameters
    ----------
    gated : Gated
    shapes : mapping of value name to shape

    Returns
    -------
    Delta
        The gated model as it is where no reader can do so.
    """
    masks = {mask_name(axis): axis for axis in gated.values}
    model = onnx.ModelProto()
    model.CopyFrom(gated.model)
    changed = set(gated.feeds({}))
    gates: dict[str, onnx.NodeProto] = {}
    known: dict[str, str] = {}
    few: dict[str, Few] = {}
    lost: dict[Axis, str] = {}
    nodes = []
    for node in gated.model.graph.node:
        reached = [n for n in values_read(node) if n in changed]
        if reached:
            changed.update(node.output)
        if node.op_type == "Where" and reached == [node.input[0]] and node.input[0] in masks:
            gates[node.output[0]] = node
        gate = gates.get(reached[0]) if len(reached) == 1 else None
        axis = masks[gate.input[0]] if gate is not None else None
        axes = _summed(node, reached[0], axis, shapes) if axis is not None else None
        if gate is None or axis is None or axes is None:
            nodes.append(node)
            continue
        lost[axis] = name = f"onnxprune/lost/{axis.value}/{axis.axis}"
        given = [gate.input[1] if value == reached[0] else value for value in node.input]
        nodes.extend(_taken_off(node, given[:2], axes, name))
        if node.op_type == "MatMul" and axes[1] == -2 and len(shapes.get(node.input[1], ())) == 2:
            few[node.output[0]] = _few(node.output[0])
        known[KNOWN + node.output[0]] = node.output[0]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name in dict.fromkeys(lost.values()):
        kind = onnx.TensorProto.INT64
        model.graph.input.append(helper.make_tensor_value_info(name, kind, [None]))
    return Delta(replace(gated, model=model), known, few, lost)


def _summed(node: onnx.NodeProto, gated: str, axis: Axis, shapes: Shapes) -> tuple[int, int] | None:
    """Return the axes of the first two inputs that a node sums over, if these are the gated."""
    if node.domain or axis.by >= 0 or gated not in node.input[:2] or len(node.output) != 1:
        return None
    slot = list(node.input).index(gated)
    rank = len(shapes[axis.value])
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    match node.op_type:
        case "Conv" | "ConvTranspose" if attributes.get("group", 1) == 1 and slot == 0:
            axes = (1, _CONVOLUTIONS[node.op_type])
        case "Gemm":
            axes = (0 if attributes.get("transA") else 1, 1 if attributes.get("transB") else 0)
        case "MatMul" if len(shapes.get(node.input[1 - slot], (0, 0))) >= 2:
            axes = (rank - 1, -2) if slot == 0 else (-1, rank - 2)
        case _:
            return None
    return axes if axes[slot] == axis.axis else None


def _taken_off(
    node: onnx.NodeProto, given: list[str], axes: tuple[int, int], lost: str
) -> list[onnx.NodeProto]:
    """Return what computes a node's result from the original's and the lost channels."""
    output = node.output[0]
    part = _parts(output)
    nodes = [
        helper.make_node("Gather", [value, lost], [name], axis=axis)
        for value, name, axis in zip(given, part, axes, strict=True)
    ]
    whole, less = KNOWN + output, _few(output)
    small = onnx.NodeProto()
    small.CopyFrom(node)
    del small.input[:], small.output[:]
    if node.op_type == "Gemm":
        alpha = {a.name: a.f for a in node.attribute}.get("alpha", 1.0)
        kept = [a for a in small.attribute if a.name not in {"alpha", "beta"}]
        del small.attribute[:]
        small.attribute.extend([*kept, helper.make_attribute("alpha", -alpha)])
        small.input.extend([*part, whole])
        small.output.append(output)
        return [*nodes, small]
    small.input.extend([less.lost, less.taken])
    small.output.append(less.less)
    return [
        *nodes,
        helper.make_node("Neg", [part[1]], [less.taken]),
        small,
        helper.make_node("Add", [whole, less.less], [output]),
    ]


def _parts(output: str) -> list[str]:
    return [f"onnxprune/part/{output}/{slot}" for slot in range(2)]


def _few(output: str) -> Few:
    name = f"onnxprune/less/{output}"
    return Few(_parts(output)[0], name + "/minus", name)
