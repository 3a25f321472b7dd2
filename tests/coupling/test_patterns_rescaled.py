"""Statistics over channels whose change constants behind them make up for."""

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.rewrite import cut as rewriting
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import Session
from tests.coupling.nets import Net, cuts_hold, feeds

_GONE = [1, 4, 5]


def _exact(net, name="in"):
    """Every cut holds, exactly, and would not if constants were not rescaled, or by too little."""
    looked = cuts_hold(net)
    group = looked.group(name)
    assert group.exact
    right = rewriting._rescale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewriting, "_rescale", lambda *_: None)
        assert looked.error([(group, _GONE)]) > TOLERANCE
        patch.setattr(rewriting, "_rescale", lambda *a: right(*a[:-1], a[-1][:-1]))
        assert looked.error([(group, _GONE)]) > TOLERANCE
    return looked


def _inexact(net, name="in"):
    """Every cut holds, against a statistic over what stays: no constant is rescaled."""
    looked = cuts_hold(net)
    assert not looked.group(name).exact
    assert looked.coupling.collected.rescaled == ()


def _rescaled(looked):
    """Names of the constants, with the powers of size / kept that they get."""
    return {
        looked.view.original(looked.view.by_index[edge.node].inputs[edge.slot]): power
        for found in looked.coupling.collected.rescaled
        for edge, power in found.powers.items()
    }


def _masked(looked, feed, gone):
    """What the original gives with zeros for some channels, in place of a weight of theirs."""
    view, weight = looked.view, "in_w"
    model = type(view.model)()
    model.CopyFrom(view.model)
    tensor = next(t for t in model.graph.initializer if t.name == weight)
    array = view.constant(weight).copy()
    array[:, gone] = 0.0
    tensor.raw_data = array.tobytes()
    return Session(model).run(feed)


def _rms(fused):
    """y = x / sqrt(mean(x^2) + 0.5) * gamma, between two products."""
    net = Net(23 if fused else 17)
    x = net.op("MatMul", net.input("n", 5), net.weight(5, 8, name="in_w"), name="in")
    gamma = net.weight(8, name="gamma")
    if fused:
        y = net.op("RMSNormalization", x, gamma, epsilon=0.5, axis=-1)
    else:
        mean = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
        root = net.op("Sqrt", net.op("Add", mean, net.constant(0.5)))
        y = net.op("Mul", net.op("Div", x, root), gamma)
    net.output(net.linear(y, 8, 3, name="y"))
    return net.model(11) if fused else net.model()


@pytest.mark.parametrize("fused", [False, True])
def test_rms(fused):
    """What stays gives what it gave with zeros in place of the rest, without any gate."""
    looked = _exact(_rms(fused))
    feed = feeds(looked.model)[0]
    found = Session(looked.cut([(looked.group("in"), _GONE)])).run(feed)
    wanted = _masked(looked, feed, _GONE)
    np.testing.assert_allclose(found["y"], wanted["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inverse", ["Div", "Reciprocal"])
def test_rms_without_a_scale_of_its_own(inverse):
    """Here the inverse root runs on to the weights of what reads the result."""
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="in")
    mean = net.op("ReduceMean", net.op("Pow", x, net.constant(2.0)), axes=[-1])
    root = net.op("Sqrt", net.op("Add", net.constant(0.5, name="eps"), mean))
    ones = [net.constant(1.0)] if inverse == "Div" else []
    y = net.op("Mul", net.op(inverse, *ones, root), x)
    net.output(
        net.op("MatMul", y, net.weight(8, 3, name="a")),
        net.op("Gemm", y, net.weight(8, 3, name="b"), net.weight(3)),
    )
    assert _rescaled(_exact(net)) == {"eps": 1.0, "a": 0.5, "b": 0.5}


@pytest.mark.parametrize("last", [False, True])
def test_global_response_normalization(last):
    """As ConvNeXt V2 has it: x + beta + gamma * x * G / (mean of G + eps), G a norm per channel."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("n", 3, 4, 4), 3, 8, name="in"))
    shape, places, channels = ((8,), [1, 2], -1) if last else ((8, 1, 1), [2, 3], 1)
    x = net.op("Transpose", x, perm=[0, 2, 3, 1]) if last else x
    norm = net.op("ReduceL2", x, axes=places)
    mean = net.op("ReduceMean", norm, axes=[channels])
    ratio = net.op("Div", norm, net.op("Add", mean, net.constant(0.3, name="eps")))
    scaled = net.op("Mul", net.weight(*shape, name="gamma"), net.op("Mul", x, ratio))
    y = net.op("Add", net.op("Add", scaled, net.weight(*shape, name="beta")), x)
    y = net.op("Transpose", y, perm=[0, 3, 1, 2]) if last else y
    net.output(net.conv(y, 8, 4, name="head"))
    assert _rescaled(_exact(net)) == {"eps": 1.0, "gamma": 1.0}


def test_mean_map_into_a_convolution():
    """Spatial attention: a gate for all channels from a map of their mean."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("n", 3, 6, 6), 3, 8, name="in"))
    mean = net.op("ReduceMean", x, axes=[1])
    weight = net.weight(1, 1, 3, 3, name="attend")
    gate = net.op("Sigmoid", net.op("Conv", mean, weight, net.weight(1), pads=[1, 1, 1, 1]))
    net.output(net.conv(net.op("Mul", x, gate), 8, 4, name="head"))
    assert _rescaled(_exact(net)) == {"attend": -1.0}


def test_mean_of_two_axes_and_bounds():
    """Heads and their dimensions: each axis has a factor, and bounds move with what they bound."""
    net = Net()
    x = net.reshape(net.linear(net.input("n", 5), 5, 12, name="in"), 0, 4, 3)
    x = net.op("Mul", net.op("Relu", x), net.weight(4, 3))
    mean = net.op("ReduceMean", net.op("Abs", x), axes=[1, 2], keepdims=0)
    low, high = net.constant(0.05, name="low"), net.constant(0.2, name="high")
    mean = net.op("Clip", net.op("Neg", net.op("Neg", mean)), low, high)
    y = net.op("Unsqueeze", mean, net.constant([1]))
    net.output(net.op("Div", net.weight(1, 6, name="over"), y))
    looked = cuts_hold(net)
    assert all(group.exact for group in looked.coupling.groups)
    assert len(looked.coupling.groups) > 1
    assert _rescaled(looked) == {"low": 1.0, "high": 1.0, "over": 1.0}


def test_factors_that_cancel():
    """A map over its own largest value is what it was."""
    net = Net()
    x = net.op("Softplus", net.conv(net.input("n", 3, 4, 4), 3, 8, name="in"))
    mean = net.op("ReduceMean", x, axes=[1])
    net.output(net.op("Tanh", net.op("Div", mean, net.op("GlobalMaxPool", mean))))
    looked = cuts_hold(net)
    assert looked.group("in").exact
    assert _rescaled(looked) == {}


def _way_out(net, mean, x, how):
    """Put something behind a mean that no factor passes, or that none can be undone behind."""
    weight = net.weight(1, 3)
    match how:
        case "function":
            return net.op("MatMul", net.op("Sigmoid", mean), weight)
        case "output":
            net.output(mean)
            return net.op("MatMul", mean, weight)
        case "one way of two":
            return net.op("Add", net.op("MatMul", mean, weight), net.op("Exp", mean))
        case "integers":
            whole = net.op("Cast", net.op("Cast", mean, to=TensorProto.INT64), to=TensorProto.FLOAT)
            return net.op("MatMul", whole, weight)
        case "a sum with others":
            return net.linear(net.op("Add", x, mean), 8, 3)
        case "powers that differ":
            return net.op("MatMul", net.op("Add", mean, net.op("Mul", mean, mean)), weight)
        case "a power at run time":
            return net.op("MatMul", net.op("Pow", mean, net.op("ReduceMax", "x")), weight)
        case _:
            half = net.op("Cast", mean, to=TensorProto.FLOAT16)
            weight = net.constant(np.ones((1, 3), np.float16))
            return net.op("Cast", net.op("MatMul", half, weight), to=TensorProto.FLOAT)


@pytest.mark.parametrize(
    "how",
    [
        "function",
        "output",
        "one way of two",
        "integers",
        "a sum with others",
        "powers that differ",
        "a power at run time",
        "halves",
    ],
)
def test_what_cannot_be_made_up_for_is_a_mean_over_what_stays(how):
    net = Net()
    x = net.op("Softplus", net.linear(net.input("n", 5), 5, 8, name="in"))
    mean = net.op("ReduceMean", x, axes=[1])
    net.output(_way_out(net, mean, x, how))
    _inexact(net)


def test_the_variance_of_a_layer_normalization_is_over_what_stays():
    """Its mean cannot be kept, so that the variance is not either: both are of what stays."""
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="in")
    d = net.op("Sub", x, net.op("ReduceMean", x, axes=[-1]))
    root = net.op("Sqrt", net.op("ReduceMean", net.op("Mul", d, d), axes=[-1]))
    y = net.op("Mul", net.op("Div", d, root), net.weight(8))
    net.output(net.linear(y, 8, 3, name="out"))
    _inexact(net)


@pytest.mark.parametrize("size", ["constant", "shape"])
def test_mean_written_as_a_sum(size):
    """What a sum is divided by stays what it was, whether it is a constant or read of a shape."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("n", 3, 4, 4), 3, 8, name="in"))
    total = net.op("ReduceSum", x, net.constant([1]))
    if size == "constant":
        mean = net.op("Mul", total, net.constant(1 / 8))
    else:
        channels = net.op("Gather", net.op("Shape", x), net.constant(1))
        mean = net.op("Div", total, net.op("Cast", channels, to=TensorProto.FLOAT))
    net.output(net.conv(net.op("Mul", x, net.op("Sigmoid", mean)), 8, 4, name="head"))
    looked = cuts_hold(net)
    assert looked.group("in").exact
    assert looked.coupling.collected.rescaled == ()
