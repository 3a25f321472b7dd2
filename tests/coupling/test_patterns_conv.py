"""Shapes that convolutional networks take: which groups they have, and that all of them cut."""

import numpy as np
import pytest

from onnxprune.coupling.rules import _registry
from tests.coupling.nets import Net, cuts_hold, look


def _image(net, c=3, size=6):
    return net.input("n", c, size, size)


def _head(net, x, c):
    """Mean over the places, then a layer whose output is the network's."""
    net.output(net.op("Squeeze", _mean(net, net.conv(x, c, 4, name="head")), net.constant([2, 3])))
    return net


def _mean(net, x):
    return net.op("GlobalAveragePool", x)


def _members(looked, name):
    return {(m.axis.value, m.axis.axis) for m in looked.group(name).members}


def test_plain():
    net = Net()
    x = net.op("Relu", net.conv(_image(net), 3, 8, 3, name="c1"), name="r1")
    x = net.op("MaxPool", net.conv(x, 8, 6, 3, name="c2"), kernel_shape=[2, 2], strides=[2, 2])
    looked = cuts_hold(_head(net, x, 6))
    assert looked.found == {("c1", "filter", 8), ("c2", "filter", 6)}
    assert _members(looked, "c1") == {("c1", 1), ("r1", 1), ("k1", 0), ("k2", 0), ("k5", 1)}
    assert looked.why("x", 1) == "graph input"
    assert looked.why("head", 1) == "graph output"


def test_residual_add():
    net = Net()
    x = net.conv(_image(net), 3, 8, name="stem")
    y = net.conv(net.op("Relu", net.conv(x, 8, 6, 3, name="a")), 6, 8, 3, name="b")
    looked = cuts_hold(_head(net, net.op("Relu", net.op("Add", x, y)), 8))
    assert looked.found == {("stem", "stream", 8), ("a", "filter", 6)}
    assert set(looked.group("stem").nodes) == {"stem", "b"}


def test_concat_of_concat_with_a_fixed_input():
    net = Net()
    x = _image(net)
    a, b = net.conv(x, 3, 4, name="a"), net.conv(x, 3, 6, name="b")
    both = net.op("Concat", a, b, axis=1, name="both")
    more = net.op("Concat", both, x, a, axis=1, name="more")
    looked = cuts_hold(_head(net, net.conv(more, 17, 4, name="c"), 4))
    assert looked.found == {("a", "filter", 4), ("b", "filter", 6), ("c", "filter", 4)}
    places = {m.axis.value: m.positions[1].tolist() for m in looked.group("a").members}
    assert places["more"] == [1, 14]


def test_concat_of_the_same_tensor_twice():
    net = Net()
    a = net.conv(_image(net), 3, 4, name="a")
    twice = net.op("Concat", a, a, axis=1, name="twice")
    again = net.op("Concat", twice, twice, axis=1, name="again")
    looked = cuts_hold(_head(net, net.conv(again, 16, 6, name="c"), 6))
    assert looked.found == {("a", "filter", 4), ("c", "filter", 6)}


def test_concat_then_add():
    net = Net()
    x = _image(net)
    both = net.op("Concat", net.conv(x, 3, 4, name="a"), net.conv(x, 3, 4, name="b"), axis=1)
    x = net.op("Add", both, net.conv(x, 3, 8, name="c"))
    looked = cuts_hold(_head(net, x, 8))
    assert looked.found == {("a", "stream", 4), ("b", "stream", 4)}


def test_split_and_concat():
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    a, b = net.op("Split", x, net.constant([4, 4]), axis=1, outs=2, name="s")
    c = net.conv(net.op("Relu", b), 4, 4, 3, name="m")
    y = net.conv(net.op("Concat", a, b, c, axis=1), 12, 6, name="out")
    looked = cuts_hold(_head(net, y, 6))
    assert {(k, n) for _, k, n in looked.found} == {("filter", 4), ("filter", 6)}
    assert len(looked.coupling.groups) == 4  # both halves, the branch, the way out


@pytest.mark.parametrize("opset", [11, 13, 18])
def test_split_without_sizes_into_unequal_parts(opset):
    net = Net(opset)
    x = net.conv(_image(net), 3, 8, name="in")
    parts = {"num_outputs": 2} if opset == 18 else {}
    a, b = net.op("Split", x, axis=1, outs=2, **parts)
    y = net.op("Concat", net.op("Relu", a), net.op("Sigmoid", b), axis=1)
    net.output(net.conv(net.conv(y, 8, 6, name="out"), 6, 2))
    looked = cuts_hold(net)
    assert {n for *_, n in looked.found} == {4, 6}


def test_spatial_pyramid_with_one_pool_used_again():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="in")
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    a = net.op("MaxPool", x, **pool)
    b = net.op("MaxPool", a, **pool)
    c = net.op("MaxPool", b, **pool)
    y = net.conv(net.op("Concat", x, a, b, c, axis=1), 16, 6, name="out")
    looked = cuts_hold(_head(net, y, 6))
    assert looked.found == {("in", "filter", 4), ("out", "filter", 6)}


def test_channel_shuffle():
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    x = net.reshape(x, 0, 2, 4, 6, 6)
    x = net.reshape(net.op("Transpose", x, perm=[0, 2, 1, 3, 4]), 0, 8, 6, 6)
    looked = cuts_hold(_head(net, net.conv(x, 8, 8, 3, name="out"), 8))
    assert ("out", "filter", 8) in looked.found
    shuffled = [g for g in looked.coupling.groups if "in" in g.nodes]
    assert sorted(g.size for g in shuffled) == [2, 4]


def test_squeeze_and_excite():
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    s = net.op("Relu", net.conv(_mean(net, x), 8, 4, name="squeeze"))
    s = net.op("Sigmoid", net.conv(s, 4, 8, name="excite"))
    looked = cuts_hold(_head(net, net.op("Mul", x, s), 8))
    assert looked.found == {("in", "stream", 8), ("squeeze", "filter", 4)}


def test_inverted_bottleneck():
    net = Net()
    x = net.conv(_image(net), 3, 6, name="stem")
    y = net.op("Clip", net.conv(x, 6, 12, name="expand"), net.constant(0.0), net.constant(6.0))
    y = net.conv(net.batch_norm(y, 12), 12, 12, 3, group=12, name="depthwise")
    y = net.conv(net.op("HardSwish", y), 12, 6, name="project")
    looked = cuts_hold(_head(net, net.op("Add", x, y), 6))
    assert {(n, s) for n, _, s in looked.found} == {("stem", 6), ("expand", 12)}


def test_depthwise_with_multiplier():
    net = Net()
    x = net.conv(_image(net), 3, 6, name="in")
    w = net.weight(12, 1, 3, 3)
    y = net.op("Conv", x, w, group=6, pads=[1, 1, 1, 1], name="d")
    looked = cuts_hold(_head(net, y, 12))
    assert any(g.size == 6 and "in" in g.nodes for g in looked.coupling.groups)


def test_grouped_convolution_inside_and_outside():
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    y = net.conv(x, 8, 12, 3, group=2, name="g")
    looked = cuts_hold(_head(net, y, 12))
    assert {(g.size, g.step) for g in looked.coupling.groups} == {(2, 1), (8, 2), (12, 2)}


def test_grouped_convolution_behind_a_grouped_one():
    net = Net()
    x = net.conv(_image(net), 3, 16, name="in")
    y = net.conv(x, 16, 16, 3, group=4, name="g4")
    looked = cuts_hold(_head(net, net.conv(net.op("Relu", y), 16, 16, 3, group=8, name="g8"), 16))
    for name in ("in", "g4", "g8"):
        assert any(name in g.nodes for g in looked.coupling.groups), name


def test_one_filter_is_not_depthwise():
    net = Net()
    x = net.conv(_image(net, 1), 1, 4, 3, name="a")
    y = net.conv(x, 4, 1, 3, name="one")
    looked = cuts_hold(_head(net, net.conv(y, 1, 6, 3, name="b"), 6))
    assert looked.found == {("a", "filter", 4), ("b", "filter", 6)}


def test_res2net():
    net = Net()
    x = net.conv(_image(net), 3, 12, name="in")
    a, b, c = net.op("Split", x, net.constant([4, 4, 4]), axis=1, outs=3)
    b = net.conv(b, 4, 4, 3, name="b")
    c = net.conv(net.op("Add", b, c), 4, 4, 3, name="c")
    y = net.conv(net.op("Concat", a, b, c, axis=1), 12, 8, name="out")
    looked = cuts_hold(_head(net, y, 8))
    assert ("out", "filter", 8) in looked.found
    assert all(looked.free(v, 1) for v in ("in", "b", "c"))


def test_shortcut_padded_in_channels():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="stem")
    y = net.conv(x, 4, 8, 3, name="wide")
    padded = net.op("Pad", x, net.constant([0, 2, 0, 0, 0, 2, 0, 0]), name="pad")
    looked = cuts_hold(_head(net, net.op("Add", y, padded), 8))
    assert looked.found == {("stem", "stream", 4), ("wide", "filter", 4)}
    pads = {m.axis.value: m.positions.ravel().tolist() for m in looked.group("wide").members}
    assert pads["wide"] == [0, 1, 6, 7]


def test_flatten_with_places_into_gemm():
    net = Net()
    x = net.op("Flatten", net.op("Relu", net.conv(_image(net), 3, 4, 3, name="c")), name="f")
    x = net.op("Gemm", x, net.weight(10, 144), net.weight(10), transB=1, name="fc")
    net.output(net.op("Gemm", net.op("Relu", x), net.weight(10, 3), name="out"))
    looked = cuts_hold(net)
    assert looked.found == {("c", "filter", 4), ("fc", "neuron", 10)}
    flat = next(m for m in looked.group("c").members if m.axis.value == "f")
    assert flat.positions.shape == (4, 36)


def test_reshape_to_a_literal_size():
    net = Net()
    x = net.reshape(net.conv(_image(net), 3, 4, 3, name="c"), -1, 144)
    net.output(net.op("Gemm", x, net.weight(144, 3), name="out"))
    looked = cuts_hold(net)
    assert looked.found == {("c", "filter", 4)}


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_pixel_shuffle(mode):
    net = Net()
    x = net.conv(_image(net), 3, 16, 3, name="c")
    x = net.op("DepthToSpace", x, blocksize=2, mode=mode)
    looked = cuts_hold(_head(net, net.op("SpaceToDepth", x, blocksize=2), 16))
    assert ("c", 4) in {(n, s) for n, _, s in looked.found}


def test_batch_norm_behind_a_concat():
    net = Net()
    x = _image(net)
    y = net.op("Concat", net.conv(x, 3, 4, name="a"), net.conv(x, 3, 4, name="b"), axis=1)
    looked = cuts_hold(_head(net, net.op("Relu", net.batch_norm(y, 8, name="bn")), 8))
    assert {(g.nodes[0], g.size) for g in looked.coupling.groups} == {("a", 4), ("b", 4)}


@pytest.mark.parametrize("slope", [(6, 1, 1), (1,)])
def test_prelu(slope):
    net = Net()
    x = net.op("PRelu", net.conv(_image(net), 3, 6, name="c"), net.weight(*slope, name="slope"))
    looked = cuts_hold(_head(net, x, 6))
    assert {n for *_, n in looked.found} == {6}
    assert looked.free("slope", 0) == (len(slope) == 3)


def test_upsampling_and_skip():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="a")
    y = net.op("MaxPool", net.conv(x, 4, 6, name="b"), kernel_shape=[2, 2], strides=[2, 2])
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    y = net.op("Resize", y, "", scales, mode="nearest")
    y = net.conv(net.op("Concat", x, y, axis=1), 10, 4, name="c")
    looked = cuts_hold(_head(net, y, 4))
    assert looked.found == {("a", "filter", 4), ("b", "filter", 6), ("c", "filter", 4)}


def test_transposed_convolution():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="a")
    y = net.op("ConvTranspose", x, net.weight(4, 6, 2, 2), net.weight(6), strides=[2, 2], name="t")
    looked = cuts_hold(_head(net, y, 6))
    assert looked.found == {("a", "filter", 4), ("t", "filter", 6)}


def test_group_norm_written_as_instance_norm():
    net = Net()
    x = net.conv(_image(net), 3, 8, 3, name="c")
    y = net.reshape(x, 0, 4, -1)
    y = net.op("InstanceNormalization", y, net.constant([1.0] * 4), net.constant([0.0] * 4))
    y = net.reshape(y, -1, 8, 6, 6)
    y = net.op("Add", net.op("Mul", y, net.weight(8, 1, 1)), net.weight(8, 1, 1))
    looked = cuts_hold(_head(net, y, 8))
    assert {(n, s) for n, _, s in looked.found} == {("c", 4), ("c#2", 8)}
    assert [g.step for g in looked.coupling.groups] == [1, 4]  # whole groups, or one of each


def test_local_response_norm_freezes():
    net = Net()
    x = net.op("LRN", net.conv(_image(net), 3, 8, name="c"), size=3)
    looked = look(_head(net, x, 8))
    assert not looked.coupling.groups
    assert looked.why("c", 1) == "LRN runs along this axis"


def test_reflected_padding_of_places_is_harmless():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="c")
    x = net.op("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    assert cuts_hold(_head(net, x, 4)).found == {("c", "filter", 4)}


def test_branch_into_an_unknown_operator_freezes_its_own_channels_only(monkeypatch):
    monkeypatch.delitem(_registry.rule.known, ("", "Det"))
    net = Net()
    x = _image(net, size=4)
    a = net.conv(x, 3, 4, name="a")
    b = net.conv(x, 3, 6, name="b")
    net.output(net.op("Det", a, name="unknown"))
    looked = cuts_hold(_head(net, net.op("Concat", a, b, axis=1), 10))
    assert looked.found == {("b", "filter", 6)}
    assert looked.why("a", 1) == "onnxprune has no rule for Det"


def test_branch_into_an_output_freezes_its_own_channels_only():
    net = Net()
    a = net.conv(_image(net), 3, 4, name="a")
    net.output(a)
    b = net.conv(a, 4, 6, name="b")
    looked = cuts_hold(_head(net, b, 6))
    assert looked.found == {("b", "filter", 6)}
    assert looked.why("a", 1) == "graph output"


def test_shuffled_groups_whose_blocks_do_not_match():
    """ShuffleNet's unit: two groupings with a shuffle between, and a concat that shifts them.

    Blocks of the stream are of unequal size, and lose shares of it; what lies across two blocks
    of the shuffled middle stays.
    """
    net = Net()
    x = net.conv(_image(net), 3, 12, name="in")
    y = net.op("Relu", net.conv(x, 12, 24, group=3, name="squeeze"))
    y = net.reshape(y, 0, 3, 8, 6, 6)
    y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3, 4]), 0, 24, 6, 6)
    y = net.conv(y, 24, 24, 3, group=24, name="depthwise")
    y = net.conv(y, 24, 36, group=3, name="expand")
    x = net.op("Concat", x, y, axis=1)
    looked = cuts_hold(_head(net, net.conv(x, 48, 24, group=3, name="next"), 24))
    found = {g.name: g for g in looked.coupling.groups}
    middle = next(g for g in found.values() if "squeeze" in g.nodes)
    assert (middle.size, middle.step) == (6, 3)
    stream = next(g for g in found.values() if "expand" in g.nodes)
    assert len(set(stream.shares.tolist())) > 1
    assert stream.size // stream.step >= 2
