"""What an operator's time depends on, and models of it alone in which that time can be read."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Node, View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace

__all__ = ["Family", "Operator", "find_operators"]

Family = Literal["dense", "depthwise", "linear", "recurrent", "fixed"]
Shape = tuple[int, ...]
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_TRANSPOSED = "ConvTranspose"
_KINDS = ("strides", "transA", "transB", "direction", "linear_before_reset")
_PLACES = ("dilations", "pads", "auto_pad", "output_padding", "output_shape")


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One weighted operator with the axes that its time is measured over.

    Attributes
    ----------
    node : Node
    family : Family
        How its shapes follow from its widths; ``fixed`` operators are measured whole only, and
        taken to shrink in proportion.
    shapes, constant, dtypes : tuple of shape, of bool and of dtype
        Of its inputs, () where absent; which of them are weights; and their types.
    axes : tuple of Axis
    widths : tuple of int
        Sizes of the axes.
    macs : float
    opset : int
    """

    node: Node
    family: Family
    shapes: tuple[Shape, ...]
    constant: tuple[bool, ...]
    dtypes: tuple[np.dtype[np.generic], ...]
    axes: tuple[Axis, ...]
    widths: tuple[int, ...]
    macs: float
    opset: int

    @property
    def signature(self) -> str:
        """Everything that its time depends on, as one line."""
        shapes = " ".join("x".join(map(str, s)) or "-" for s in self.shapes)
        return f"{self.kind}{self._named(_PLACES)} | {shapes}"

    @property
    def kind(self) -> str:
        """What decides which widths pay: the signature without its sizes."""
        group = self.node.attributes.get("group", 1)
        many = f" groups={group}" if self.family == "fixed" and group != 1 else ""
        layout = "weight" if any(self.constant) else "activations"
        kernel = "x".join(map(str, self.shapes[1][2:])) if "Conv" in self.node.op_type else ""
        text = (
            f"{self.node.op_type} {self.family} {layout} {self.dtypes[0]}{many} {kernel}".rstrip()
        )
        return text + self._named(_KINDS)

    def _named(self, names: Sequence[str]) -> str:
        attributes = self.node.attributes
        return "".join(f" {name}={_text(attributes[name])}" for name in names if name in attributes)

    def at(self, widths: Sequence[int]) -> "Operator":
        """Return the operator with other widths."""
        shapes = self._resized(tuple(widths))
        macs = self.macs * prod(widths) / max(prod(self.widths), 1)
        return replace(self, shapes=shapes, widths=tuple(widths), macs=macs)

    def _resized(self, widths: tuple[int, ...]) -> tuple[Shape, ...]:
        shapes = [list(shape) for shape in self.shapes]
        match self.family:
            case "dense":
                out, inner = widths
                first, second = (1, 0) if self.node.op_type == _TRANSPOSED else (0, 1)
                shapes[0][1] = shapes[1][second] = inner
                shapes[1][first] = out
                biases = shapes[2:]
            case "depthwise":
                times = self.shapes[1][0] // self.shapes[0][1]
                shapes[1][0] = widths[0]
                shapes[0][1] = widths[0] // times
                out, biases = widths[0], shapes[2:]
            case "linear":
                out, inner = widths
                across = bool(self.node.attributes.get("transB"))
                shapes[1][-2:] = (out, inner) if across else (inner, out)
                shapes[0][0 if self.node.attributes.get("transA") else -1] = inner
                biases = shapes[2:]
            case "recurrent":
                hidden, inner = widths
                gates = _GATES[self.node.op_type]
                shapes[0][2] = shapes[1][2] = inner
                shapes[1][1], shapes[2][1:] = gates * hidden, (gates * hidden, hidden)
                out, biases = 2 * gates * hidden, [s for s in shapes[3:4] if s]
                for state in (s for s in shapes[5:7] if s):
                    state[-1] = hidden
            case _:
                return self.shapes
        for bias in (b for b in biases if b):
            bias[-1] = out if bias[-1] != 1 else 1
        return tuple(map(tuple, shapes))

    def chain(self, copies: int) -> tuple[onnx.ModelProto, Feeds]:
        """Build a model of several copies that read the same input and nothing leaves.

        The time of one copy is the difference of two chains: what it takes to start a run, and to
        bring the input into the runtime's own layout, is the same in both.

        Returns
        -------
        model : ModelProto
        feeds : mapping of name to array
        """
        rng = np.random.default_rng(0)
        made = _Chain(rng)
        feeds = {
            f"x{slot}": made.numbers(shape, dtype)
            for slot, (shape, dtype) in enumerate(zip(self.shapes, self.dtypes, strict=True))
            if shape and not self.constant[slot]
        }
        results = []
        for copy in range(copies):
            inputs = []
            for slot, shape in enumerate(self.shapes):
                if not shape:
                    inputs.append("")
                elif self.constant[slot]:
                    inputs.append(made.constant(made.numbers(shape, self.dtypes[slot])))
                else:
                    inputs.append(f"x{slot}")
            results.append(made.node(self.node.op_type, inputs, f"y{copy}", self._attributes()))
        made.close(results, joined=self.family in {"dense", "depthwise"})
        return made.model(feeds, self.opset), feeds

    def _attributes(self) -> dict[str, object]:
        attributes = dict(self.node.attributes)
        if self.family == "depthwise":
            attributes["group"] = self.shapes[0][1]
        if self.family == "recurrent":
            attributes["hidden_size"] = self.widths[0]
        return attributes


class _Chain:
    """Collects the nodes of one small model."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.outputs: list[str] = []

    def numbers(self, shape: Shape, dtype: np.dtype[np.generic]) -> np.ndarray:
        if dtype.kind != "f":
            return np.ones(shape, dtype)
        return (0.1 * self.rng.standard_normal(shape, np.float32)).astype(dtype)

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(
        self, op: str, inputs: Sequence[str], output: str, attributes: Mapping[str, object]
    ) -> str:
        node = helper.make_node(op, list(inputs), [output])
        node.attribute.extend(helper.make_attribute(n, value) for n, value in attributes.items())
        self.nodes.append(node)
        return output

    def close(self, results: Sequence[str], *, joined: bool) -> None:
        """Let one element out: convolutions are summed first, which fuses and keeps their layout.

        Whole results would be converted and copied, which takes as long as a small operator.
        """
        if joined:
            total = results[0]
            for number, result in enumerate(results[1:]):
                total = self.node("Add", [total, result], f"s{number}", {})
            results = [total]
        zero, one = (self.constant(np.array([n], np.int64)) for n in (0, 1))
        for number, result in enumerate(results):
            self.outputs.append(self.node("Slice", [result, zero, one, zero], f"o{number}", {}))

    def model(self, feeds: Feeds, opset: int) -> onnx.ModelProto:
        infos = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in feeds.items()
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in self.outputs]
        graph = helper.make_graph(self.nodes, "chain", infos, outputs, self.initializers)
        opsets = [helper.make_opsetid("", max(opset, 10))]  # Slice takes inputs since 10
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def find_operators(view: View, trace: Trace) -> Iterator[Operator]:
    """Yield the operators that do most of a network's work, in the order of the graph.

    Parameters
    ----------
    view : View
    trace : Trace
        At the sizes that latency is asked for.
    """
    for node in view.nodes:
        known = all(v in trace.shapes for v in (*node.inputs, *node.outputs) if v)
        if node.domain != "" or node.op_type not in _READERS or not known:
            continue
        family, axes, widths, macs = _READERS[node.op_type](node, trace, view)
        slots = range(len(node.inputs))
        shapes = tuple(trace.shapes[v] if v else () for v in node.inputs)
        constant = tuple(view.is_constant(node.inputs[s]) for s in slots)
        dtypes = tuple(trace.dtypes[v] if v else np.dtype(np.float32) for v in node.inputs)
        yield Operator(
            node, family, shapes, constant, dtypes, axes, widths, float(macs), view.opset
        )


Read = tuple[Family, tuple[Axis, ...], tuple[int, ...], int]


def _convolution(node: Node, trace: Trace, view: View) -> Read:
    x, weight = trace.shapes[node.inputs[0]], trace.shapes[node.inputs[1]]
    places = trace.shapes[node.outputs[0]] if node.op_type == "Conv" else x
    macs = places[0] * prod(places[2:]) * prod(weight)
    group = node.attributes.get("group", 1)
    both = tuple(Axis(node.inputs[1], axis) for axis in (0, 1))
    if group == 1:
        axes = both[::-1] if node.op_type == _TRANSPOSED else both
        return "dense", axes, tuple(weight[a.axis] for a in axes), macs
    if node.op_type == "Conv" and group == x[1]:
        return "depthwise", both[:1], weight[:1], macs
    return "fixed", both, weight[:2], macs


def _product(node: Node, trace: Trace, view: View) -> Read:
    x, y = trace.shapes[node.inputs[0]], trace.shapes[node.outputs[0]]
    inner = 0 if node.attributes.get("transA") else len(x) - 1
    macs = prod(y) * x[inner]
    contracted = Axis(node.inputs[0], inner)
    if view.is_constant(node.inputs[1]) and len(trace.shapes[node.inputs[1]]) == 2 and len(y) > 1:
        return "linear", (Axis(node.outputs[0], len(y) - 1), contracted), (y[-1], x[inner]), macs
    axes = (*(Axis(node.outputs[0], i) for i in range(len(y))), contracted)
    return "fixed", axes, (*y, x[inner]), macs


def _recurrent(node: Node, trace: Trace, view: View) -> Read:
    steps, batch = trace.shapes[node.inputs[0]][:2]
    weight, again = (trace.shapes[node.inputs[slot]] for slot in (1, 2))
    axes = (Axis(node.inputs[1], 1), Axis(node.inputs[1], 2))
    macs = steps * batch * (prod(weight) + prod(again))
    return "recurrent", axes, (again[2], weight[2]), macs


_READERS = {
    "Conv": _convolution,
    _TRANSPOSED: _convolution,
    "MatMul": _product,
    "Gemm": _product,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return ",".join(map(str, value)) if isinstance(value, Sequence) else str(value)
