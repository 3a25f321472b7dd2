"""What onnxruntime's optimizers and the newest opsets make of networks: all of it can be cut."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.coupling.nets import Net, cuts_hold, look

_MS = "com.microsoft"
_WIDTH = 16


def _sizes(looked):
    return sorted((kind, size) for _, kind, size in looked.found)


def _vector(net, size=_WIDTH):
    return net.weight(size)


def _words(net):
    """Token ids, as int32."""
    return net.op("Cast", net.input("n", "t", kind=TensorProto.INT64), to=TensorProto.INT32)


def _bert_layer(net, x, attend):
    """Attention and a feed-forward block as onnxruntime's BERT optimizer writes them."""

    def skip(y):
        vectors = [_vector(net) for _ in range(3)]
        return net.op("SkipLayerNormalization", y, x, *vectors, domain=_MS)

    x = skip(net.linear(attend(x), 24, _WIDTH, name="o"))
    y = net.op("BiasGelu", net.linear(x, _WIDTH, 20, name="up"), net.weight(20), domain=_MS)
    return skip(net.linear(y, 20, _WIDTH, name="down"))


def _packed(net):
    def attend(x):
        weights = net.weight(_WIDTH, 72), net.weight(72)
        return net.op("Attention", x, *weights, num_heads=4, domain=_MS, name="attend")

    return attend


def _multi_head(net):
    def attend(x):
        q, k, v = (net.linear(x, _WIDTH, 24, name=n) for n in "qkv")
        bias = net.weight(72)
        return net.op("MultiHeadAttention", q, k, v, bias, num_heads=4, domain=_MS, name="attend")

    return attend


@pytest.mark.parametrize("make", [_packed, _multi_head])
def test_bert_as_onnxruntime_optimizes_it(make):
    net = Net()
    ids = _words(net)
    kinds = net.op("Mul", ids, net.constant(np.int32(0)))
    tables = [net.weight(rows, _WIDTH) for rows in (9, 12, 2)]
    vectors = _vector(net), _vector(net)
    x = net.op("EmbedLayerNormalization", ids, kinds, *tables, *vectors, domain=_MS, outs=2)[0]
    x = _bert_layer(net, x, make(net))
    net.output(net.linear(x, _WIDTH, 3, name="out"))
    looked = cuts_hold(net)
    kinds = [("head", 4), ("head_dim", 6), ("head_dim", 6), ("neuron", 20), ("stream", 16)]
    assert _sizes(looked) == kinds
    assert [g.kind for g in looked.coupling.groups if not g.exact] == ["stream"]


def test_scale_is_written_out_where_dims_go():
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, _WIDTH)
    net.output(net.linear(_packed(net)(x), 24, 3, name="out"))
    looked = look(net)
    dims = next(g for g in looked.coupling.groups if g.kind == "head_dim" and len(g.members) == 2)
    node = next(n for n in looked.cut([(dims, [0, 1])]).graph.node if n.name == "attend")
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert found["scale"] == pytest.approx(1 / np.sqrt(6))
    assert found["qkv_hidden_sizes"] == [16, 16, 24]
    assert found["num_heads"] == 4


def test_llama_as_onnxruntime_optimizes_it():
    net = Net()
    words = net.input("n", "t", 5)
    x, also = (net.linear(words, 5, _WIDTH, name=name) for name in ("embed", "also"))
    y = net.op("SkipSimplifiedLayerNormalization", x, also, _vector(net), domain=_MS)
    places = net.constant(np.arange(1, dtype=np.int64))
    tables = net.weight(16, 4), net.weight(16, 4)

    def turned(z, heads):
        return net.op("RotaryEmbedding", z, places, *tables, num_heads=heads, domain=_MS)

    q, k = (turned(net.linear(y, _WIDTH, n * 8, name=name), n) for name, n in (("q", 4), ("k", 2)))
    v = net.linear(y, _WIDTH, 16, name="v")
    last = net.op("Sub", net.op("Shape", x, start=1, end=2), net.constant([1]))
    batch = net.op("Shape", x, start=0, end=1)
    lengths = net.op("Cast", net.op("Expand", last, batch), to=TensorProto.INT32)
    total = net.op("Cast", net.op("Shape", x, start=1, end=2), to=TensorProto.INT32)
    total = net.op("Squeeze", total)
    mixed, *_ = net.op(
        "GroupQueryAttention",
        *(q, k, v, "", "", lengths, total),
        num_heads=4,
        kv_num_heads=2,
        domain=_MS,
        outs=3,
    )
    y = net.linear(mixed, 32, _WIDTH, name="o")
    sums = net.op("SkipSimplifiedLayerNormalization", x, y, _vector(net), domain=_MS, outs=4)
    gate = net.op("QuickGelu", net.linear(sums[0], _WIDTH, 20, name="gate"), alpha=1.0, domain=_MS)
    y = net.op("Mul", gate, net.linear(sums[0], _WIDTH, 20, name="up"))
    x = net.op("Add", sums[3], net.linear(y, 20, _WIDTH, name="down"))
    net.output(net.linear(x, _WIDTH, 3, name="out"))
    net.nodes = [_without_unused(n) for n in net.nodes]
    looked = look(net)
    found = set(_sizes(looked))
    assert {("head", 2), ("stream", 20), ("stream", 16)} <= found
    for group in looked.coupling.groups:
        if group.kind == "head_dim":
            continue  # onnxruntime takes multiples of 8 only, and these heads have 8
        assert looked.error([(group, [0])]) <= 1e-4, group.name


def _without_unused(node):
    if node.op_type == "SkipSimplifiedLayerNormalization" and len(node.output) > 1:
        node.output[1] = node.output[2] = ""
    return node


@pytest.mark.parametrize("opset", [23, 24])
def test_newest_standard_operators(opset):
    net = Net(opset=opset)
    x = net.linear(net.input("n", 6, 5), 5, _WIDTH, name="embed")
    y = net.op("RMSNormalization", x, _vector(net))
    tables = net.constant(np.cos(np.arange(18.0)).reshape(1, 6, 3).astype(np.float32))

    def heads(z, count):
        z = net.op("Transpose", net.reshape(z, 0, 0, count, 6), perm=[0, 2, 1, 3])
        spread = net.op("Expand", tables, net.op("Concat", batch, net.constant([6, 3]), axis=0))
        return net.op("RotaryEmbedding", z, spread, spread)

    batch = net.op("Shape", x, start=0, end=1)
    q, k = heads(net.linear(y, _WIDTH, 24, name="q"), 4), heads(net.linear(y, _WIDTH, 12), 2)
    v = net.op("Transpose", net.reshape(net.linear(y, _WIDTH, 10), 0, 0, 2, 5), perm=[0, 2, 1, 3])
    mixed = net.op("Transpose", net.op("Attention", q, k, v, is_causal=1), perm=[0, 2, 1, 3])
    x = net.op("Add", x, net.linear(net.reshape(mixed, 0, 0, 20), 20, _WIDTH, name="o"))
    y = net.op("Swish" if opset > 23 else "Gelu", net.linear(x, _WIDTH, 20, name="up"))
    x = net.op("Add", x, net.linear(y, 20, _WIDTH, name="down"))
    net.output(net.linear(net.op("RMSNormalization", x, _vector(net)), _WIDTH, 3, name="out"))
    found = _sizes(cuts_hold(net.model(ir_version=10)))
    assert ("stream", 16) in found
    assert ("neuron", 20) in found
    assert sum(kind == "head" for kind, _ in found) >= 1
    assert sum(kind == "head_dim" for kind, _ in found) >= 1


def _optimized(net, level, folder):
    """The network as onnxruntime saves it after optimizing."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(net.model().SerializeToString(), options)
    return onnx.load(options.optimized_model_filepath)


def _conv_net():
    net = Net()
    x = net.input("n", 3, 6, 6)
    x = net.op("Relu", net.batch_norm(net.conv(x, 3, 16, 3, name="a"), 16))
    y = net.op("Relu", net.conv(x, 16, 16, 3, name="b", group=16))
    y = net.conv(y, 16, 16, name="c")
    x = net.op("Relu", net.op("Add", x, y))
    x = net.op("Flatten", net.op("GlobalAveragePool", x))
    net.output(net.op("Relu", net.op("Gemm", x, net.weight(16, 3), net.weight(3))))
    return net


def test_convolutions_as_onnxruntime_fuses_them(tmp_path):
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    model = _optimized(_conv_net(), level, tmp_path)
    fused = {node.op_type for node in model.graph.node}
    assert {"FusedConv", "FusedGemm"} <= fused
    assert _sizes(cuts_hold(model)) == [("stream", 16)]


def test_blocked_layout_is_frozen_and_says_what_to_prune_instead(tmp_path):
    model = _optimized(_conv_net(), onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, tmp_path)
    if not any(node.domain == "com.microsoft.nchwc" for node in model.graph.node):
        pytest.skip("onnxruntime has no blocked layout on this machine")
    looked = look(model)
    assert not looked.coupling.groups
    why = {f.unlock for f in looked.coupling.frozen.values() if "NCHWc" in f.reason}
    assert len(why) == 1
    assert "ORT_ENABLE_EXTENDED" in why.pop()
