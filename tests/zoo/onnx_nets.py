"""Networks without a framework: written by hand, of the onnx package, by onnxruntime.

    python tests/zoo/onnx_nets.py [FOLDER] [--only NAME] [--route helper|onnxscript|light|ort]

Needs onnxscript beside onnx and onnxruntime. ``light`` are the nets that come with the onnx
package: IR 3, initializers among the graph inputs, weights as ConstantOfShape. ``ort`` is what
onnxruntime's extended optimisations make of exports that are in ``.cache/zoo`` already: fused
operators of com.microsoft.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import OnnxFunction
from saving import DEFAULT_FOLDER, Exported, Job, normal, run

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
OPTIMISED = (
    "bert.ts",
    "gpt2.ts",
    "llama.dynamo",
    "vit.ts",
    "resnet.ts",
    "unet.ts",
    "efficientnet.ts",
)


def _weight(name: str, *shape: int) -> np.ndarray:
    return normal(name, *shape) / np.float32(np.sqrt(np.prod(shape[1:]) or 1))


def lenet() -> onnx.ModelProto:
    """Old opset, initializers among the inputs, no node names, Flatten with places into Gemm."""
    shapes = {"a": (8, 1, 5, 5), "b": (12, 8, 3, 3), "c": (24, 12 * 16), "d": (10, 24)}
    shapes |= {"c0": (24,), "d0": (10,)}
    weights = {name: _weight(name, *shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], kernel_shape=[5, 5], auto_pad="SAME_UPPER"),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("MaxPool", ["2"], ["3"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["3", "b"], ["4"], pads=[1, 1, 1, 1]),
        helper.make_node("AveragePool", ["4"], ["5"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["5"], ["6"]),
        helper.make_node("Gemm", ["6", "c", "c0"], ["7"], transB=1),
        helper.make_node("Sigmoid", ["7"], ["8"]),
        helper.make_node("Gemm", ["8", "d", "d0"], ["y"], transB=1),
    ]
    return _model(nodes, weights, (1, 16, 16), opset=9, ir=3)


def multi_branch() -> onnx.ModelProto:
    """Split, Concat, Add and Mul between plain convolutions, one weight used twice."""
    shapes = {"a": (16, 3, 3, 3), "b": (8, 8, 3, 3), "c": (12, 24, 1, 1), "d": (5, 12, 1, 1)}
    weights = {name: _weight(name, *shape) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["1"], pads=[1] * 4),
        helper.make_node("Split", ["1"], ["2", "3"], axis=1),
        helper.make_node("Conv", ["2", "b"], ["4"], pads=[1] * 4),
        helper.make_node("Conv", ["3", "b"], ["5"], pads=[1] * 4),
        helper.make_node("Mul", ["4", "5"], ["6"]),
        helper.make_node("Concat", ["4", "5", "6"], ["7"], axis=1),
        helper.make_node("Relu", ["7"], ["8"]),
        helper.make_node("Conv", ["8", "c"], ["9"]),
        helper.make_node("LeakyRelu", ["9"], ["10"]),
        helper.make_node("Conv", ["10", "d"], ["y"]),
    ]
    return _model(nodes, weights, (3, 8, 8), opset=11, ir=6)


def _model(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    sample: tuple[int, ...],
    opset: int,
    ir: int,
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *sample])]
    if ir < 4:
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in weights.items()
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


_A, _B, _C = _weight("sa", 20, 32), _weight("sb", 32, 24), _weight("sc", 24, 10)
_K, _L = _weight("sk", 12, 3, 3, 3), _weight("sl", 10, 12, 3, 3)
_BIAS = _weight("bias", 32)


@script()
def script_mlp(x: FLOAT["n", 20]) -> FLOAT["n", 10]:  # noqa: F821
    h = op.Relu(op.Add(op.MatMul(x, op.Constant(value=_A)), op.Constant(value=_BIAS)))
    h = op.Tanh(op.MatMul(h, op.Constant(value=_B)))
    return op.MatMul(h, op.Constant(value=_C))


@script()
def script_conv(x: FLOAT["n", 3, 8, 8]) -> FLOAT["n", 10]:  # noqa: F821
    h = op.Relu(op.Conv(x, op.Constant(value=_K), pads=[1, 1, 1, 1]))
    h = op.HardSwish(op.Conv(h, op.Constant(value=_L)))
    return op.Flatten(op.GlobalAveragePool(h))


def _constants(function: OnnxFunction) -> onnx.ModelProto:
    """The function with its arrays as Constant nodes, as the script says."""
    return function.to_model_proto(ir_version=9)


def _plain(name: str, build: Callable[[], onnx.ModelProto], sample: tuple[int, ...]) -> Exported:
    return Exported(build(), {"x": normal(name, 2, *sample)})


def _light(path: Path) -> Exported:
    """A net of the onnx package as it is.

    ConstantOfShape makes all numbers of a weight equal, so that its channels are, too: such a net
    tells whether it can be cut and runs, not whether the right channels went.
    """
    model = onnx.load(path)
    given = {t.name for t in model.graph.initializer}
    feed = {}
    for info in model.graph.input:
        if info.name not in given:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            feed[info.name] = normal(path.stem, *shape)
    return Exported(model, feed)


def _optimised(source: Path) -> Exported:
    """What onnxruntime writes down after its extended optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = f"{folder}/model.onnx"
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        with np.load(source.with_suffix(".npz")) as data:
            feed = dict(data)
        return Exported(onnx.load(f"{folder}/model.onnx"), feed, session.run(None, feed))


def every() -> Iterator[Job]:
    yield "lenet_ir3", "helper", partial(_plain, "lenet_ir3", lenet, (1, 16, 16))
    yield "multi_branch", "helper", partial(_plain, "multi_branch", multi_branch, (3, 8, 8))
    for name, function, sample in (
        ("script_mlp", script_mlp, (20,)),
        ("script_conv", script_conv, (3, 8, 8)),
    ):
        yield name, "onnxscript", partial(_plain, name, partial(_constants, function), sample)
    for path in sorted(LIGHT.glob("*.onnx")):
        yield path.stem, "light", partial(_light, path)
    for stem in OPTIMISED:
        source = DEFAULT_FOLDER / f"{stem}.onnx"
        if source.exists():
            yield stem.split(".")[0], "ort", partial(_optimised, source)


if __name__ == "__main__":
    run(every(), __doc__)
