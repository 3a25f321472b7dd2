"""Which nodes compute with shapes rather than with data."""

import numpy as np
from onnx import TensorProto

from onnxprune.model.derived import constant_values, derived_nodes
from onnxprune.model.view import build_view
from onnxprune.runtime.trace import trace
from tests import nets


def derived(net, folder, *outputs, types=None, shape=(2, 3, 6, 6)):
    model = net.model({"x": shape}, *outputs, types=types)
    view = build_view(model, folder)
    nodes = derived_nodes(view, trace(view, {"x": np.ones(shape, np.float32)}))
    return {view.by_index[i].op_type for i in nodes}


def test_shape_arithmetic_is_derived_up_to_the_reshape(tmp_path):
    net = nets.Net()
    batch = net.op("Gather", net.op("Shape", "x"), net.const(np.array([0])))
    target = net.op("Concat", batch, net.const(np.array([-1])), axis=0)
    y = net.op("Reshape", net.op("Relu", "x"), target)
    assert derived(net, tmp_path, y) == {"Shape", "Gather", "Concat"}


def test_a_single_float_made_of_a_shape_is_a_number(tmp_path):
    """1 / sqrt(d), as exports write it."""
    net = nets.Net()
    d = net.op("Gather", net.op("Shape", "x"), net.const(np.asarray(3)))
    root = net.op("Sqrt", net.op("Cast", d, to=TensorProto.FLOAT))
    y = net.op("Div", "x", root)
    assert derived(net, tmp_path, y) == {"Shape", "Gather", "Cast", "Sqrt"}


def test_size_is_derived_and_data_is_not(tmp_path):
    net = nets.Net()
    count = net.op("Size", "x")
    small = net.op("ReduceSum", "x", keepdims=0)
    y = net.op("Div", small, net.op("Cast", count, to=TensorProto.FLOAT))
    assert derived(net, tmp_path, y) == {"Size", "Cast"}


def test_float_vectors_made_of_shapes_are_activations(tmp_path):
    """Position tables have channels."""
    net = nets.Net()
    size = net.op("Cast", net.op("Shape", "x"), to=TensorProto.FLOAT)
    table = net.op("Mul", size, net.const(np.ones(4, np.float32)))
    y = net.op("Add", net.op("ReduceMean", "x", keepdims=0), table)
    assert derived(net, tmp_path, y) == {"Shape"}


def test_integer_arithmetic_on_constants_is_derived_float_weights_are_not(tmp_path):
    net = nets.Net()
    pads = net.op("Concat", net.const(np.array([0, 0, 1, 1])), net.const(np.zeros(4, int)), axis=0)
    weight = net.op("Transpose", net.weight(6, 4), perm=[1, 0])
    y = net.op("MatMul", net.op("Pad", "x", pads), weight)
    assert derived(net, tmp_path, y, shape=(2, 3, 6, 3)) == {"Concat"}


def test_integers_of_three_axes_are_data(tmp_path):
    """Token ids or masks, not a list of sizes."""
    net = nets.Net()
    block = net.op("Reshape", net.op("Shape", "x"), net.const(np.array([2, 1, 2])))
    y = net.op("ReduceSum", net.op("Cast", block, to=TensorProto.FLOAT), keepdims=0)
    assert derived(net, tmp_path, y) == {"Shape"}


def test_large_integer_tables_are_data(tmp_path):
    net = nets.Net()
    shape = net.op("Concat", net.op("Shape", "x"), net.const(np.array([4])), axis=0)
    wide = net.op("ConstantOfShape", shape)  # 2 x 3 x 6 x 6 x 4 floats
    y = net.op("Add", wide, net.const(np.float32(1)))
    assert derived(net, tmp_path, y) == {"Shape", "Concat"}


def test_bodies_are_never_derived(tmp_path):
    model = nets.branching()
    view = build_view(model, tmp_path)
    nodes = derived_nodes(view, trace(view, {"x": np.ones((1, 5, 12), np.float32)}))
    (branch,) = (node for node in view.nodes if node.op_type == "If")
    assert branch.index not in nodes


def test_constant_values_follow_constants_only(tmp_path):
    net = nets.Net()
    w = net.weight(4, 4)
    turned = net.op("Transpose", w, perm=[1, 0])
    cast = net.op("Cast", turned, to=TensorProto.FLOAT)
    y = net.op("MatMul", "x", cast)
    chance = net.op("RandomNormal", shape=[4])
    z = net.op("Add", y, chance)
    view = build_view(net.model({"x": (2, 4)}, z), tmp_path)
    assert constant_values(view) == {w, turned, cast}, "what has no input is not constant"
