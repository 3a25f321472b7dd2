"""The fp32 clone keeps names and shapes, and changes nothing where nothing is narrow."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.decoded import decode, encode
from onnxprune.model.order import in_order
from onnxprune.model.upcast import upcast
from onnxprune.runtime.session import Session

_INFO = helper.make_tensor_value_info


def _linear(kind, dtype):
    weight = np.arange(12).reshape(4, 3).astype(dtype)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Cast", ["m"], ["c"], to=kind),
            helper.make_node("Relu", ["c"], ["y"]),
        ],
        "linear",
        [_INFO("x", kind, ["n", 4])],
        [_INFO("y", kind, ["n", 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.DOUBLE, np.float64),
    ],
)
def test_floats_become_fp32(kind, dtype):
    model = _linear(kind, dtype)
    content = model.SerializeToString()
    clone = upcast(model)
    assert model.SerializeToString() == content
    x = np.ones((2, 4), dtype)  # feeds stay in the model's own type
    (y,) = Session(clone).run({"x": x}).values()
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y[0], np.arange(12).reshape(4, 3).sum(axis=0))
    assert [n.output[0] for n in clone.graph.node] == ["m", "c", "y"]


def test_fp32_model_is_its_own_clone():
    model = _linear(TensorProto.FLOAT, np.float32)
    assert upcast(model) is model


def _rounded(scale, zero, axis=None):
    given = {} if axis is None else {"axis": axis}
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **given),
            helper.make_node("MaxPool", ["q"], ["p"], kernel_shape=[1, 1]),
            helper.make_node("DequantizeLinear", ["p", "s", "z"], ["y"], **given),
        ],
        "rounded",
        [_INFO("x", TensorProto.FLOAT, [1, 2, 1, 3])],
        [_INFO("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(scale, "s"), numpy_helper.from_array(zero, "z")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("scale", "zero", "axis"),
    [
        (np.float32(0.5), np.uint8(10), None),
        (np.array([0.5, 0.25], np.float32), np.array([10, 0], np.uint8), 1),
        (np.array([0.5, 0.25], np.float32), np.array([10, 0], np.uint8), -3),
    ],
)
def test_quantized_values_are_clipped_but_not_rounded(scale, zero, axis):
    clone = upcast(_rounded(np.asarray(scale), np.asarray(zero), axis))
    x = np.array([-100.0, 0.3, 1000.0, -100.0, 0.3, 1000.0], np.float32).reshape(1, 2, 1, 3)
    (y,) = Session(clone).run({"x": x}).values()
    low, high = (
        np.broadcast_to((end - np.asarray(zero, np.float32)) * scale, 2) for end in (0.0, 255.0)
    )
    wanted = np.stack([low, [0.3, 0.3], high], axis=1)
    np.testing.assert_allclose(y.reshape(2, 3), wanted, rtol=1e-5)


@pytest.mark.parametrize(
    ("scale", "axis", "block"),
    [
        (np.float32(0.1), 0, 0),
        (np.array([0.1, 0.2, 0.3], np.float32), 1, 0),
        (np.array([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]], np.float32), 0, 3),
    ],
)
def test_encoding_undoes_decoding(scale, axis, block):
    array = np.arange(-7, 5, dtype=np.int8).reshape(4, 3)
    zero = np.asarray(np.full(np.shape(scale), 2), np.int8)
    real = decode(array, np.asarray(scale), zero, axis=axis, block=block)
    again = encode(real, array, np.asarray(scale), zero, axis=axis, block=block)
    np.testing.assert_array_equal(again, array)
    far = encode(real * 100, array, np.asarray(scale), zero, axis=axis, block=block)
    assert far.min() == -128
    assert far.max() <= 127


def test_nodes_are_put_in_order():
    model = _linear(TensorProto.FLOAT, np.float32)
    assert in_order(model) is model
    mixed = onnx.ModelProto()
    mixed.CopyFrom(model)
    nodes = list(mixed.graph.node)
    del mixed.graph.node[:]
    mixed.graph.node.extend(reversed(nodes))
    assert [n.output[0] for n in in_order(mixed).graph.node] == ["m", "c", "y"]
