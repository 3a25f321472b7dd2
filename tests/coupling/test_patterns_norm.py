"""Normalizations over groups of channels, as exporters write them."""

import numpy as np
import pytest

from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.rewrite.verify import TOLERANCE
from tests.coupling.nets import Net, cuts_hold, look

_SIZE = 4


_WAYS = ["spelled out", "with a dynamic shape", "native"]


def _normed(net, x, channels, groups, way="spelled out"):
    """GroupNormalization, or as torch writes it: groups for channels, channels for places."""
    if way == "native":
        vectors = net.weight(channels), net.weight(channels)
        return net.op("GroupNormalization", x, *vectors, num_groups=groups)
    ones = net.constant(np.ones(groups, np.float32)), net.constant(np.zeros(groups, np.float32))
    constant = [0, channels, _SIZE, _SIZE]
    shape = net.constant(constant) if way == "spelled out" else net.op("Shape", x)
    y = net.op("Reshape", x, net.constant([0, groups, -1]))
    y = net.op("Reshape", net.op("InstanceNormalization", y, *ones), shape)
    return net.op("Add", net.op("Mul", y, net.weight(channels, 1, 1)), net.weight(channels, 1, 1))


def _net(groups, way="spelled out", *, residual=False, channels=8):
    net = Net(21 if way == "native" else 17)
    x = net.conv(net.input("n", 3, _SIZE, _SIZE), 3, channels, 3, name="in")
    y = net.conv(_normed(net, x, channels, groups, way), channels, channels, name="mid")
    y = net.op("Add", x, y) if residual else y
    net.output(net.conv(net.op("Relu", y), channels, 4, name="head"))
    return net.model(10)


@pytest.mark.parametrize("way", _WAYS)
def test_one_group(way):
    looked = cuts_hold(_net(1, way))
    assert {(g.name, g.size, g.step, g.exact) for g in looked.coupling.groups} == {
        ("in", 8, 1, False),
        ("mid", 8, 1, True),
    }


@pytest.mark.parametrize("way", _WAYS)
@pytest.mark.parametrize("residual", [False, True])
def test_several_groups_lose_as_many_channels(residual, way):
    looked = cuts_hold(_net(4, way, residual=residual))
    kinds = {(g.size, g.step, g.exact) for g in looked.coupling.groups if g.name.startswith("in")}
    assert kinds == {(4, 1, True), (8, 4, False)}  # whole groups, or one channel of each


@pytest.mark.parametrize("way", _WAYS)
def test_each_group_loses_channels_of_its_own(way):
    looked = look(_net(2, way))
    group = next(g for g in looked.coupling.groups if g.step == 2)
    assert looked.error([(group, [0, 1, 5, 7])]) <= TOLERANCE


@pytest.mark.parametrize("way", _WAYS)
def test_both_readings_together(way):
    looked = look(_net(4, way, channels=16))
    whole, inner = (
        next(g for g in looked.coupling.groups if "in" in g.nodes and g.step == step)
        for step in (1, 4)
    )
    gone = [0, 1, 5, 6, 8, 11, 13, 14]
    assert looked.error([(whole, [2])]) <= TOLERANCE
    assert looked.error([(inner, gone)]) <= TOLERANCE
    assert looked.error([(whole, [2]), (inner, gone)]) <= TOLERANCE


def test_groups_that_keep_other_numbers_of_channels_are_refused():
    looked = look(_net(2, "native"))
    group = next(g for g in looked.coupling.groups if g.step == 2)
    with pytest.raises(UnrepresentableError, match="equally many"):
        looked.cut([(group, [0, 1, 5])])


def test_as_many_groups_as_channels_are_independent():
    looked = cuts_hold(_net(8, "native"))
    assert {(g.name, g.size, g.exact) for g in looked.coupling.groups} == {
        ("in", 8, True),
        ("mid", 8, True),
    }


def _unet(widths, groups):
    """Blocks of a diffusion network: the last normalization runs over two streams side by side."""
    first, second = widths
    net = Net()
    x = net.conv(net.input("n", 3, _SIZE, _SIZE), 3, first, name="in")
    y = net.conv(net.op("Relu", _normed(net, x, first, groups[0])), first, second, name="mid")
    z = net.conv(net.op("Relu", _normed(net, y, second, groups[1])), second, second, name="back")
    both = net.op("Concat", net.op("Add", y, z), x, axis=1)
    total = first + second
    net.output(net.conv(net.op("Relu", _normed(net, both, total, groups[2])), total, 4))
    return net


@pytest.mark.parametrize(("widths", "step"), [((32, 32), 16), ((32, 64), 24)])
def test_streams_side_by_side_lose_channels_together(widths, step):
    """Groups of 8 over streams with groups of 4 and 8: as large a share of each goes."""
    looked = cuts_hold(_unet(widths, (8, 8, 8)))
    inner = next(g for g in looked.coupling.groups if not g.exact)
    assert (inner.size, inner.step) == (sum(widths), step)


def test_streams_whose_groups_never_meet_stay_whole():
    """Groups of 6 and, over the same channels, of 5: no cut but all or nothing keeps both even.

    If a of each 6 and m of each 5 go, 5 a = 6 m of the first 30 go, so that 6 divides a.
    """
    looked = look(_unet((32, 48), (8, 8, 16)))
    assert looked.coupling.groups == ()


def test_instance_norm_over_places_stays_as_it_is():
    net = Net()
    x = net.conv(net.input("n", 3, _SIZE, _SIZE), 3, 8, name="in")
    x = net.op("InstanceNormalization", x, net.weight(8), net.weight(8))
    net.output(net.conv(x, 8, 4, name="head"))
    looked = cuts_hold(net)
    assert looked.found == {("in", "filter", 8)}
    assert looked.group("in").exact
