"""Which streams may be turned, and that the best directions are the best."""

import numpy as np
import pytest

from onnxprune.layers.readers import Reader, dense_sites
from onnxprune.layers.subspace import is_linear, subspace
from onnxprune.sensitivity.reconstruction import eliminate
from tests import nets


def reader(x, weight, spread=1.0):
    places = np.arange(len(weight))[:, None]
    worth = np.full(weight.shape[1], 1 / spread)
    return Reader(None, np.cov(x.T, bias=True), x.mean(axis=0), weight, places, worth)


def low_rank(rng, rank=3, size=8, n=500):
    return rng.standard_normal((n, rank)) @ rng.standard_normal((rank, size)) + 1.0


def test_a_stream_of_low_rank_loses_nothing():
    rng = np.random.default_rng(0)
    r = reader(low_rank(rng), rng.standard_normal((8, 5)))
    found = subspace([r])
    assert found.errors[5] < 1e-4 * found.errors[8]
    assert found.errors[6] > 1e-2 * found.errors[8]
    # Coordinates of that stream can be spared as well, but no fewer than its rank.
    assert found.errors[5] <= eliminate([r], np.zeros(8, int)).errors[5] + 1e-6


def test_directions_beat_coordinates():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((900, 12)) @ rng.standard_normal((12, 12))
    r = reader(x, rng.standard_normal((12, 4)))
    turned, plain = subspace([r]), eliminate([r], np.zeros(12, int))
    assert (turned.errors[1:11] < plain.errors[1:11]).all()
    assert (np.diff(turned.errors) >= 0).all()


def test_the_error_is_that_of_the_stand_in():
    rng = np.random.default_rng(2)
    x = rng.standard_normal((900, 6)) @ rng.standard_normal((6, 6))
    readers = [reader(x, rng.standard_normal((6, 4)), 2.0), reader(x, rng.standard_normal((6, 3)))]
    found = subspace(readers)
    for gone in (1, 3, 5):
        lost = 0.0
        for r in readers:
            change = r.weight - found.stand_in(r, gone)
            lost += (change * (r.moments @ change)).sum() * r.worth[0]
        assert found.errors[gone] == pytest.approx(lost, rel=1e-3)


def linear_groups(net, output, tmp_path):
    found = nets.look(net.model({"x": ("N", 3, 8, 8)}, output), tmp_path)
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    return {g.size: is_linear(found.view, found.coupling, g, sites) for g in found.coupling.groups}


def conv(net, value, inputs, outputs, seed=0):
    rng = np.random.default_rng(seed)
    weight = net.const(rng.standard_normal((outputs, inputs, 1, 1)).astype(np.float32))
    return net.op("Conv", value, weight, net.const(rng.standard_normal(outputs).astype(np.float32)))


@pytest.mark.parametrize("between", ["", "Relu", "skip", "skip Relu", "depthwise", "BatchNorm"])
def test_only_linear_streams_may_be_turned(between, tmp_path):
    net = nets.Net()
    stream = conv(net, "x", 3, 6)
    if between == "Relu":
        stream = net.op("Relu", stream)
    elif between.startswith("skip"):
        inner = net.op("Relu", conv(net, stream, 6, 10))
        stream = net.op("Add", stream, conv(net, inner, 10, 6))
        stream = net.op("Relu", stream) if "Relu" in between else stream
    elif between == "depthwise":
        stream = net.op("Conv", stream, net.const(np.ones((6, 1, 1, 1), np.float32)), group=6)
    elif between == "BatchNorm":
        ones = [net.const(np.full(6, v, np.float32)) for v in (2.0, 1.0, 0.5, 1.0)]
        stream = net.op("BatchNormalization", stream, *ones)
    out = conv(net, net.op("Relu", conv(net, stream, 6, 9)), 9, 2)
    linear = linear_groups(net, out, tmp_path)
    assert linear[6] == (between in ("", "skip"))
    assert not linear[9]
