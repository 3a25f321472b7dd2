"""Shapes that transformers take: which groups they have, and that all of them cut."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.model.cost import CostModel
from onnxprune.model.view import build_view
from onnxprune.runtime.trace import trace
from onnxprune.sensitivity.gradient.backward import differentiate
from onnxprune.sensitivity.gradient.tape import Tape
from tests.coupling.nets import Net, cuts_hold, feeds, look

_HEADS, _DIM, _WIDTH = 4, 6, 16


def _tokens(net, width=_WIDTH, name="embed"):
    """A stream of tokens whose width is free."""
    return net.linear(net.input("n", "t", 5), 5, width, name=name)


def _out(net, x, width=_WIDTH):
    net.output(net.linear(x, width, 3, name="out"))
    return net


def _heads(net, x, heads=_HEADS, dim=_DIM, name=""):
    """(n, t, heads * dim) to (n, heads, t, dim)."""
    return net.op("Transpose", net.reshape(x, 0, 0, heads, dim), perm=[0, 2, 1, 3], name=name)


def _attend(net, q, k, v, heads=_HEADS, dim=_DIM):
    """Scores, softmax and the mix of values, back to (n, t, heads * dim)."""
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores")
    scores = net.op("Softmax", net.op("Div", scores, net.constant(2.5)), axis=-1, name="weights")
    mixed = net.op("Transpose", net.op("MatMul", scores, v, name="mix"), perm=[0, 2, 1, 3])
    return net.reshape(mixed, 0, 0, heads * dim)


def _layer_norm(net, x, width=_WIDTH, name=""):
    return net.op("LayerNormalization", x, net.weight(width), net.weight(width), name=name)


def _sizes(looked):
    return sorted((kind, size) for _, kind, size in looked.found)


def test_attention_with_three_projections():
    net = Net()
    x = _tokens(net)
    y = _layer_norm(net, x, name="ln")
    q, k, v = (_heads(net, net.linear(y, 16, 24, name=n)) for n in "qkv")
    y = net.linear(_attend(net, q, k, v), 24, 16, name="o")
    looked = cuts_hold(_out(net, _layer_norm(net, net.op("Add", x, y))))
    assert _sizes(looked) == [("head", 4), ("head_dim", 24), ("head_dim", 24), ("stream", 16)]
    stream = looked.group("embed")
    assert not stream.exact
    assert set(stream.nodes) >= {"embed", "o"}
    assert all(g.exact for g in looked.coupling.groups if g is not stream)
    head = next(g for g in looked.coupling.groups if g.kind == "head")
    assert {"q", "k", "v"} <= set(head.nodes)
    places = {m.axis.value: m.positions[1].tolist() for m in head.members}
    assert places["q"] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize("way", ["gather", "split"])
def test_attention_with_one_packed_projection(way):
    net = Net()
    x = _tokens(net)
    qkv = net.reshape(net.linear(x, 16, 72, name="qkv"), 0, -1, 3, _HEADS, _DIM)
    qkv = net.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    if way == "gather":
        q, k, v = (net.op("Gather", qkv, net.constant(i), axis=0) for i in range(3))
    else:
        parts = net.op("Split", qkv, net.constant([1, 1, 1]), axis=0, outs=3)
        q, k, v = (net.op("Squeeze", part, net.constant([0])) for part in parts)
    y = net.linear(_attend(net, q, k, v), 24, 16, name="o")
    looked = cuts_hold(_out(net, net.op("Add", x, y)))
    # One axis holds the dims of q, k and v alike: they go together, of each head its own.
    assert _sizes(looked) == [("head", 4), ("head_dim", 24), ("stream", 16)]
    dims = next(g for g in looked.coupling.groups if g.kind == "head_dim")
    assert dims.step == 4
    assert dims.members[0].positions[7].tolist() == [7, 31, 55]


def test_attention_split_from_one_projection():
    """As GPT-2 does it: split first, then heads."""
    net = Net()
    x = _tokens(net)
    qkv = net.op("Gemm", net.reshape(x, -1, 16), net.weight(16, 72), net.weight(72), name="qkv")
    parts = net.op("Split", net.reshape(qkv, 1, -1, 72), net.constant([24] * 3), axis=2, outs=3)
    q, k, v = (_heads(net, part) for part in parts)
    y = net.linear(_attend(net, q, k, v), 24, 16, name="o")
    looked = cuts_hold(_out(net, y))
    assert {("head", 4), ("head_dim", 24)} <= set(_sizes(looked))


def test_grouped_queries():
    net = Net()
    x = _tokens(net)
    q = _heads(net, net.linear(x, 16, 24, name="q"))
    repeated = []
    for name in "kv":
        few = _heads(net, net.linear(x, 16, 12, name=name), heads=2)
        few = net.op("Unsqueeze", few, net.constant([2]))
        few = net.op("Expand", few, net.constant([1, 1, 2, 1, 1]))
        repeated.append(net.reshape(few, 0, 4, -1, _DIM))
    y = net.linear(_attend(net, q, *repeated), 24, 16, name="o")
    looked = cuts_hold(_out(net, net.op("Add", x, y)))
    heads = [g for g in looked.coupling.groups if {"q", "k", "v"} <= set(g.nodes)]
    assert next(g.size for g in heads if g.kind == "head") == 2
    places = {m.axis.value: m.positions.shape for m in heads[0].members}
    assert places["q"] == (2, 12)
    assert places["k"] == (2, 6)


def test_attention_mask_per_head():
    net = Net()
    x = _tokens(net)
    q, k, v = (_heads(net, net.linear(x, 16, 24, name=n)) for n in "qkv")
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = net.op("Add", scores, net.weight(4, 1, 1, name="bias"))
    mask = net.input("n", 1, 1, "t", name="mask", kind=TensorProto.BOOL)
    scores = net.op("Where", mask, scores, net.constant(-1e9))
    y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, 24)
    looked = cuts_hold(_out(net, net.linear(y, 24, 16)))
    assert looked.free("bias", 0)


@pytest.mark.parametrize("split", [True, False])
def test_swiglu(split):
    net = Net()
    x = _tokens(net)
    if split:
        packed = net.linear(x, 16, 24, name="gate_up")
        gate, up = net.op("Split", packed, net.constant([12, 12]), axis=-1, outs=2)
    else:
        gate, up = net.linear(x, 16, 12, name="gate"), net.linear(x, 16, 12, name="up")
    y = net.op("Mul", net.op("Mul", gate, net.op("Sigmoid", gate)), up)
    looked = cuts_hold(_out(net, net.op("Add", x, net.linear(y, 12, 16, name="down"))))
    assert {s for *_, s in looked.found} == {12, 16}
    assert len(looked.found) == 2
    if split:
        positions = {m.axis.value: m.positions for m in looked.group("gate_up").members}
        assert positions["gate_up"][0].tolist() == [0, 12]


def _rotate_half(net, x, cos, sin):
    ends = [(0, 4), (4, 2**31)]
    a, b = (
        net.op("Slice", x, net.constant([i]), net.constant([j]), net.constant([3])) for i, j in ends
    )
    turned = net.op("Concat", net.op("Neg", b), a, axis=-1)
    return net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))


def _rotate_pairs(net, x, cos, sin):
    pairs = net.reshape(x, 0, 0, 0, 4, 2)
    a, b = (net.op("Gather", pairs, net.constant(i), axis=-1) for i in range(2))
    first = net.op("Sub", net.op("Mul", a, cos), net.op("Mul", b, sin))
    second = net.op("Add", net.op("Mul", b, cos), net.op("Mul", a, sin))
    parts = [net.op("Unsqueeze", part, net.constant([-1])) for part in (first, second)]
    return net.reshape(net.op("Concat", *parts, axis=-1), 0, 0, 0, 8)


@pytest.mark.parametrize("rotate", [_rotate_half, _rotate_pairs])
def test_rotary_positions(rotate):
    net = Net()
    x = net.linear(net.input("n", 6, 5), 5, 16, name="embed")
    width = 8 if rotate is _rotate_half else 4
    angle = net.rng.standard_normal((6, width)).astype(np.float32)
    if rotate is _rotate_half:
        angle[:, 4:] = angle[:, :4]
    cos, sin = net.constant(np.cos(angle)), net.constant(np.sin(angle))
    q, k = (rotate(net, _heads(net, net.linear(x, 16, 32, name=n), dim=8), cos, sin) for n in "qk")
    v = _heads(net, net.linear(x, 16, 32, name="v"), dim=8)
    y = net.linear(_attend(net, q, k, v, dim=8), 32, 16, name="o")
    looked = cuts_hold(_out(net, net.op("Add", x, y)))
    pairs = next(
        g for g in looked.coupling.groups if g.kind == "head_dim" and {"q", "k"} <= set(g.nodes)
    )
    assert pairs.size == 4
    row = next(m.positions[0] for m in pairs.members if m.axis.value == "q")
    distance = 4 if rotate is _rotate_half else 1
    assert row.tolist() == sorted(h * 8 + d for h in range(4) for d in (0, distance))


def test_embedding_tied_with_the_head():
    net = Net()
    table = net.weight(10, 16, name="table")
    ids = net.input("n", "t", name="ids", kind=TensorProto.INT64)
    x = net.op("Gather", table, ids, name="embed")
    y = net.op("Relu", net.linear(x, 16, 12, name="up"))
    x = net.op("Add", x, net.linear(y, 12, 16, name="down"))
    net.output(net.op("MatMul", x, net.op("Transpose", table, perm=[1, 0]), name="head"))
    looked = cuts_hold(net)
    assert looked.found == {("embed", "stream", 16), ("up", "neuron", 12)}
    assert looked.why("table", 0) == "graph output"


def test_positions_are_no_channels():
    net = Net()
    x = net.op("Add", net.linear(net.input("n", 6, 5), 5, 8, name="embed"), net.weight(6, 8))
    looked = cuts_hold(_out(net, x, 8))
    assert {(n, s) for n, _, s in looked.found} == {("embed", 8)}


def test_class_token():
    net = Net()
    x = net.linear(net.input(2, 6, 5), 5, 8, name="embed")
    token = net.op("Expand", net.weight(1, 1, 8), net.constant([2, 1, 8]))
    x = net.op("Add", net.op("Concat", token, x, axis=1), net.weight(1, 7, 8))
    x = net.op("Gather", _layer_norm(net, x, 8), net.constant(0), axis=1)
    looked = cuts_hold(_out(net, x, 8))
    assert {(n, s) for n, _, s in looked.found} == {("embed", 8)}


def _spelled_layer_norm(net, x):
    d = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    v = net.op("ReduceMean", net.op("Pow", d, net.constant(2.0)), axes=[-1])
    s = net.op("Sqrt", net.op("Add", v, net.constant(1e-5)))
    return net.op("Add", net.op("Mul", net.op("Div", d, s), net.weight(16)), net.weight(16))


def _spelled_rms_norm(net, x):
    v = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
    s = net.op("Reciprocal", net.op("Sqrt", net.op("Add", v, net.constant(1e-5))))
    return net.op("Mul", net.op("Mul", x, s), net.weight(16))


@pytest.mark.parametrize("norm", [_spelled_layer_norm, _spelled_rms_norm])
def test_norm_written_out(norm):
    net = Net(17)
    x = _tokens(net)
    y = net.op("Relu", net.linear(norm(net, x), 16, 12, name="up"))
    looked = cuts_hold(_out(net, norm(net, net.op("Add", x, net.linear(y, 12, 16)))))
    assert {(n, s) for n, _, s in looked.found} == {("embed", 16), ("up", 12)}
    assert looked.group("embed").exact == (norm is _spelled_rms_norm)
    assert looked.group("up").exact


def _gelu(net, x):
    e = net.op("Erf", net.op("Div", x, net.constant(1.4142135)))
    return net.op("Mul", net.op("Mul", x, net.op("Add", e, net.constant(1.0))), net.constant(0.5))


def _silu(net, x):
    return net.op("Mul", x, net.op("Sigmoid", x))


@pytest.mark.parametrize("activation", [_gelu, _silu])
def test_activation_written_out(activation):
    net = Net()
    x = net.op("Add", net.linear(_tokens(net), 16, 12, name="up"), net.weight(12, name="bias"))
    looked = cuts_hold(_out(net, activation(net, x), 12))
    assert {(n, s) for n, _, s in looked.found} == {("embed", 16), ("up", 12)}
    assert looked.free("bias", 0)


def test_softmax_over_channels_freezes_them():
    net = Net()
    x = net.op("Softmax", net.linear(net.input("n", 5), 5, 8, name="a"), axis=-1)
    looked = look(_out(net, x, 8))
    assert not looked.found
    assert looked.why("a", 1) == "Softmax over this axis"


def _position_bias(folded):
    """Attention with a bias that a small network makes of relative positions, as in Swin V2."""
    net = Net()
    x = net.linear(net.input("n", 6, 5), 5, 16, name="embed")
    q, k, v = (_heads(net, net.linear(x, 16, 24, name=n)) for n in "qkv")
    scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
    if folded:  # by the exporter, up to the bias
        hidden = net.op("Add", net.weight(36, 10, name="folded"), net.weight(10), name="hidden")
    else:
        hidden = net.linear(net.weight(36, 2), 2, 10, name="hidden")
    bias = net.linear(net.op("Relu", hidden), 10, _HEADS, name="bias")
    bias = net.op("Reshape", net.op("Transpose", bias, perm=[1, 0]), net.constant([1, -1, 6, 6]))
    weights = net.op("Softmax", net.op("Add", scores, net.op("Sigmoid", bias)), axis=-1)
    mixed = net.op("Transpose", net.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = net.linear(net.reshape(mixed, 0, 0, 24), 24, 16, name="o")
    return _out(net, net.op("Add", x, y))


@pytest.mark.parametrize("folded", [False, True])
def test_layers_that_compute_a_constant(folded):
    looked = cuts_hold(_position_bias(folded))
    group = looked.group("hidden")
    assert (group.kind, group.size, group.exact) == ("neuron", 10, True)
    assert _cost(looked.cut([(group, [1, 2, 3, 4, 5])])).macs == _cost(looked.model).macs
    tape = Tape(looked.view, looked.traces[0], feeds(looked.model)[0])
    missing = differentiate(tape, looked.coupling, [group], ["out"]).missing
    assert "constant" in missing["hidden"]  # no derivative: the group is measured by removing


def _cost(model):
    view = build_view(model, Path())
    return CostModel(view, trace(view, feeds(model)[0])).total


def test_constants_that_are_only_moved_are_no_layers():
    """Two factors of one weight: their inner axis is no layer's, and nothing runs there."""
    net = Net()
    x = _tokens(net)
    weight = net.op(
        "MatMul", net.op("Transpose", net.weight(4, 16), perm=[1, 0]), net.weight(4, 16)
    )
    looked = cuts_hold(_out(net, net.op("Relu", net.op("MatMul", x, weight, name="up"))))
    assert {g.size for g in looked.coupling.groups} == {16}


def test_rotary_pairs_of_strided_slices():
    """All heads share one table, and lose the same pairs: each block keeps what the others keep."""
    net = Net()
    x = net.linear(net.input("n", 6, 5), 5, 16, name="embed")
    angle = np.repeat(net.rng.standard_normal((6, 4)).astype(np.float32), 2, axis=1)
    cos, sin = net.constant(np.cos(angle)), net.constant(np.sin(angle))

    def rotate(x):
        even, odd = (
            net.op("Slice", x, *(net.constant([i]) for i in (first, 2**31, 3, 2)))
            for first in (0, 1)
        )
        parts = [net.op("Unsqueeze", v, net.constant([-1])) for v in (net.op("Neg", odd), even)]
        turned = net.reshape(net.op("Concat", *parts, axis=-1), 0, 0, 0, 8)
        return net.op("Add", net.op("Mul", x, cos), net.op("Mul", turned, sin))

    q, k = (rotate(_heads(net, net.linear(x, 16, 32, name=n), dim=8)) for n in "qk")
    v = _heads(net, net.linear(x, 16, 32, name="v"), dim=8)
    looked = cuts_hold(
        _out(net, net.op("Add", x, net.linear(_attend(net, q, k, v, dim=8), 32, 16)))
    )
    pairs = next(g for g in looked.coupling.groups if g.kind == "head_dim" and "q" in g.nodes)
    assert pairs.size == 4
