"""A change of few dimensions, carried through sums and normalizations to the next linear layers.

Where a linear layer has taken off what it got from the lost channels, its result has changed by
``u m``, ``u`` the lost channels and ``m`` what the layer multiplies them by. A sum with what has
not changed changes by the same. A LayerNormalization divides each row by another deviation, and is
linear but for that, so that a linear layer behind it, ``y = N(x) W``, becomes

    y' = r y + (1 - r) b W + (u / s') (m C W)

where b is the normalization's bias, s' the new deviation, r the old one over it, and C takes off
the mean and multiplies by the scale. A few columns take the place of the whole product.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune.model.scopes import values_read
from onnxprune.runtime.delta import KNOWN, Delta, Few, Shapes

__all__ = ["carried"]

_NAME = "onnxprune/carried/"
_ONE = _NAME + "one"
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Normal:
    """A normalization of a value that has changed by few dimensions.

    ``columns`` and ``ratio`` are values: (u / s', 1 - r), and r.
    """

    few: Few
    scale: Floats
    bias: Floats
    columns: str
    ratio: str


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer behind one: ``few`` is the value m C W, ``bias`` what each row is added."""

    normal: _Normal
    few: str
    bias: NDArray[np.floating]


def carried(delta: Delta, shapes: Shapes) -> Delta:
    """Let linear layers behind normalizations take off what they got from lost channels, too.

    Parameters
    ----------
    delta : Delta
    shapes : mapping of value name to shape

    Returns
    -------
    Delta
        The same where nothing is carried so far.
    """
    if not delta.few:
        return delta
    walk = _Walk(delta, shapes)
    nodes = [made for node in delta.gated.model.graph.node for made in walk.step(node)]
    model = onnx.ModelProto()
    model.CopyFrom(delta.gated.model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(walk.constants)
    known = {**delta.known, **{KNOWN + value: value for value in walk.known}}
    gated = replace(delta.gated, model=model)
    return replace(delta, gated=gated, known=known, carried=bool(walk.linear))


class _Walk:
    """Goes through a graph and says what stands in the place of each node."""

    def __init__(self, delta: Delta, shapes: Shapes) -> None:
        graph = delta.gated.model.graph
        self.few, self.shapes = dict(delta.few), shapes
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.changed = {value.name for value in graph.input if value.name.startswith("onnxprune/")}
        self.changed.difference_update(delta.known)
        self.normal: dict[str, _Normal] = {}
        self.linear: dict[str, _Linear] = {}
        self.known: list[str] = []
        self.constants = [numpy_helper.from_array(np.array(1, np.float32), _ONE)]

    def step(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        reached = [n for n in values_read(node) if n in self.changed]
        if not reached:
            yield node
            return
        self.changed.update(node.output)
        first = reached[0]
        kind = "" if node.domain or len(node.output) != 1 or len(reached) != 1 else node.op_type
        match kind:
            case "Add" if first in self.few and self._same(first, node.output[0]):
                yield self._added(self.few[first], node.output[0])
            case "LayerNormalization" if first in self.few and self._last(node, first):
                yield from self._normalized(node)
            case "MatMul" if first in self.normal and self._stored(node.input[1], 2):
                yield from self._product(node, self.normal[first])
            case "Add" if first in self.linear and self._stored(_other(node, first), 1):
                yield from self._biased(node, first)
            case _:
                yield node

    def _same(self, value: str, output: str) -> bool:
        return value in self.shapes and self.shapes[value] == self.shapes.get(output)

    def _stored(self, name: str, rank: int) -> bool:
        return name in self.stored and len(self.stored[name].dims) == rank

    def _last(self, node: onnx.NodeProto, value: str) -> bool:
        """Whether a normalization is one over the last axis with constant scale and bias."""
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
        floats = [self.stored.get(name) for name in node.input[1:]]
        return (
            value == node.input[0]
            and axis in (-1, len(self.shapes[value]) - 1)
            and all(t is not None and t.data_type == onnx.TensorProto.FLOAT for t in floats)
        )

    def _added(self, few: Few, output: str) -> onnx.NodeProto:
        self.few[output] = few
        self.known.append(output)
        return helper.make_node("Add", [KNOWN + output, few.less], [output])

    def _normalized(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        value, output = node.input[0], node.output[0]
        few, name = self.few[value], f"{_NAME}{output}/"
        scale, *bias = (numpy_helper.to_array(self.stored[n]) for n in node.input[1:])
        if KNOWN + value not in self.known:
            self.known.append(value)
        for source, target, inverse in (
            (KNOWN + value, name + "before", name + "old"),
            (value, output, name + "new"),
        ):
            each = onnx.NodeProto()
            each.CopyFrom(node)
            each.name, each.input[0] = "", source
            del each.output[:]
            each.output.extend([target, "", inverse])
            yield each
        rows = len(self.shapes[value]) - 1
        yield helper.make_node("Div", [name + "new", name + "old"], [name + "ratio"])
        yield helper.make_node("Mul", [few.lost, name + "new"], [name + "scaled"])
        yield helper.make_node("Sub", [_ONE, name + "ratio"], [name + "rest"])
        joined, columns = name + "joined", name + "columns"
        yield helper.make_node("Concat", [name + "scaled", name + "rest"], [joined], axis=-1)
        yield helper.make_node("Flatten", [joined], [columns], axis=rows)
        added = bias[0] if bias else np.zeros_like(scale)
        self.normal[output] = _Normal(few, scale, added, columns, name + "ratio")

    def _product(self, node: onnx.NodeProto, normal: _Normal) -> Iterator[onnx.NodeProto]:
        output, name = node.output[0], f"{_NAME}{node.output[0]}/"
        weight = numpy_helper.to_array(self.stored[node.input[1]]).astype(np.float64)
        scaled = normal.scale[:, None] * weight
        centred = (scaled - scaled.mean(axis=0)).astype(np.float32)
        self.constants.append(numpy_helper.from_array(centred, name + "weight"))
        yield helper.make_node("MatMul", [normal.few.taken, name + "weight"], [name + "few"])
        yield from self._linear(output, _Linear(normal, name + "few", normal.bias[None] @ weight))

    def _biased(self, node: onnx.NodeProto, value: str) -> Iterator[onnx.NodeProto]:
        """Let a linear layer add its bias itself."""
        linear = self.linear[value]
        added = numpy_helper.to_array(self.stored[_other(node, value)])
        yield from self._linear(node.output[0], replace(linear, bias=linear.bias + added))

    def _linear(self, output: str, linear: _Linear) -> Iterator[onnx.NodeProto]:
        normal, name = linear.normal, f"{_NAME}{output}/"
        self.linear[output] = linear
        self.known.append(output)
        bias = numpy_helper.from_array(linear.bias.astype(np.float32), name + "bias")
        self.constants.append(bias)
        axis, total = len(self.shapes[output]) - 1, name + "total"
        yield helper.make_node("Concat", [linear.few, bias.name], [name + "lines"], axis=0)
        yield helper.make_node("Mul", [KNOWN + output, normal.ratio], [name + "stretched"])
        yield helper.make_node("Flatten", [name + "stretched"], [name + "flat"], axis=axis)
        given = [normal.columns, name + "lines", name + "flat"]
        yield helper.make_node("Gemm", given, [total])
        yield helper.make_node("Shape", [KNOWN + output], [name + "shape"])
        yield helper.make_node("Reshape", [total, name + "shape"], [output])


def _other(node: onnx.NodeProto, value: str) -> str:
    first, second = node.input
    return str(second if first == value else first)
