"""Normalizations over groups of channels, as exporters write them."""

import numpy as np
import pytest

from onnxprune.rewrite import cut as rewriting
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import Session
from tests.coupling.nets import Net, cuts_hold, feeds, look

_SIZE = 4


def _normed(net, x, channels, groups, *, dynamic=False):
    """GroupNormalization as torch writes it: groups for channels, channels for places."""
    ones = net.constant(np.ones(groups, np.float32)), net.constant(np.zeros(groups, np.float32))
    shape = net.op("Shape", x) if dynamic else net.constant([0, channels, _SIZE, _SIZE])
    y = net.op("Reshape", x, net.constant([0, groups, -1]))
    y = net.op("Reshape", net.op("InstanceNormalization", y, *ones), shape)
    return net.op("Add", net.op("Mul", y, net.weight(channels, 1, 1)), net.weight(channels, 1, 1))


def _net(groups, *, residual=False, dynamic=False, channels=8):
    net = Net()
    x = net.conv(net.input("n", 3, _SIZE, _SIZE), 3, channels, 3, name="in")
    y = net.conv(_normed(net, x, channels, groups, dynamic=dynamic), channels, channels, name="mid")
    y = net.op("Add", x, y) if residual else y
    net.output(net.conv(net.op("Relu", y), channels, 4, name="head"))
    return net


@pytest.mark.parametrize("dynamic", [False, True])
def test_one_group(dynamic):
    looked = cuts_hold(_net(1, dynamic=dynamic))
    assert {(g.name, g.size, g.step, g.exact) for g in looked.coupling.groups} == {
        ("in", 8, 1, False),
        ("mid", 8, 1, True),
    }


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_several_groups_lose_as_many_channels(residual, dynamic):
    looked = cuts_hold(_net(4, residual=residual, dynamic=dynamic))
    kinds = {(g.size, g.step, g.exact) for g in looked.coupling.groups if g.name.startswith("in")}
    assert kinds == {(4, 1, True), (8, 4, False)}  # whole groups, or one channel of each


def test_each_group_loses_channels_of_its_own():
    looked = look(_net(2))
    group = next(g for g in looked.coupling.groups if g.step == 2)
    assert looked.error([(group, [0, 1, 5, 7])]) <= TOLERANCE


def test_both_readings_together():
    looked = look(_net(4, channels=16))
    whole, inner = (
        next(g for g in looked.coupling.groups if "in" in g.nodes and g.step == step)
        for step in (1, 4)
    )
    gone = [0, 1, 5, 6, 8, 11, 13, 14]
    assert looked.error([(whole, [2])]) <= TOLERANCE
    assert looked.error([(inner, gone)]) <= TOLERANCE
    assert looked.error([(whole, [2]), (inner, gone)]) <= TOLERANCE


def test_instance_norm_over_places_stays_as_it_is():
    net = Net()
    x = net.conv(net.input("n", 3, _SIZE, _SIZE), 3, 8, name="in")
    x = net.op("InstanceNormalization", x, net.weight(8), net.weight(8))
    net.output(net.conv(x, 8, 4, name="head"))
    looked = cuts_hold(net)
    assert looked.found == {("in", "filter", 8)}
    assert looked.group("in").exact


def _rms(fused):
    """y = x / sqrt(mean(x^2) + 0.5) * gamma, between two products."""
    net = Net(23 if fused else 17)
    x = net.linear(net.input("n", 5), 5, 8, name="in")
    gamma = net.weight(8, name="gamma")
    if fused:
        y = net.op("RMSNormalization", x, gamma, epsilon=0.5, axis=-1)
    else:
        mean = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
        root = net.op("Sqrt", net.op("Add", mean, net.constant(0.5)))
        y = net.op("Mul", net.op("Div", x, root), gamma)
    net.output(net.op("MatMul", y, net.weight(8, 3, name="out"), name="y"))
    return net.model(11) if fused else net.model()


@pytest.mark.parametrize("fused", [False, True])
def test_rms_keeps_its_statistic(fused):
    """What stays gives what it gave with zeros in place of the rest: no other reference needed."""
    model = _rms(fused)
    looked = look(model)
    (group,) = looked.coupling.groups
    assert group.exact
    gone = [1, 4, 5]
    feed = feeds(model)[0]
    weights = {t.name: looked.view.constant(t.name) for t in model.graph.initializer}
    x = (feed["x"] @ next(w for w in weights.values() if w.shape == (5, 8))).astype(np.float64)
    x[:, gone] = 0.0
    y = x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.5) * weights["gamma"]
    found = Session(looked.cut([(group, gone)])).run(feed)["y"]
    np.testing.assert_allclose(found, y @ weights["out"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_rms_that_is_not_rescaled_is_caught(fused, monkeypatch):
    looked = look(_rms(fused))
    (group,) = looked.coupling.groups
    monkeypatch.setattr(rewriting, "_rescale", lambda *_: None)
    assert looked.error([(group, [1, 4, 5])]) > TOLERANCE


def test_rms_without_a_constant_scale_is_measured_on_the_cut_model_only():
    net = Net(17)
    x = net.linear(net.input("n", 5), 5, 8, name="in")
    mean = net.op("ReduceMean", net.op("Mul", x, x), axes=[-1])
    y = net.op("Div", x, net.op("Sqrt", net.op("Add", mean, net.constant(0.5))))
    net.output(net.linear(y, 8, 3, name="out"))
    looked = cuts_hold(net)
    assert not looked.group("in").exact
