"""The masked original: the same model with every exit of chosen axes behind a gate.

A gate is ``Where(keep, x, 0)`` on the edge into the operator that sums the channels up (never a
Mul: 0 * -inf is NaN). Where the operator takes a statistic over the axis, the statistic is taken
over the kept positions. The masks are graph inputs, so that one session serves every cut.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.relations import Axis, Contract
from onnxprune.model.scopes import graphs_of
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Node, View
from onnxprune.runtime.trace import Trace

__all__ = ["Gated", "gate"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gated:
    """A gated model, in the arithmetic of the fp32 clone.

    Attributes
    ----------
    model : ModelProto
        With one bool input per gated axis, and one ratio per axis that a statistic runs over.
    shapes : mapping of Axis to shape
        Of the mask inputs: the axis's size, then ones up to the value's rank.
    ratios : mapping of Axis to dtype
        Axes whose statistic needs (size / kept).
    """

    model: onnx.ModelProto
    shapes: Mapping[Axis, tuple[int, ...]]
    ratios: Mapping[Axis, np.dtype[np.generic]]

    def feeds(self, keeps: Mapping[Axis, Mask]) -> dict[str, NDArray[np.generic]]:
        """Turn keep masks into feeds; axes that are not named stay whole."""
        feeds: dict[str, NDArray[np.generic]] = {}
        for axis, shape in self.shapes.items():
            mask = keeps.get(axis)
            mask = np.ones(shape[0], bool) if mask is None else mask
            feeds[mask_name(axis)] = mask.reshape(shape)
            if axis in self.ratios:
                ratio = len(mask) / max(int(mask.sum()), 1)
                feeds[_ratio_name(axis)] = np.asarray(ratio, self.ratios[axis])
        return feeds


def mask_name(axis: Axis) -> str:
    """Name the mask input of an axis."""
    return f"onnxprune/keep/{axis.value}/{axis.axis}"


def _ratio_name(axis: Axis) -> str:
    return f"onnxprune/ratio/{axis.value}/{axis.axis}"


def gate(view: View, trace: Trace, coupling: Coupling, axes: Iterable[Axis]) -> Gated:
    """Put gates on every exit of the given axes.

    Parameters
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    axes : iterable of Axis
        Axes without an exit are passed over.

    Returns
    -------
    Gated
    """
    builder = _Builder(view, trace)
    for axis in dict.fromkeys(axes):
        for node, contract in coupling.contracts.get(axis, ()):
            builder.close(view.by_index[node], contract)
    return builder.build()


class _Builder:
    """Collects what is put before, after and in place of nodes, then writes it out."""

    def __init__(self, view: View, trace: Trace) -> None:
        self.view, self.trace = view, trace
        self.inputs: dict[tuple[int, int], str] = {}
        self.before: dict[int, list[onnx.NodeProto]] = {}
        self.after: dict[int, list[onnx.NodeProto]] = {}
        self.renamed: dict[int, str] = {}
        self.replaced: set[int] = set()
        self.shapes: dict[Axis, tuple[int, ...]] = {}
        self.ratios: dict[Axis, np.dtype[np.generic]] = {}
        self.zeros: dict[str, onnx.TensorProto] = {}

    def close(self, node: Node, contract: Contract) -> None:
        axis = contract.axis
        shape = self.trace.shapes[axis.value]
        size = shape[axis.axis]
        self.shapes[axis] = (size, *([1] * (len(shape) - 1 - axis.axis)))
        if contract.how == "norm":
            self._masked_norm(node, axis)
            return
        source = self.inputs.get((node.index, contract.slot), node.proto.input[contract.slot])
        target = f"onnxprune/gate/{node.index}.{contract.slot}.{axis.axis}"
        self._where(node.index, axis, source, target, self._nothing(node, contract))
        self.inputs[node.index, contract.slot] = target
        if contract.how == "mean":
            self._scale_mean(node, axis)

    def _nothing(self, node: Node, contract: Contract) -> str:
        """Name the zero point of a quantized operand, "" where zero is 0."""
        slot = contract.zero
        if slot is None or slot >= len(node.inputs) or not node.inputs[slot]:
            return ""
        value = node.inputs[slot]
        if not self.view.is_constant(value) or self.view.constant(value).size == 1:
            return str(node.proto.input[slot])
        name = f"onnxprune/zero/{value}"  # one per direction of a recurrent weight, or column
        rows = self.trace.shapes[contract.axis.value][0]
        array = self.view.constant(value).reshape(rows, 1, -1)
        self.zeros[name] = numpy_helper.from_array(array, name)
        return name

    def _where(self, index: int, axis: Axis, source: str, target: str, zero: str = "") -> None:
        zero = zero or self._zero(self.trace.dtypes[axis.value])
        self._add(self.before, index, "Where", [mask_name(axis), source, zero], target)

    def _scale_mean(self, node: Node, axis: Axis) -> None:
        """ReduceMean divides by the whole size: multiply by size / kept behind it."""
        self.ratios[axis] = self.trace.dtypes[axis.value]
        output = node.proto.output[0]
        raw = self.renamed.get(node.index, output)
        inner = f"{raw}/onnxprune/mean.{axis.axis}"
        self.renamed[node.index] = inner
        chain = self.after.setdefault(node.index, [])
        chain.insert(0, helper.make_node("Mul", [inner, _ratio_name(axis)], [raw]))

    def _masked_norm(self, node: Node, axis: Axis) -> None:
        """Write LayerNormalization out, with mean and variance over the kept positions."""
        self.ratios[axis] = self.trace.dtypes[axis.value]
        self.replaced.add(node.index)
        at, ratio = node.index, _ratio_name(axis)
        name = f"onnxprune/norm/{at}/"
        add = self._add
        epsilon = float(node.attributes.get("epsilon", 1e-5))  # type: ignore[arg-type]
        dtype = self.trace.dtypes[axis.value]
        self.zeros[name + "eps"] = numpy_helper.from_array(np.asarray(epsilon, dtype), name + "eps")
        x = node.proto.input[0]
        self._where(at, axis, x, name + "x")
        self._mean(at, name + "x", name + "m0")
        add(self.before, at, "Mul", [name + "m0", ratio], name + "m")
        add(self.before, at, "Sub", [x, name + "m"], name + "d0")
        self._where(at, axis, name + "d0", name + "d")
        add(self.before, at, "Mul", [name + "d", name + "d"], name + "d2")
        self._mean(at, name + "d2", name + "v0")
        add(self.before, at, "Mul", [name + "v0", ratio], name + "v")
        add(self.before, at, "Add", [name + "v", name + "eps"], name + "ve")
        add(self.before, at, "Sqrt", [name + "ve"], name + "s")
        add(self.before, at, "Div", [name + "d", name + "s"], name + "n")
        last = name + "n"
        for operation, vector in zip(("Mul", "Add"), node.proto.input[1:], strict=False):
            if vector:
                add(self.before, at, operation, [last, vector], name + operation)
                last = name + operation
        add(self.before, at, "Identity", [last], node.proto.output[0])

    def _mean(self, index: int, source: str, target: str) -> None:
        if self.view.opset < 18:
            proto = helper.make_node("ReduceMean", [source], [target], axes=[-1])
            self.before.setdefault(index, []).append(proto)
            return
        axes = "onnxprune/last"
        self.zeros[axes] = numpy_helper.from_array(np.array([-1]), axes)
        self._add(self.before, index, "ReduceMean", [source, axes], target)

    def _add(
        self,
        where: dict[int, list[onnx.NodeProto]],
        index: int,
        op: str,
        inputs: list[str],
        out: str,
    ) -> None:
        where.setdefault(index, []).append(helper.make_node(op, inputs, [out]))

    def _zero(self, dtype: np.dtype[np.generic]) -> str:
        name = f"onnxprune/zero/{dtype.name}"
        self.zeros[name] = numpy_helper.from_array(np.zeros((), dtype), name)
        return name

    def build(self) -> Gated:
        model = onnx.ModelProto()
        model.CopyFrom(self.view.model)
        graphs = list(graphs_of(model.graph))
        end = sum(len(graph.node) for graph in graphs)
        for graph in reversed(graphs):  # bodies before what holds them
            end -= len(graph.node)
            self._rewrite(graph, end)
        model.graph.initializer.extend(self.zeros.values())
        for axis, shape in self.shapes.items():
            model.graph.input.append(
                helper.make_tensor_value_info(mask_name(axis), TensorProto.BOOL, shape)
            )
        for axis, dtype in self.ratios.items():
            kind = helper.np_dtype_to_tensor_dtype(dtype)
            model.graph.input.append(helper.make_tensor_value_info(_ratio_name(axis), kind, ()))
        return Gated(upcast(model), self.shapes, self.ratios)

    def _rewrite(self, graph: onnx.GraphProto, first: int) -> None:
        """Put in what was collected for the nodes of one graph; bodies capture masks and zeros."""
        nodes = list(graph.node)
        del graph.node[:], graph.value_info[:]
        for index, node in enumerate(nodes, first):
            graph.node.extend(self.before.get(index, ()))
            if index not in self.replaced:
                for (at, slot), value in self.inputs.items():
                    if at == index:
                        node.input[slot] = value
                if index in self.renamed:
                    node.output[0] = self.renamed[index]
                graph.node.append(node)
            graph.node.extend(self.after.get(index, ()))
