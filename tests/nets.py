"""Small networks with random weights, and the project's own ones, looked at."""

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.analysis import Analysis, analyse
from onnxprune.coupling.groups import Group
from onnxprune.model.cost import Cost, CostModel
from onnxprune.model.view import build_view
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.runtime.trace import trace

MODELS = Path(__file__).parent.parent / "models"
DATA = {
    "digits_resnet": "digits_images",
    "digits_resnet_bn": "digits_images",
    "digits_resnet_dynamo": "digits_images",
    "digits_mobile": "digits_images",
    "digits_vit": "digits_images",
    "digits_keras": "digits_images_nhwc",
    "digits_mlp": "digits_features",
    "digits_lstm": "digits_rows",
    "digits_gru": "digits_rows",
}
Shape = tuple[int | str, ...]


class Net:
    """Builds a graph line by line; every method gives the name of what it added."""

    def __init__(self, seed: int = 0, opset: int = 17) -> None:
        self.rng, self.opset = np.random.default_rng(seed), opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def const(self, array: object, name: str = "") -> str:
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int) -> str:
        scale = np.sqrt(shape[0] / np.prod(shape))
        array = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        return self.const(array, f"w{len(self.constants)}")

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        return self.ops(1, op_type, *inputs, **attributes)[0]

    def ops(self, count: int, op_type: str, *inputs: str, **attributes: object) -> list[str]:
        number = len(self.nodes)
        outputs = [f"v{number}" if i == 0 else f"v{number}_{i}" for i in range(count)]
        name = f"{op_type}_{number}"
        self.nodes.append(helper.make_node(op_type, inputs, outputs, name=name, **attributes))
        return outputs

    def conv(self, x: str, size: int, channels: int, kernel: int = 3, **attributes: object) -> str:
        """Convolve ``size`` channels into ``channels``, at the same resolution."""
        pads = [kernel // 2] * 4
        inner = size // int(attributes.get("group", 1))
        weight = self.weight(channels, inner, kernel, kernel)
        return self.op("Conv", x, weight, self.weight(channels), pads=pads, **attributes)

    def linear(self, x: str, size: int, features: int) -> str:
        """Multiply the last axis of any rank with a weight, add a bias."""
        y = self.op("MatMul", x, self.weight(size, features))
        return self.op("Add", y, self.weight(features))

    def model(
        self,
        inputs: Mapping[str, Shape],
        *outputs: str,
        types: Mapping[str, int] | None = None,
    ) -> onnx.ModelProto:
        types = types or {}
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "net",
            [value(n, types.get(n, TensorProto.FLOAT), s) for n, s in inputs.items()],
            [value(n, types.get(n, TensorProto.FLOAT), None) for n in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            opsets.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


IMAGES: dict[str, Shape] = {"x": ("N", 3, 6, 6)}
ROWS: dict[str, Shape] = {"x": ("N", 5, 12)}


def residual() -> onnx.ModelProto:
    """A stem, one residual block, pooling, a classifier."""
    net = Net(1)
    stem = net.op("Relu", net.conv("x", 3, 8))
    inner = net.op("Relu", net.conv(stem, 8, 6))
    total = net.op("Relu", net.op("Add", stem, net.conv(inner, 6, 8)))
    flat = net.op("Flatten", net.op("GlobalAveragePool", total))
    logits = net.op("Gemm", flat, net.weight(8, 4), net.weight(4))
    return net.model(IMAGES, logits)


def concat() -> onnx.ModelProto:
    """Two branches side by side; pixels are flattened into the classifier."""
    net = Net(2)
    a = net.op("Relu", net.conv("x", 3, 4))
    b = net.op("Relu", net.conv("x", 3, 6, 1))
    joined = net.op("Concat", a, b, axis=1)
    last = net.op("Relu", net.conv(joined, 10, 3))
    flat = net.op("Flatten", last)
    return net.model(IMAGES, net.op("Gemm", flat, net.weight(3 * 36, 4), net.weight(4)))


def heads() -> onnx.ModelProto:
    """Attention with 3 heads of 4 over rows of 12, projections apart."""
    net = Net(3)
    rows = net.const(np.array([0, 0, 3, 4], np.int64))

    def split(order: list[int]) -> str:
        y = net.op("Reshape", net.linear("x", 12, 12), rows)
        return net.op("Transpose", y, perm=order)

    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = net.op("Mul", net.op("MatMul", q, k), net.const(np.float32(0.5)))
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    merged = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    merged = net.op("Reshape", merged, net.const(np.array([0, 0, 12], np.int64)))
    return net.model(ROWS, net.linear(merged, 12, 5))


def normed() -> onnx.ModelProto:
    """A LayerNormalization stream (not exact) with a feed-forward block."""
    net = Net(4)
    stream = net.linear("x", 12, 8)
    normal = net.op("LayerNormalization", stream, net.weight(8), net.weight(8), axis=-1)
    inner = net.op("Relu", net.linear(normal, 8, 6))
    total = net.op("Add", stream, net.linear(inner, 6, 8))
    last = net.op("LayerNormalization", total, net.weight(8), net.weight(8), axis=-1)
    return net.model(ROWS, net.linear(last, 8, 3))


def fused() -> onnx.ModelProto:
    """Attention and a skip with its normalization in one operator each (not exact)."""
    net, own = Net(7), {"domain": "com.microsoft"}
    stream = net.linear("x", 12, 8)
    weights = net.weight(8, 36), net.weight(36)
    mixed = net.op("Attention", stream, *weights, num_heads=3, **own)
    vectors = net.weight(8), net.weight(8)
    y = net.linear(mixed, 12, 8)
    normal, _, _, total = net.ops(4, "SkipLayerNormalization", y, stream, *vectors, **own)
    return net.model(ROWS, net.linear(net.op("Add", normal, total), 8, 3))


def resized() -> onnx.ModelProto:
    """A coarse map is resized to what the shape of a fine one says, and added to it."""
    net = Net()
    coarse = net.op("Relu", net.conv("x", 3, 6, strides=[2, 2]))
    fine = net.conv("x", 3, 5)
    first, second, last = (net.const(np.array([n])) for n in (0, 2, 4))
    start = net.op("Slice", net.op("Shape", coarse), first, second)
    rest = net.op("Slice", net.op("Shape", fine), second, last)
    sizes = net.op("Concat", start, rest, axis=0)
    large = net.op("Resize", coarse, "", "", sizes, mode="nearest")
    y = net.op("Add", net.conv(large, 6, 4), net.conv(fine, 5, 4))
    return net.model({"x": ("N", 3, 8, 8)}, y)


def averaged() -> onnx.ModelProto:
    """A mean over channels (not exact) behind a convolution."""
    net = Net(5)
    y = net.op("Relu", net.conv("x", 3, 8))
    return net.model(IMAGES, net.op("ReduceMean", y, axes=[1], keepdims=1))


def mlp(*sizes: int, seed: int = 6) -> onnx.ModelProto:
    """Gemm, Relu, Gemm, ...; the first size is the input's, the last the output's."""
    net = Net(seed)
    y = "x"
    for size, features in pairwise(sizes):
        if y != "x":
            y = net.op("Relu", y)
        y = net.op("Gemm", y, net.weight(size, features), net.weight(features))
    return net.model({"x": ("N", sizes[0])}, y)


def branching() -> onnx.ModelProto:
    """Downstream of the channels lies an If, whose bodies read an outer value."""
    net = Net(7)
    y = net.op("Relu", net.linear("x", 12, 8))
    y = net.linear(y, 8, 6)
    flag = net.op("Greater", net.op("ReduceMean", "x", keepdims=0), net.const(np.float32(0)))
    bodies = {
        f"{word}_branch": helper.make_graph(
            [helper.make_node(op, [y], [word])],
            word,
            [],
            [helper.make_tensor_value_info(word, TensorProto.FLOAT, None)],
        )
        for word, op in (("then", "Relu"), ("else", "Neg"))
    }
    return net.model(ROWS, net.op("If", flag, **bodies))


def dead_end() -> onnx.ModelProto:
    """One branch of the graph ends in nothing."""
    net = Net(8)
    used = net.op("Gemm", "x", net.weight(12, 6), net.weight(6))
    lost = net.op("Gemm", "x", net.weight(12, 5), net.weight(5))
    net.op("Gemm", net.op("Relu", lost), net.weight(5, 2), net.weight(2))
    y = net.op("Gemm", net.op("Relu", used), net.weight(6, 3), net.weight(3))
    return net.model({"x": ("N", 12)}, y)


def look(model: onnx.ModelProto, folder: Path, **choices: object) -> Analysis:
    """Write a model and analyse it; on 16 synthetic samples unless told otherwise."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    options = Options(**{"macs": 0.5, "samples": 16, **choices})  # type: ignore[arg-type]
    return analyse(path, options, Silent())


@cache
def digits(name: str, samples: int = 16) -> Analysis:
    """Analyse one of the project's own models on some of its own data."""
    options = Options(data=MODELS / f"{DATA[name]}.npz", macs=0.5, samples=samples)
    return analyse(MODELS / f"{name}.onnx", options, Silent())


def forget_rule(monkeypatch: pytest.MonkeyPatch, op_type: str) -> None:
    """Make an operator one that nobody has written a rule for."""
    collect = import_module("onnxprune.coupling.collect")
    known = collect.lookup
    monkeypatch.setattr(
        collect, "lookup", lambda domain, op: None if op == op_type else known(domain, op)
    )


def retraced(found: Analysis, model: onnx.ModelProto) -> Cost:
    """Count a cut model afresh, from its own shapes, at the sizes of the original's costs."""
    view = build_view(model, found.view.base)
    return CostModel(view, trace(view, found.stated_feed())).total


def group_of(found: Analysis, name: str) -> Group:
    """Return the group of that name."""
    return next(g for g in found.coupling.groups if g.name == name)
