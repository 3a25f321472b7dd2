"""Which heads may be turned: found however attention is written, left where dims are treated."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.layers.attention import find_pairs
from onnxprune.layers.heads import Turned
from onnxprune.layers.readers import dense_sites
from onnxprune.recovery.heads import _any as any_bases
from onnxprune.recovery.heads import proven
from tests import nets

WIDTH, HEADS, DIMS, PLACES = 12, 3, 4, 5


def split(net, value, heads=HEADS, *, transposed=False):
    """Bring (N, T, heads * dims) to (N, heads, T, dims), or (N, heads, dims, T)."""
    shaped = net.op("Reshape", value, net.const(np.array([0, 0, heads, DIMS])))
    return net.op("Transpose", shaped, perm=[0, 2, 3, 1] if transposed else [0, 2, 1, 3])


def joined(net, value, heads=HEADS):
    moved = net.op("Transpose", value, perm=[0, 2, 1, 3])
    return net.op("Reshape", moved, net.const(np.array([0, 0, heads * DIMS])))


def product(net, queries, keys, values):
    """Attend over heads that are apart; keys transposed already."""
    scores = net.op("Mul", net.op("MatMul", queries, keys), net.const(np.float32(DIMS**-0.5)))
    return net.op("MatMul", net.op("Softmax", scores, axis=-1), values)


def separate(net, *, bias=True):
    """Queries, keys and values by layers of their own."""

    def layer():
        made = net.op("MatMul", "x", net.weight(WIDTH, WIDTH))
        return net.op("Add", made, net.weight(WIDTH)) if bias else made

    q, k, v = layer(), layer(), layer()
    return joined(net, product(net, split(net, q), split(net, k, transposed=True), split(net, v)))


def bare(net):
    return separate(net, bias=False)


def packed(net):
    """One layer makes all three, as timm writes it."""
    made = net.op("Reshape", net.linear("x", WIDTH, 3 * WIDTH), net.const([0, 0, 3, HEADS, DIMS]))
    moved = net.op("Transpose", made, perm=[2, 0, 3, 1, 4])
    q, k, v = (net.op("Gather", moved, net.const(np.array(n)), axis=0) for n in range(3))
    return joined(net, product(net, q, net.op("Transpose", k, perm=[0, 1, 3, 2]), v))


def scaled(net):
    """Queries and keys each multiplied by a number, and split with Split."""
    parts = net.ops(3, "Split", net.linear("x", WIDTH, 3 * WIDTH), axis=2)
    half = net.const(np.float32(DIMS**-0.25))
    q, k = net.op("Mul", split(net, parts[0]), half), split(net, parts[1], transposed=True)
    return joined(net, product(net, q, net.op("Div", k, half), split(net, parts[2])))


def operator(net):
    q, k, v = (net.linear("x", WIDTH, WIDTH) for _ in range(3))
    return net.op("MultiHeadAttention", q, k, v, num_heads=HEADS, domain="com.microsoft")


def standard(net):
    net.opset = 23
    q, k, v = (net.linear("x", WIDTH, WIDTH) for _ in range(3))
    return net.op("Attention", q, k, v, q_num_heads=HEADS, kv_num_heads=HEADS)


def rotary(net):
    """Each dim of queries and keys is multiplied by a number of its own and of its place."""
    q, k, v = (split(net, net.linear("x", WIDTH, WIDTH)) for _ in range(3))
    angles = np.arange(PLACES)[:, None] / 10.0 ** np.arange(DIMS // 2)
    cos, sin = (net.const(np.tile(f(angles), 2).astype(np.float32)) for f in (np.cos, np.sin))

    def turn(value):
        left, right = net.ops(2, "Split", value, axis=3)
        other = net.op("Concat", net.op("Neg", right), left, axis=3)
        return net.op("Add", net.op("Mul", value, cos), net.op("Mul", other, sin))

    keys = net.op("Transpose", turn(k), perm=[0, 1, 3, 2])
    return joined(net, product(net, turn(q), keys, v))


def normed(net):
    """Queries go through a normalization of each head, and values through an activation."""
    q, k, v = (net.linear("x", WIDTH, WIDTH) for _ in range(3))
    ones = net.const(np.linspace(0.5, 2, DIMS).astype(np.float32))
    q = net.op("LayerNormalization", split(net, q), ones, axis=-1)
    keys = split(net, k, transposed=True)
    return joined(net, product(net, q, keys, net.op("Relu", split(net, v))))


def weighed(net):
    """Each dim of queries and of what attention makes is scaled by itself."""
    q, k, v = (net.linear("x", WIDTH, WIDTH) for _ in range(3))
    scale = net.const(np.linspace(0.5, 2, DIMS).astype(np.float32))
    q = net.op("Mul", split(net, q), scale)
    made = product(net, q, split(net, k, transposed=True), split(net, v))
    return joined(net, net.op("Mul", made, scale))


def shared(net):
    """One head of keys and values serves three of queries."""
    q = split(net, net.linear("x", WIDTH, WIDTH))
    k = split(net, net.linear("x", WIDTH, DIMS), 1, transposed=True)
    v = split(net, net.linear("x", WIDTH, DIMS), 1)
    return joined(net, product(net, q, k, v))


def expanded(net):
    """Two heads of keys and values serve two of queries each, written as transformers does."""

    def repeated(value):
        shaped = net.op("Unsqueeze", split(net, value, 2), net.const(np.array([2])))
        wide = net.op("Expand", shaped, net.const(np.array([1, 1, 2, 1, 1])))
        return net.op("Reshape", wide, net.const(np.array([0, 4, -1, DIMS])))

    q, k, v = (net.linear("x", WIDTH, heads * DIMS) for heads in (4, 2, 2))
    keys = net.op("Transpose", repeated(k), perm=[0, 1, 3, 2])
    return fitted(net, joined(net, product(net, split(net, q, 4), keys, repeated(v)), 4))


def grouped(net):
    """The same as one operator."""
    net.opset = 23
    q, k, v = (net.linear("x", WIDTH, heads * DIMS) for heads in (4, 2, 2))
    return fitted(net, net.op("Attention", q, k, v, q_num_heads=4, kv_num_heads=2))


def fitted(net, value):
    """Let one layer read four heads, and give as many numbers as the other attentions do."""
    return net.linear(value, 4 * DIMS, WIDTH)


def twice(net):
    """Queries are keys as well, and values are what the sum goes on with."""
    q, v = net.linear("x", WIDTH, WIDTH), net.linear("x", WIDTH, WIDTH)
    made = product(net, split(net, q), split(net, q, transposed=True), split(net, v))
    return net.op("Add", joined(net, made), v)


def look(attention, folder, samples=16):
    net = nets.Net(4)
    hidden = net.op("Tanh", net.linear(attention(net), WIDTH, WIDTH))
    model = net.model({"x": ("N", PLACES, WIDTH)}, net.linear(hidden, WIDTH, 3))
    return nets.look(model, folder, samples=samples)


def halved(attention):
    """Return the network with its numbers in half precision."""
    net = nets.Net(4)
    out = net.linear(net.op("Tanh", net.linear(attention(net), WIDTH, WIDTH)), WIDTH, 3)
    half = TensorProto.FLOAT16
    model = net.model({"x": ("N", PLACES, WIDTH)}, out, types={"x": half, out: half})
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    return model


def pairs_of(found):
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    return find_pairs(found.view, found.traces[0], sites, found.probes[0])


@pytest.mark.parametrize("attention", [separate, bare, packed, scaled, operator, standard])
def test_heads_are_found_however_they_are_written(attention, tmp_path):
    found = look(attention, tmp_path)
    pairs = pairs_of(found)
    assert sorted(pair.read for pair in pairs) == [False, True]
    assert all(pair.ours.shape == pair.theirs.shape == (HEADS, DIMS) for pair in pairs)
    assert proven(found, [Turned(pair, any_bases(pair)) for pair in pairs])


@pytest.mark.parametrize(
    ("attention", "heads", "apart"), [(shared, 3, 1), (expanded, 4, 2), (grouped, 4, 2)]
)
def test_heads_that_share_keys_and_values_are_turned_alike(attention, heads, apart, tmp_path):
    found = look(attention, tmp_path)
    pairs = pairs_of(found)
    assert sorted(pair.read for pair in pairs) == [False, True]
    assert proven(found, [Turned(pair, any_bases(pair)) for pair in pairs])
    for pair in pairs:
        assert pair.ours.shape == pair.theirs.shape == (heads, DIMS)
        assert len(np.unique(pair.shared)) == apart
        first, *others = any_bases(pair)
        own = replace(first, ours=first.ours[::-1], theirs=first.theirs[::-1])
        assert not proven(found, [Turned(pair, (own, *others))]), "one has a basis of its own"


def test_what_rounds_to_halves_is_proven_on_its_clone(tmp_path):
    found = nets.look(halved(packed), tmp_path)
    pairs = pairs_of(found)
    assert len(pairs) == 2
    assert proven(found, [Turned(pair, any_bases(pair)) for pair in pairs])


@pytest.mark.parametrize("attention", [normed, weighed, twice])
def test_heads_whose_dims_are_treated_are_left(attention, tmp_path):
    assert pairs_of(look(attention, tmp_path)) == []


def test_rotated_queries_are_left_and_values_are_not(tmp_path):
    assert [pair.read for pair in pairs_of(look(rotary, tmp_path))] == [True]


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_wrong_pairing_is_no_proof(side, tmp_path):
    found = look(packed, tmp_path)
    for pair in pairs_of(found):
        right, places = any_bases(pair), getattr(pair, side)
        wrong = type(pair)(**{**vars(pair), side: np.roll(places, 1, axis=0)})
        assert proven(found, [Turned(pair, right)])
        assert not proven(found, [Turned(wrong, right)])
