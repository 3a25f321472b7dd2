"""A convolution over a tiny map equals the product that takes its place."""

import numpy as np
import onnx
import pytest

from onnxprune.runtime.session import Session
from onnxprune.runtime.unrolled import unroll
from tests import nets


def run(attributes, size, *, bias=True, group=1, kernel=3, rank=2):
    """Unroll one convolution; return both results and the operators that were left."""
    net = nets.Net(31)
    places = [size] * rank
    weights = [net.weight(6, 4 // group, *[kernel] * rank)] + ([net.weight(6)] if bias else [])
    y = net.op("Conv", "x", *weights, group=group, **attributes)
    model = net.model({"x": ("N", 4, *places)}, y)
    x = np.random.default_rng(0).standard_normal((3, 4, *places)).astype(np.float32)
    before = Session(model).run({"x": x})[y]
    other = onnx.ModelProto()
    other.CopyFrom(model)
    unroll(other, {"x": x.shape, y: before.shape})
    return before, Session(other).run({"x": x})[y], [n.op_type for n in other.graph.node]


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ({"pads": [1, 1, 1, 1]}, 2),
        ({"pads": [1, 1, 1, 1], "strides": [2, 2]}, 3),
        ({"auto_pad": "SAME_UPPER", "kernel_shape": [3, 3]}, 2),
        ({"pads": [2, 2, 2, 2], "dilations": [2, 2]}, 3),
        ({"pads": [0, 1, 2, 1]}, 2),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_convolution(attributes, size, bias):
    before, after, ops = run(attributes, size, bias=bias)
    assert ops == ["Flatten", "Gemm", "Reshape"]
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


def test_one_dimension():
    before, after, ops = run({"pads": [1, 1]}, 3, rank=1)
    assert "Gemm" in ops
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("attributes", "size", "choices"),
    [
        ({"pads": [1, 1, 1, 1]}, 4, {}),
        ({"pads": [1, 1, 1, 1]}, 2, {"group": 2}),
        ({}, 2, {"kernel": 1}),
    ],
)
def test_larger_maps_and_groups_stay(attributes, size, choices):
    before, after, ops = run(attributes, size, **choices)
    assert ops == ["Conv"]
    np.testing.assert_array_equal(after, before)
