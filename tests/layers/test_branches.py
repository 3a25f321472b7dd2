"""Residual branches: which count as such, and what is left when they go."""

import numpy as np
import onnx
import pytest
from onnx import parser

from onnxprune.analysis import analyse, shorten
from onnxprune.layers.branches import dead_nodes, find_branches, stand_ins, without
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.runtime.session import Session, with_outputs
from tests import nets

WEIGHT = ", ".join(["0.1"] * 64)


def branches_of(found):
    return find_branches(found.view, found.traces[0], found.coupling)


def lone(text):
    """Find the branches of a small graph that maps x[N,8] to y[N,8]."""
    body = f"""<ir_version: 8, opset_import: ["" : 17]>
    g (float[N,8] x) => (float[N,8] y) {{
        w = Constant<value = float[8,8] {{{WEIGHT}}}>()
        {text} }}"""
    found = analyse(parser.parse_model(body), Options(), Silent())
    return [branch.value for branch in branches_of(found)]


def test_the_blocks_of_a_residual_net_are_found():
    found = nets.digits("digits_resnet", samples=8)
    values = [branch.value for branch in branches_of(found)]
    # Those with a projection on the skip cannot go: nothing of the stream would be left.
    assert values == [f"/{n}/second/second.0/Conv_output_0" for n in (2, 3, 5)]
    assert {branch.axis for branch in branches_of(found)} == {1}


def test_attention_and_mlp_of_a_transformer_are_found():
    found = nets.digits("digits_vit", samples=8)
    assert len(branches_of(found)) == 6  # three layers of two
    assert {(branch.axis, branch.rank) for branch in branches_of(found)} == {(2, 3)}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a = MatMul(x, w) y = Add(x, a)", ["a"]),
        ("a = MatMul(x, w) y = Add(a, x)", ["a"]),
        ("a = MatMul(x, w) b = Neg(x) y = Add(a, b)", []),  # side by side
        ("a = MatMul(x, w) b = Relu(a) c = Add(x, a) y = Add(c, b)", []),  # read elsewhere
        ("a = MatMul(x, w) y = Mul(x, a)", []),
        ("a = MatMul(x, w) y = Add(a, a)", []),
        ("b = ReduceSum<keepdims = 1>(x) y = Add(x, b)", []),  # of another shape
    ],
)
def test_what_is_a_branch(text, values):
    assert lone(text) == values


def test_a_shorter_model_computes_with_the_mean():
    found = nets.digits("digits_resnet", samples=16)
    feeds = list(found.samples.feeds(range(16), 8))
    first = branches_of(found)[0]
    (one,) = stand_ins(found.view, [first], feeds)
    assert one.held.shape == (16,)
    shorter = without(found.view.model, [one])
    onnx.checker.check_model(shorter, full_check=True)
    names = list(found.view.outputs)
    shape = Session(with_outputs(found.view.real, [first.value])).run(feeds[0])[first.value].shape
    mean = np.broadcast_to(one.held.reshape(1, -1, 1, 1), shape).astype(np.float32)
    fed = Session(with_outputs(found.view.real, names, {first.value: mean}))
    (wanted,) = fed.run({first.value: mean, **feeds[0]}).values()
    (given,) = Session(shorter).run(feeds[0]).values()
    np.testing.assert_allclose(given, wanted, rtol=1e-5, atol=1e-5)


def test_nothing_of_a_branch_is_left():
    found = nets.digits("digits_resnet", samples=16)
    feeds = list(found.samples.feeds(range(16), 8))
    gone = stand_ins(found.view, branches_of(found)[:2], feeds)
    shorter = shorten(found, gone, change_interface=False)
    dead = dead_nodes(found.view, shorter.view.model)
    assert [node.op_type for node in dead] == ["Conv", "Relu", "Conv"] * 2
    read = {name for node in shorter.view.model.graph.node for name in node.input}
    assert {t.name for t in shorter.view.model.graph.initializer} <= read
    assert shorter.costs.total.macs < found.costs.total.macs
    assert shorter.original is found
    assert shorten(found, [], change_interface=False) is found
