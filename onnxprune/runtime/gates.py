"""The masked original: the same model with every exit of chosen axes behind a gate.

A gate is ``Where(keep, x, 0)`` on the edge into the operator that sums the channels up (never a
Mul: 0 * -inf is NaN). Where the operator takes a statistic over the axis, the statistic is taken
over the kept positions. The masks are graph inputs, so that one session serves every cut.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.keeps import per_block
from onnxprune.coupling.relations import Axis, Contract
from onnxprune.model.scopes import graphs_of
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Node, View
from onnxprune.runtime.trace import Trace

__all__ = ["NORM", "Gated", "gate"]

NORM = "onnxprune/norm/"  # of the values that stand around a masked normalization

Mask = NDArray[np.bool_]
_Chains: TypeAlias = dict[int, list[onnx.NodeProto]]
# Slot of the scale by normalization, and of the bias that goes into the sum before it.
_SCALE = {
    "EmbedLayerNormalization": 5,
    "InstanceNormalization": 1,
    "LayerNormalization": 1,
    "RMSNormalization": 1,
    "SimplifiedLayerNormalization": 1,
    "SkipLayerNormalization": 2,
    "SkipSimplifiedLayerNormalization": 2,
}
_SUMMED = {"SkipLayerNormalization": 4, "SkipSimplifiedLayerNormalization": 3}


@dataclass(frozen=True, slots=True)
class Gated:
    """A gated model, in the arithmetic of the fp32 clone.

    Attributes
    ----------
    model : ModelProto
        With one bool input per gated axis, and one ratio per axis that a statistic runs over.
    values : mapping of Axis to shape
        Of the value that each gated axis belongs to.
    sizes : mapping of Axis to int
        Positions of each gated axis.
    ratios : mapping of Axis to dtype
        Axes whose statistic needs (size / kept).
    groups : mapping of Axis to int
        Axes with a statistic for each of so many equal runs.
    """

    model: onnx.ModelProto
    values: Mapping[Axis, tuple[int, ...]]
    sizes: Mapping[Axis, int]
    ratios: Mapping[Axis, np.dtype[np.generic]]
    groups: Mapping[Axis, int]

    def feeds(self, keeps: Mapping[Axis, Mask]) -> dict[str, NDArray[np.generic]]:
        """Turn keep masks into feeds; axes that are not named stay whole."""
        feeds: dict[str, NDArray[np.generic]] = {}
        for axis, shape in self.values.items():
            mask = keeps.get(axis)
            mask = np.ones(self.sizes[axis], bool) if mask is None else mask
            full = per_block(axis, mask, shape)
            feeds[mask_name(axis)] = full.reshape(full.shape[_first(axis) :])
            if axis in self.ratios:
                feeds[_ratio_name(axis)] = self._ratio(axis, mask, full)
            if axis in self.groups:
                kept = np.maximum(mask.reshape(self.groups[axis], -1).sum(axis=1), 1)
                ratio = len(mask) / self.groups[axis] / kept
                feeds[_groups_name(axis)] = ratio.astype(self.ratios[axis])[:, None]
        return feeds

    def _ratio(self, axis: Axis, mask: Mask, full: Mask) -> NDArray[np.generic]:
        """Return size / kept, of each block where there are several."""
        dtype = self.ratios[axis]
        if axis.by < 0:
            return np.asarray(len(mask) / max(int(mask.sum()), 1), dtype)
        kept = np.maximum(full.sum(axis=axis.axis, keepdims=True), 1)
        ratio = full.shape[axis.axis] / kept
        return np.asarray(ratio.reshape(ratio.shape[_first(axis) :]), dtype)


def mask_name(axis: Axis) -> str:
    """Name the mask input of an axis."""
    return f"onnxprune/keep/{axis.value}/{axis.axis}" + (f"/{axis.by}" if axis.by >= 0 else "")


def _first(axis: Axis) -> int:
    """Number the first axis of a value that a mask says something of."""
    return axis.axis if axis.by < 0 else min(axis.axis, axis.by)


def _ratio_name(axis: Axis) -> str:
    return f"onnxprune/ratio/{axis.value}/{axis.axis}"


def _groups_name(axis: Axis) -> str:
    return f"{_ratio_name(axis)}/groups"


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
    return builder.build(coupling.collected.sizes)


class _Builder:
    """Collects what is put before, after and in place of nodes, then writes it out."""

    def __init__(self, view: View, trace: Trace) -> None:
        self.view, self.trace = view, trace
        self.inputs: dict[tuple[int, int], str] = {}
        self.before: _Chains = {}
        self.after: _Chains = {}
        self.renamed: dict[tuple[int, int], str] = {}
        self.values: dict[Axis, tuple[int, ...]] = {}
        self.ratios: dict[Axis, np.dtype[np.generic]] = {}
        self.groups: dict[Axis, int] = {}
        self.zeros: dict[str, onnx.TensorProto] = {}

    def close(self, node: Node, contract: Contract) -> None:
        axis = contract.axis
        self.values[axis] = self.trace.shapes[axis.value]
        if contract.groups:
            self._masked_groups(node, contract)
            return
        if contract.how in ("norm", "rms"):
            self._masked_norm(node, contract)
            return
        source = self.inputs.get((node.index, contract.slot), node.proto.input[contract.slot])
        target = f"onnxprune/gate/{node.index}.{contract.slot}.{axis.axis}"
        zero = self._nothing(node, contract)
        self._where(self.before, node.index, axis, source, target, zero)
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

    def _where(
        self, chain: _Chains, index: int, axis: Axis, source: str, target: str, zero: str = ""
    ) -> None:
        zero = zero or self._zero(self.trace.dtypes[axis.value])
        self._add(chain, index, "Where", [mask_name(axis), source, zero], target)

    def _scale_mean(self, node: Node, axis: Axis) -> None:
        """ReduceMean divides by the whole size: multiply by size / kept behind it."""
        self.ratios[axis] = self.trace.dtypes[axis.value]
        output = node.proto.output[0]
        raw = self.renamed.get((node.index, 0), output)
        inner = f"{raw}/onnxprune/mean.{axis.axis}"
        self.renamed[node.index, 0] = inner
        chain = self.after.setdefault(node.index, [])
        ratio = _ratio_name(axis)
        chain.insert(
            0, helper.make_node("Mul", [inner, ratio if axis.by < 0 else inner + "/r"], [raw])
        )
        if axis.by >= 0:  # all blocks keep as many
            chain.insert(0, helper.make_node("ReduceMax", [ratio], [inner + "/r"], keepdims=0))

    def _masked_norm(self, node: Node, contract: Contract) -> None:
        """Let a normalization see what stays only, with the statistics of that alone.

        With r = size / kept: what stays is stretched by sqrt(r) about the kept mean, what goes
        becomes the mean (zero for RMS norms), so that the operator's own statistics over the whole
        axis are those of what stays; the scale is divided by sqrt(r) in return.
        """
        axis, at = contract.axis, node.index
        self.ratios[axis] = self.trace.dtypes[axis.value]
        name = f"{NORM}{at}/"
        slot = _SCALE[node.op_type]
        scale, root, ratio = node.proto.input[slot], name + "root", _ratio_name(axis)
        looked_up = node.op_type == "EmbedLayerNormalization"
        chain = self.after if looked_up else self.before
        x = self._looked_up(node, name) if looked_up else self._norm_input(node, name)
        self._add(chain, at, "Sqrt", [ratio], root)
        deviation = x
        if contract.how == "norm":
            deviation = name + "d"
            self._where(chain, at, axis, x, name + "x")
            rank = len(self.trace.shapes[axis.value])
            axes = range(2, rank) if node.op_type == "InstanceNormalization" else (-1,)
            self._mean(chain, at, name + "x", name + "m0", list(axes))
            self._add(chain, at, "Mul", [name + "m0", ratio], name + "m")
            self._add(chain, at, "Sub", [x, name + "m"], deviation)
        self._where(chain, at, axis, deviation, name + "kept")
        self._add(chain, at, "Mul", [name + "kept", root], name + "stretched")
        given = name + "stretched"
        if contract.how == "norm":
            given = name + "centred"
            self._add(chain, at, "Add", [name + "stretched", name + "m"], given)
        if axis.by >= 0:  # one per block, as the scale has
            self.zeros[name + "flat"] = numpy_helper.from_array(np.array([-1]), name + "flat")
            self._add(chain, at, "Reshape", [root, name + "flat"], name + "roots")
            root = name + "roots"
        self._add(chain, at, "Div", [scale, root], name + "scale")
        if looked_up:
            norm = [given, name + "scale", node.proto.input[slot + 1]]
            epsilon = float(node.attributes.get("epsilon", 1e-12))  # type: ignore[arg-type]
            proto = helper.make_node("LayerNormalization", norm, [node.proto.output[0]])
            proto.attribute.append(helper.make_attribute("epsilon", epsilon))
            chain[at].append(proto)
            return
        self.inputs[at, 0], self.inputs[at, slot] = given, name + "scale"

    def _masked_groups(self, node: Node, contract: Contract) -> None:
        """Do the same to a normalization over groups: each has a mean and a ratio of its own."""
        axis, at, count = contract.axis, node.index, contract.groups
        self.ratios[axis], self.groups[axis] = self.trace.dtypes[axis.value], count
        name, (x, scale) = f"{NORM}{at}/", node.proto.input[:2]
        size = self.trace.shapes[axis.value][1]
        flat, root = self._numbers(0, count, -1), name + "root"

        def add(op: str, inputs: list[str], out: str) -> str:
            self._add(self.before, at, op, inputs, name + out)
            return name + out

        shape = add("Shape", [x], "shape")
        add("Sqrt", [_groups_name(axis)], "root")
        self._where(self.before, at, axis, x, name + "x")
        self._mean(self.before, at, add("Reshape", [name + "x", flat], "xf"), name + "m0", [2])
        mean = add("Mul", [name + "m0", _groups_name(axis)], "m")
        deviation = add("Sub", [add("Reshape", [x, flat], "f"), mean], "df")
        self._where(self.before, at, axis, add("Reshape", [deviation, shape], "d"), name + "kept")
        kept = add("Reshape", [name + "kept", flat], "kf")
        centred = add("Add", [add("Mul", [kept, root], "stretched"), mean], "cf")
        self.inputs[at, 0] = add("Reshape", [centred, shape], "centred")
        if self.trace.shapes[node.inputs[1]][0] == size:
            root = add("Expand", [root, self._numbers(count, size // count)], "rows")
        self.inputs[at, 1] = add(
            "Div", [scale, add("Reshape", [root, self._numbers(-1)], "roots")], "scale"
        )

    def _numbers(self, *values: int) -> str:
        """Name a constant list of numbers."""
        name = f"onnxprune/numbers/{values}"
        self.zeros[name] = numpy_helper.from_array(np.array(values), name)
        return name

    def _looked_up(self, node: Node, name: str) -> str:
        """Have the sum of looked-up rows put out; the norm is then taken behind the operator."""
        given = node.proto.output
        total = given[2] if len(given) > 2 and given[2] else name + "sum"
        self.renamed[node.index, 0], self.renamed[node.index, 2] = name + "whole", total
        return total

    def _norm_input(self, node: Node, name: str) -> str:
        """Return what is normalized; where the operator adds before it, the sum is taken out."""
        given: list[str] = list(node.proto.input)
        if node.op_type not in _SUMMED:
            return given[0]
        total, bias = name + "sum", _SUMMED[node.op_type]
        if len(node.proto.output) > 3 and node.proto.output[3]:
            total = node.proto.output[3]
            self.renamed[node.index, 3] = ""
        self._add(self.before, node.index, "Add", [given[0], given[1]], name + "skip")
        last = [given[bias]] if len(given) > bias and given[bias] else []
        self._add(self.before, node.index, "Sum", [name + "skip", *last], total)
        self._add(self.before, node.index, "Shape", [total], name + "shape")
        zero = self._zero(self.trace.dtypes[node.inputs[0]])
        self._add(self.before, node.index, "Expand", [zero, name + "shape"], name + "nothing")
        self.inputs[node.index, 1] = name + "nothing"
        self.inputs[node.index, bias] = ""
        return total

    def _mean(self, chain: _Chains, index: int, source: str, target: str, over: list[int]) -> None:
        if self.view.opset < 18:
            proto = helper.make_node("ReduceMean", [source], [target], axes=over)
            chain.setdefault(index, []).append(proto)
            return
        axes = f"onnxprune/axes/{over}"
        self.zeros[axes] = numpy_helper.from_array(np.array(over), axes)
        self._add(chain, index, "ReduceMean", [source, axes], target)

    def _add(
        self,
        chain: _Chains,
        index: int,
        op: str,
        inputs: list[str],
        out: str,
    ) -> None:
        chain.setdefault(index, []).append(helper.make_node(op, inputs, [out]))

    def _zero(self, dtype: np.dtype[np.generic]) -> str:
        name = f"onnxprune/zero/{dtype.name}"
        self.zeros[name] = numpy_helper.from_array(np.zeros((), dtype), name)
        return name

    def build(self, sizes: Mapping[Axis, int]) -> Gated:
        model = onnx.ModelProto()
        model.CopyFrom(self.view.model)
        graphs = list(graphs_of(model.graph))
        end = sum(len(graph.node) for graph in graphs)
        for graph in reversed(graphs):  # bodies before what holds them
            end -= len(graph.node)
            self._rewrite(graph, end)
        model.graph.initializer.extend(self.zeros.values())
        places = {axis: sizes[axis] for axis in self.values}
        gated = Gated(model, self.values, places, self.ratios, self.groups)
        for name, mask in gated.feeds({}).items():
            kind = helper.np_dtype_to_tensor_dtype(mask.dtype)
            model.graph.input.append(helper.make_tensor_value_info(name, kind, mask.shape))
        return replace(gated, model=upcast(model))

    def _rewrite(self, graph: onnx.GraphProto, first: int) -> None:
        """Put in what was collected for the nodes of one graph; bodies capture masks and zeros."""
        nodes = list(graph.node)
        del graph.node[:], graph.value_info[:]
        for index, node in enumerate(nodes, first):
            graph.node.extend(self.before.get(index, ()))
            for (at, slot), value in self.inputs.items():
                if at == index and slot < len(node.input):
                    node.input[slot] = value
            for (at, slot), value in self.renamed.items():
                if at == index:
                    node.output.extend([""] * (slot + 1 - len(node.output)))
                    node.output[slot] = value
            graph.node.append(node)
            graph.node.extend(self.after.get(index, ()))
