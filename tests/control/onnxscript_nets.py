"""Networks written in onnxscript: loops, branches, and functions that call functions."""

import numpy as np
import onnx
from onnx import numpy_helper
from onnxscript import FLOAT, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

_RNG = np.random.default_rng(0)
_NETS = Opset("my.nets", 1)


def _tensor(name: str, *shape: int) -> onnx.TensorProto:
    return numpy_helper.from_array(_RNG.standard_normal(shape).astype(np.float32) / 3, name)


W0, U, V, W1 = (
    _tensor(name, *shape)
    for name, shape in {"w0": (8, 12), "u": (12, 16), "v": (16, 16), "w1": (16, 4)}.items()
)
B0, B1 = _tensor("b0", 12), _tensor("b1", 16)


@script()
def loop(x: FLOAT["n", 8]) -> FLOAT["n", 4]:  # noqa: F821
    """Five turns over a captured weight."""
    h = op.MatMul(op.Relu(op.MatMul(x, op.Constant(value=W0))), op.Constant(value=U))
    for _ in range(5):
        h = op.Tanh(op.MatMul(h, op.Constant(value=V)))
    return op.MatMul(h, op.Constant(value=W1))


@script()
def branch(x: FLOAT["n", 8]) -> FLOAT["n", 4]:  # noqa: F821
    """A layer in one of two branches."""
    h = op.MatMul(op.MatMul(x, op.Constant(value=W0)), op.Constant(value=U))
    if op.ReduceSum(x, keepdims=0) > 0.0:
        y = op.Tanh(op.MatMul(h, op.Constant(value=V)))
    else:
        y = op.Relu(h)
    return op.MatMul(y, op.Constant(value=W1))


@script(_NETS)
def dense(x, w, b):
    """A layer whose weights are given: it need not change when they are cut."""
    return op.Relu(op.Add(op.MatMul(x, w), b))


@script(_NETS)
def block(x, w, b, v, c):
    """Two layers."""
    return dense(dense(x, w, b), v, c)


@script(_NETS)
def own(x):
    """A layer with a weight of its own."""
    return op.Tanh(op.MatMul(x, op.Constant(value=V)))


@script()
def functions(x: FLOAT["n", 8]) -> FLOAT["n", 4]:  # noqa: F821
    """A function of given weights, and two calls of one with its own."""
    h = block(
        x,
        op.Constant(value=W0),
        op.Constant(value=B0),
        op.Constant(value=U),
        op.Constant(value=B1),
    )
    return op.MatMul(own(own(h)), op.Constant(value=W1))


def export(folder: str) -> None:
    """Write all networks of this file."""
    for function in (loop, branch, functions):
        onnx.save(function.to_model_proto(), f"{folder}/onnxscript_{function.name}.onnx")
