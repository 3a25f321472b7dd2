"""Costs against figures counted by hand, and against models that were really cut."""

from math import prod

import numpy as np
import onnx
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.model.cost import Cost, CostModel, fractions
from onnxprune.model.view import build_view
from onnxprune.rewrite.cut import cut
from onnxprune.runtime.trace import trace
from tests import nets


def costs_of(net, y, shape, folder, **inputs):
    """Price a net whose input x has a shape."""
    model = net.model({"x": shape, **inputs}, y)
    view = build_view(model, folder)
    feed = {name: np.ones(s, np.float32) for name, s in {"x": shape, **inputs}.items()}
    return CostModel(view, trace(view, feed))


CONVOLUTIONS = {
    "plain": ("Conv", (8, 3, 3, 3), {"pads": [1] * 4}, 2 * 64 * 8 * 3 * 9),
    "strided": ("Conv", (8, 3, 3, 3), {"pads": [1] * 4, "strides": [2, 2]}, 2 * 16 * 8 * 3 * 9),
    "unpadded": ("Conv", (8, 3, 3, 3), {}, 2 * 36 * 8 * 3 * 9),
    "grouped": ("Conv", (9, 1, 3, 3), {"group": 3}, 2 * 36 * 9 * 1 * 9),
    "depthwise": ("Conv", (3, 1, 5, 5), {"group": 3, "pads": [2] * 4}, 2 * 64 * 3 * 25),
    "pointwise": ("Conv", (16, 3, 1, 1), {}, 2 * 64 * 16 * 3),
    "transposed": ("ConvTranspose", (3, 5, 2, 2), {"strides": [2, 2]}, 2 * 64 * 3 * 5 * 4),
    "transposed grouped": (
        "ConvTranspose",
        (3, 2, 2, 2),
        {"strides": [2, 2], "group": 3},
        2 * 64 * 3 * 2 * 4,
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(name, tmp_path):
    op, weight, attributes, macs = CONVOLUTIONS[name]
    net = nets.Net()
    y = net.op(op, "x", net.weight(*weight), **attributes)
    total = costs_of(net, y, (2, 3, 8, 8), tmp_path).total
    assert total == Cost(prod(weight), macs, 4 * prod(weight))


def test_one_dimensional_convolution(tmp_path):
    net = nets.Net()
    y = net.op("Conv", "x", net.weight(6, 4, 3), net.weight(6))
    assert costs_of(net, y, (1, 4, 10), tmp_path).total == Cost(6 * 4 * 3 + 6, 8 * 72, 4 * 78)


@pytest.mark.parametrize(
    ("attributes", "weight", "shape"),
    [
        ({}, (8, 5), (2, 8)),
        ({"transB": 1}, (5, 8), (2, 8)),
        ({"transA": 1}, (8, 5), (8, 2)),
        ({"transA": 1, "transB": 1}, (5, 8), (8, 2)),
    ],
    ids=str,
)
def test_gemm(attributes, weight, shape, tmp_path):
    net = nets.Net()
    y = net.op("Gemm", "x", net.weight(*weight), net.weight(5), **attributes)
    assert costs_of(net, y, shape, tmp_path).total == Cost(45, 2 * 8 * 5, 180)


@pytest.mark.parametrize(
    ("a", "b", "macs"),
    [
        ((4, 6), (6, 5), 4 * 6 * 5),
        ((2, 3, 4, 6), (6, 5), 6 * 4 * 6 * 5),
        ((2, 3, 4, 6), (2, 3, 6, 5), 6 * 4 * 6 * 5),
        ((2, 1, 4, 6), (3, 6, 5), 6 * 4 * 6 * 5),
        ((6,), (6, 5), 6 * 5),
        ((4, 6), (6,), 4 * 6),
        ((6,), (6,), 6),
    ],
    ids=str,
)
def test_matmul(a, b, macs, tmp_path):
    net = nets.Net()
    y = net.op("MatMul", "x", "z")
    assert costs_of(net, y, a, tmp_path, z=b).total == Cost(0, macs, 0)


@pytest.mark.parametrize(
    ("equation", "a", "b", "macs"),
    [
        ("ij,jk->ik", (2, 3), (3, 4), 24),
        ("b h i d, b h j d -> b h i j", (2, 3, 4, 5), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
        ("bij,kj", (2, 3, 4), (5, 4), 2 * 3 * 4 * 5),
        ("...ij,jk->...ik", (2, 3, 4), (4, 5), 2 * 3 * 4 * 5),
        ("b...i,...i->b...", (2, 3, 4), (1, 4), 2 * 3 * 4),
    ],
)
def test_einsum(equation, a, b, macs, tmp_path):
    net = nets.Net()
    y = net.op("Einsum", "x", "z", equation=equation)
    assert costs_of(net, y, a, tmp_path, z=b).total.macs == macs


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(op, gates, directions, tmp_path):
    net = nets.Net()
    w, r = net.weight(directions, gates * 7, 5), net.weight(directions, gates * 7, 7)
    direction = "bidirectional" if directions == 2 else "forward"
    y = net.op(op, "x", w, r, hidden_size=7, direction=direction)
    total = costs_of(net, y, (6, 2, 5), tmp_path).total
    assert total.macs == 6 * 2 * directions * gates * 7 * (5 + 7)
    assert total.params == directions * gates * 7 * (5 + 7)


@pytest.mark.parametrize(
    ("attributes", "a", "b", "macs"),
    [
        ({"transA": 1, "transB": 1}, (2, 4, 3), (5, 4), 2 * 3 * 4 * 5),
        ({"transBatchA": 1}, (4, 2, 3, 6), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
        ({"transBatchA": 1, "transA": 1}, (6, 2, 3, 4), (2, 3, 6, 5), 2 * 3 * 4 * 6 * 5),
    ],
    ids=str,
)
def test_fused_matmul(attributes, a, b, macs, tmp_path):
    net = nets.Net()
    y = net.op("FusedMatMul", "x", "z", domain="com.microsoft", **attributes)
    assert costs_of(net, y, a, tmp_path, z=b).total == Cost(0, macs, 0)


def test_fused_convolution_counts_as_the_plain_one(tmp_path):
    net = nets.Net()
    weights = net.weight(8, 3, 3, 3), net.weight(8)
    y = net.op("FusedConv", "x", *weights, activation="Relu", domain="com.microsoft")
    total = costs_of(net, y, (2, 3, 8, 8), tmp_path).total
    assert (total.params, total.macs) == (8 * 28, 2 * 36 * 8 * 3 * 9)


@pytest.mark.parametrize("packed", [True, False])
def test_attention_counts_projections_scores_and_mixing(packed, tmp_path):
    net, own = nets.Net(), {"num_heads": 3, "domain": "com.microsoft"}
    if packed:
        y = net.op("Attention", "x", net.weight(8, 36), net.weight(36), **own)
    else:
        rows = [net.op("MatMul", "x", net.weight(8, 12)) for _ in range(3)]
        y = net.op("MultiHeadAttention", *rows, **own)
    total = costs_of(net, y, (2, 5, 8), tmp_path).total
    assert total.macs == 2 * 5 * 8 * 36 + 2 * (2 * 5 * 5 * 12)


def test_shared_constants_count_once_but_work_counts_twice(tmp_path):
    net = nets.Net()
    w, b = net.weight(8, 8), net.weight(8)
    y = net.op("Gemm", net.op("Gemm", "x", w, b), w, b)
    assert costs_of(net, y, (1, 8), tmp_path).total == Cost(72, 128, 288)


def test_integers_are_bytes_but_no_parameters(tmp_path):
    net = nets.Net()
    y = net.op("Reshape", "x", net.const(np.array([2, 4])))
    assert costs_of(net, y, (1, 8), tmp_path).total == Cost(0, 0, 16)


def test_half_precision_counts_its_own_bytes(tmp_path):
    net = nets.Net()
    half = net.op("Cast", net.const(np.ones((8, 4), np.float16)), to=1)
    assert costs_of(net, net.op("MatMul", "x", half), (1, 8), tmp_path).total == Cost(32, 32, 64)


def test_price_and_saved_add_up_and_axes_multiply(tmp_path):
    net = nets.Net()
    y = net.op("MatMul", net.op("MatMul", "x", net.weight(8, 6)), net.weight(6, 4))
    costs = costs_of(net, y, (1, 8), tmp_path)
    half = {Axis("w0", 1): 0.5, Axis("w1", 0): 0.5, Axis("v0", 1): 0.5}
    assert costs.saved(half) == Cost(36, 36, 144)
    assert costs.price(half) == Cost(36, 36, 144)
    both = costs.saved({Axis("w0", 0): 0.5, Axis("w0", 1): 0.5})
    assert both.params == 48 * 0.75
    assert costs.saved({}) == Cost(0, 0, 0)
    assert costs.saved({Axis("unknown", 3): 0.1}) == Cost(0, 0, 0)


def test_touched_terms(tmp_path):
    net = nets.Net()
    y = net.op("MatMul", net.op("MatMul", "x", net.weight(8, 6)), net.weight(6, 4))
    costs = costs_of(net, y, (1, 8), tmp_path)
    touched = [costs.terms[i].node for i in sorted(costs.touched({Axis("v0", 1): 0}))]
    assert touched == ["MatMul_0", "MatMul_1"]


def test_fractions():
    masks = {Axis("a", 0): np.array([True, False, False, True])}
    assert fractions(masks) == {Axis("a", 0): 0.5}


@pytest.mark.parametrize("name", nets.DATA)
def test_saving_of_every_group_is_that_of_the_cut_model(name):
    found = nets.digits(name)
    assert_savings(found)


@pytest.mark.parametrize(
    "make", [nets.residual, nets.concat, nets.heads, nets.normed, nets.averaged, nets.branching]
)
def test_saving_of_every_group_of_small_nets(make, tmp_path):
    assert_savings(nets.look(make(), tmp_path))


def assert_savings(found):
    assert found.coupling.groups
    for group in found.coupling.groups:
        keeps = keep_masks([(group, range(0, group.size, 2))], found.coupling.collected.sizes)
        model = cut(found.view, found.coupling, found.traces, keeps)
        after, price = nets.retraced(found, model), found.costs.price(fractions(keeps))
        assert after.macs == pytest.approx(price.macs, rel=1e-12), group.name
        assert after.params == pytest.approx(price.params, rel=1e-12), group.name
        assert after.macs < found.costs.total.macs


def test_the_projects_models_cost_what_their_table_says():
    table = (nets.MODELS / "README.md").read_text("utf-8")
    for name in nets.DATA:
        total = nets.digits(name).costs.total
        (line,) = [r for r in table.splitlines() if f"| `{name}.onnx` | `{nets.DATA[name]}" in r]
        params, macs = (int(c.strip().replace(",", "")) for c in line.split("|")[-3:-1])
        assert (total.params, total.macs) == (params, macs), name


def test_parameters_are_the_floats_of_the_file():
    for name in ("digits_resnet_bn", "digits_vit"):
        proto = onnx.load(nets.MODELS / f"{name}.onnx")
        tensors = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer]
        tensors += [
            onnx.numpy_helper.to_array(n.attribute[0].t)
            for n in proto.graph.node
            if n.op_type == "Constant" and n.attribute[0].name == "value"
        ]
        floats = sum(t.size for t in tensors if t.dtype.kind == "f")
        assert nets.digits(name).costs.total.params == floats
