"""Weights beside a model: the same session, whatever they are and whoever reads them."""

import gc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.runtime.session import Session
from onnxprune.runtime.weights import apart

ROWS = np.random.default_rng(0).standard_normal((3, 256)).astype(np.float32)


def weight(kind=np.float32, name="w"):
    values = np.random.default_rng(1).integers(-9, 9, (256, 256)).astype(kind)
    return numpy_helper.from_array(values, name)


def model(nodes, weights, inputs=(), outputs=("y",)):
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 256])
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "net", [given, *inputs], made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def product(name="w"):
    return helper.make_node("MatMul", ["x", name], ["y"])


def same(net, feeds=None, outputs=("y",)):
    feeds = {"x": ROWS, **(feeds or {})}
    ours, theirs = Session(net), Session(net.SerializeToString())
    gc.collect()
    for name in outputs:
        np.testing.assert_array_equal(ours.run(feeds)[name], theirs.run(feeds)[name])


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, np.int8, np.uint8, np.int64])
def test_a_session_finds_weights_of_every_kind(kind):
    cast = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
    net = model([cast, product("c")], [weight(kind)])
    light, beside = apart(net)
    assert list(beside) == ["w"]
    assert light.ByteSize() < 1000 < net.ByteSize()
    same(net)


def test_what_numpy_does_not_have_stays_in_the_model():
    half = helper.make_tensor("w", TensorProto.BFLOAT16, [256, 256], np.ones(256 * 256), raw=False)
    cast = helper.make_node("Cast", ["w"], ["c"], to=TensorProto.FLOAT)
    net = model([cast, product("c")], [half])
    assert not apart(net)[1]
    same(net)


def test_small_ones_stay_in_the_model():
    small = numpy_helper.from_array(np.ones(256, np.float32), "w")
    assert not apart(model([product()], [small]))[1]


def test_what_nothing_reads_is_no_error():
    same(model([product()], [weight(), weight(name="idle")]))


def test_a_weight_may_be_an_output_or_be_read_in_a_body_only():
    net = model([product()], [weight()], outputs=("y", "w"))
    same(net, outputs=("y", "w"))
    yes = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
    inner = helper.make_graph([product()], "then", [], [onnx.ValueInfoProto(name="y")])
    branches = {"then_branch": inner, "else_branch": inner}
    choice = helper.make_node("If", ["yes"], ["out"], **branches)
    same(model([yes, choice], [weight()], outputs=("out",)), outputs=("out",))


def test_a_weight_that_may_be_fed_is_fed():
    given = helper.make_tensor_value_info("w", TensorProto.FLOAT, [256, 256])
    net = model([product()], [weight()], [given])
    same(net)
    same(net, {"w": np.eye(256, dtype=np.float32)})


def test_the_model_stays_as_it_is():
    net = model([product()], [weight()])
    before = net.SerializeToString(deterministic=True)
    apart(net)
    assert net.SerializeToString(deterministic=True) == before
