"""Normalizations over groups of channels, as exporters write them."""

import numpy as np
import pytest

from onnxprune.rewrite.verify import TOLERANCE
from tests.coupling.nets import Net, cuts_hold, look

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
