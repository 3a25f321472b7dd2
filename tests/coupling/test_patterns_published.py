"""Shapes that other pruners fail on, by the names that their trackers give them.

Torch-Pruning's own table lists ShuffleNet V2 (four widths), Swin (three sizes) and RAFT as failing;
the other names are those of TinyNeuralNetwork's, NNI's, NNCF's and onnxsim's tests and reports.
"""

import numpy as np
import pytest
from onnx import numpy_helper

from tests.coupling.nets import Net, cuts_hold

POOL = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}


def _image(net, c=3, size=6):
    return net.input("n", c, size, size)


def _head(net, x, c):
    """A convolution whose output is the network's."""
    net.output(net.conv(x, c, 4, name="head"))
    return net


def _sizes(looked):
    return sorted(g.size for g in looked.coupling.groups)


def _split(net, x, *sizes, axis=1):
    return net.op("Split", x, net.constant(list(sizes)), axis=axis, outs=len(sizes))


def _shuffle(net, x, c, size=6):
    x = net.reshape(x, 0, 2, c // 2, size, size)
    x = net.op("Transpose", x, perm=[0, 2, 1, 3, 4])
    return net.reshape(x, 0, c, size, size)


@pytest.mark.parametrize("width", [4, 6, 8, 10], ids=["x0_5", "x1_0", "x1_5", "x2_0"])
def test_shufflenet_v2(width):
    """Two units of stride 1: half of the channels passes by, then all are shuffled."""
    net = Net()
    x = net.conv(_image(net), 3, 2 * width, name="stem")
    for unit in range(2):
        left, right = _split(net, x, width, width)
        y = net.op("Relu", net.conv(right, width, width, name=f"enter{unit}"))
        y = net.conv(y, width, width, 3, group=width, name=f"depth{unit}")
        y = net.op("Relu", net.conv(y, width, width, name=f"leave{unit}"))
        x = _shuffle(net, net.op("Concat", left, y, axis=1), 2 * width)
    looked = cuts_hold(_head(net, x, 2 * width))
    assert all(looked.free(f"enter{unit}", 1) for unit in range(2))
    assert looked.free("stem", 1)


@pytest.mark.parametrize("width", [6, 8, 10], ids=["tiny", "small", "base"])
def test_swin_patch_merging(width):
    """Four strided slices of the places, concatenated, normalised and halved."""
    net = Net()
    x = net.linear(net.input("n", 4, 4, 3), 3, width, name="embed")
    parts = []
    for column in (0, 1):
        for row in (0, 1):
            begin, end = net.constant([row, column]), net.constant([9, 9])
            steps = net.constant([2, 2])
            parts.append(net.op("Slice", x, begin, end, net.constant([1, 2]), steps))
    y = net.op("Concat", *parts, axis=-1)
    scale, shift = net.weight(4 * width), net.weight(4 * width)
    y = net.op("LayerNormalization", net.reshape(y, 0, 4, 4 * width), scale, shift, axis=-1)
    y = net.linear(y, 4 * width, 2 * width, name="merge")
    net.output(net.linear(net.op("Relu", y), 2 * width, 5))
    looked = cuts_hold(net)
    assert {(n, s) for n, _, s in looked.found} == {("embed", width), ("merge", 2 * width)}


def test_raft():
    """Correlation of two feature maps, and a convolutional GRU that is unrolled twice."""
    net = Net()
    a = net.reshape(net.conv(_image(net, size=4), 3, 6, name="features"), 0, 6, 16)
    second = net.input("n", 3, 4, 4, name="x2")
    b = net.conv(second, 3, 6, name="others")
    pairs = net.op("MatMul", net.op("Transpose", a, perm=[0, 2, 1]), net.reshape(b, 0, 6, 16))
    pairs = net.reshape(net.op("Transpose", pairs, perm=[0, 2, 1]), 0, 16, 4, 4)
    motion = net.op("Relu", net.conv(pairs, 16, 5, name="motion"))
    state = net.op("Tanh", net.conv(second, 3, 8, name="context"))
    gates = {name: (net.weight(8, 13, 3, 3), net.weight(8)) for name in "zrq"}

    def gate(name, state):
        both = net.op("Concat", state, motion, axis=1)
        return net.op("Conv", both, *gates[name], pads=[1] * 4)

    for _ in range(2):
        z, r = (net.op("Sigmoid", gate(name, state)) for name in "zr")
        q = net.op("Tanh", gate("q", net.op("Mul", r, state)))
        keep = net.op("Mul", net.op("Sub", net.constant(1.0), z), state)
        state = net.op("Add", keep, net.op("Mul", z, q))
    looked = cuts_hold(_head(net, state, 8))
    assert _sizes(looked) == [5, 6, 8]


def test_c2f_and_dfl():
    """YOLOv8: split, chain, concatenate; boxes from a softmax over bins that a weight sums."""
    net = Net()
    a, b = _split(net, net.conv(_image(net), 3, 8, name="enter"), 4, 4)
    c = net.op("Add", b, net.conv(net.op("Relu", net.conv(b, 4, 6, name="in")), 6, 4, name="out"))
    x = net.conv(net.op("Concat", a, b, c, axis=1), 12, 10, name="leave")
    bins = net.reshape(net.conv(net.op("Relu", x), 10, 16, name="bins"), 0, 4, 4, 36)
    spread = net.op("Softmax", net.op("Transpose", bins, perm=[0, 2, 1, 3]), axis=1)
    boxes = net.op("Conv", spread, net.constant(np.arange(4, dtype="f4").reshape(1, 4, 1, 1)))
    net.output(net.reshape(boxes, 0, 4, 36))
    looked = cuts_hold(net)
    assert {("in", 6), ("leave", 10)} <= {(n, s) for n, _, s in looked.found}
    assert not looked.free("bins", 1)


def test_focus_slices():
    net = Net()
    x = net.conv(_image(net), 3, 6, name="in")
    parts = []
    for begin in ([0, 0], [1, 0], [0, 1], [1, 1]):
        bounds = [net.constant(v) for v in (begin, [9, 9], [2, 3], [2, 2])]
        parts.append(net.op("Slice", x, *bounds))
    x = net.conv(net.op("Concat", *parts, axis=1), 24, 8, name="out")
    assert {(n, s) for n, _, s in cuts_hold(_head(net, x, 8)).found} == {("in", 6), ("out", 8)}


def test_space_to_depth():
    net = Net()
    x = net.op("SpaceToDepth", net.conv(_image(net), 3, 6, name="in"), blocksize=2)
    assert ("in", 6) in {(n, s) for n, _, s in cuts_hold(_head(net, x, 24)).found}


def test_upsample_by_sizes():
    """A feature pyramid: the target size is written as all four sizes, channels too."""
    net = Net()
    fine = net.conv(_image(net), 3, 6, name="fine")
    deep = net.conv(net.op("MaxPool", fine, kernel_shape=[2, 2], strides=[2, 2]), 6, 8, name="deep")
    lateral = net.conv(net.op("Relu", deep), 8, 5, name="lateral")
    batch = net.op("Shape", lateral, end=1)
    sizes = net.op("Concat", batch, net.constant([5, 6, 6]), axis=0)
    up = net.op("Resize", lateral, "", "", sizes, mode="nearest")
    y = net.op("Add", up, net.conv(fine, 6, 5, name="side"))
    assert _sizes(cuts_hold(_head(net, y, 5))) == [5, 6, 8]


def test_loop_conv_block():
    """One convolution used three times over, on what it made itself."""
    net = Net()
    x = net.conv(_image(net), 3, 6, name="in")
    weight, bias = net.weight(6, 6, 3, 3), net.weight(6)
    for _ in range(3):
        x = net.op("Relu", net.op("Conv", x, weight, bias, pads=[1] * 4))
    assert _sizes(cuts_hold(_head(net, x, 6))) == [6]


def test_non_aligned_cat():
    """Two concatenations of the same parts in other order, added."""
    net = Net()
    x = _image(net)
    a, b = net.conv(x, 3, 4, name="a"), net.conv(x, 3, 6, name="b")
    y = net.op("Add", net.op("Concat", a, b, axis=1), net.op("Concat", b, a, axis=1))
    looked = cuts_hold(_head(net, y, 10))
    assert looked.free("a", 1)
    assert looked.free("b", 1)


@pytest.mark.parametrize("between", ["", "Relu"])
def test_group_cat(between):
    """A concatenation into a grouped convolution."""
    net = Net()
    x = _image(net)
    y = net.op("Concat", net.conv(x, 3, 4, name="a"), net.conv(x, 3, 4, name="b"), axis=1)
    y = net.op(between, y) if between else y
    looked = cuts_hold(_head(net, net.conv(y, 8, 8, 3, group=2, name="g"), 8))
    assert all(looked.free(name, 1) for name in ("a", "b", "g"))


def test_batch_cat():
    """A concatenation along the batch: both halves have the same channels."""
    net = Net()
    x = _image(net)
    y = net.op("Concat", net.conv(x, 3, 6, name="a"), net.conv(x, 3, 6, name="b"), axis=0)
    assert _sizes(cuts_hold(_head(net, y, 6))) == [6]


def test_group_element_wise():
    """Two grouped convolutions with other numbers of groups, added."""
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    a, b = (net.conv(x, 8, 8, 3, group=g, name=f"g{g}") for g in (2, 4))
    looked = cuts_hold(_head(net, net.op("Add", a, b), 8))
    assert all(looked.free(name, 1) for name in ("in", "g2", "g4"))


def test_cat_split_group():
    net = Net()
    x = _image(net)
    y = net.op("Concat", net.conv(x, 3, 6, name="a"), net.conv(x, 3, 6, name="b"), axis=1)
    left, right = _split(net, y, 4, 8)
    y = net.op("Concat", net.conv(left, 4, 4, 3, group=2), net.op("Relu", right), axis=1)
    looked = cuts_hold(_head(net, y, 12))
    assert looked.free("b", 1)


def test_split_linear():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 12, name="in")
    a, b = _split(net, x, 4, 8)
    y = net.op("Concat", net.op("Tanh", b), net.op("Relu", a), axis=1)
    net.output(net.linear(y, 12, 3))
    assert _sizes(cuts_hold(net)) == [4, 8]


def test_multi_dim_fc():
    """A linear layer over the last axis of an image, then over its channels."""
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    x = net.linear(net.op("Relu", x), 6, 7, name="rows")
    x = net.linear(net.op("Transpose", x, perm=[0, 2, 3, 1]), 8, 5, name="channels")
    net.output(net.linear(x, 5, 2))
    looked = cuts_hold(net)
    assert {("in", 8), ("channels", 5)} <= {(n, s) for n, _, s in looked.found}


def test_scaled_residual():
    """Inception-ResNet: the branch is scaled by a constant before it is added."""
    net = Net()
    x = net.conv(_image(net), 3, 8, name="in")
    y = net.conv(net.op("Relu", net.conv(x, 8, 5, name="branch")), 5, 8)
    x = net.op("Add", x, net.op("Mul", y, net.constant(np.float32(0.17))))
    assert _sizes(cuts_hold(_head(net, x, 8))) == [5, 8]


def test_arcface_head():
    """Cosine scores: the weight is normalised and transposed in the graph."""
    net = Net()
    x = net.linear(net.op("Relu", net.linear(net.input("n", 5), 5, 9, name="a")), 9, 6, name="b")
    weight = net.weight(4, 6)
    size = net.op("ReduceL2", weight, axes=[1])
    columns = net.op("Transpose", net.op("Div", weight, size), perm=[1, 0])
    net.output(net.op("MatMul", x, columns))
    looked = cuts_hold(net)
    assert ("a", 9) in {(n, s) for n, _, s in looked.found}


@pytest.mark.parametrize("way", ["Div", "Reciprocal"])
def test_rms_norm_by(way):
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 6, name="in")
    mean = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
    root = net.op("Sqrt", net.op("Add", mean, net.constant(np.float32(1e-5))))
    over = net.op("Reciprocal", root)
    over = over if way == "Reciprocal" else net.op("Div", net.constant(np.float32(1)), root)
    y = net.op("Mul", net.op("Mul", x, over), net.weight(6))
    net.output(net.linear(y, 6, 3))
    assert ("in", 6) in {(n, s) for n, _, s in cuts_hold(net).found}


def test_prelu_slope_per_neuron():
    net = Net()
    x = net.op("PRelu", net.linear(net.input("n", 5), 5, 6, name="in"), net.weight(6))
    net.output(net.linear(x, 6, 3))
    assert _sizes(cuts_hold(net)) == [6]


def test_list_output():
    """Several outputs: what is one of them stays, what is behind it does not."""
    net = Net()
    x = net.conv(_image(net), 3, 6, name="a")
    y = net.conv(net.op("Relu", x), 6, 5, name="b")
    net.output(x, net.conv(net.op("Relu", y), 5, 4))
    looked = cuts_hold(net)
    assert looked.why("a", 1) == "graph output"
    assert _sizes(looked) == [5]


def test_bn_compensation():
    """DenseNet: concatenation, then normalisation and activation, then the next layer."""
    net = Net()
    x = net.conv(_image(net), 3, 6, name="a")
    for number in range(2):
        size = 6 + 4 * number
        y = net.conv(net.op("Relu", net.batch_norm(x, size)), size, 4, 3, name=f"grow{number}")
        x = net.op("Concat", x, y, axis=1)
    looked = cuts_hold(_head(net, net.op("Relu", net.batch_norm(x, 14)), 14))
    assert _sizes(looked) == [4, 4, 6]


def test_sppf_into_batch_norm():
    net = Net()
    x = net.conv(_image(net), 3, 4, name="a")
    y = net.op("MaxPool", x, **POOL)
    y = net.op("Concat", x, y, net.op("MaxPool", y, **POOL), axis=1)
    assert _sizes(cuts_hold(_head(net, net.batch_norm(y, 12), 12))) == [4]


def test_concat_onto_itself_in_a_row():
    """Torch-Pruning 146: y = cat(y, x) three times over."""
    net = Net()
    x = y = net.conv(_image(net), 3, 4, name="a")
    for _ in range(3):
        y = net.op("Concat", y, x, axis=1)
    assert _sizes(cuts_hold(_head(net, y, 16))) == [4]


def test_clip_bounds_and_exponents_as_constant_nodes():
    """Bounds and exponents as nodes: MobileNet's ReLU6 and a spelt-out GELU."""
    net = Net()
    low, high, three = (
        net.op("Constant", value=numpy_helper.from_array(np.float32(value))) for value in (0, 6, 3)
    )
    x = net.op("Clip", net.conv(_image(net), 3, 6, name="a"), low, high)
    y = net.op("Pow", net.conv(x, 6, 5, name="b"), three)
    assert _sizes(cuts_hold(_head(net, net.op("Tanh", y), 5))) == [5, 6]
