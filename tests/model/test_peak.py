"""The most activations that are alive at once."""

import numpy as np

from onnxprune.model.peak import peak_activations
from onnxprune.model.view import build_view
from onnxprune.runtime.trace import trace
from tests import nets


def peak(model, feed, folder):
    view = build_view(model, folder)
    return peak_activations(view, trace(view, feed))


def test_a_chain_holds_two_values_at_a_time(tmp_path):
    """Floats: 12 -> 64 -> relu 64 -> 4; both sides of the Relu are alive together."""
    feed = {"x": np.ones((1, 12), np.float32)}
    assert peak(nets.mlp(12, 64, 4), feed, tmp_path) == 4 * (64 + 64)
    assert peak(nets.mlp(12, 32, 4), feed, tmp_path) == 4 * (32 + 32)


def test_a_skip_stays_alive_until_it_is_added(tmp_path):
    net = nets.Net(0)
    wide = net.op("Relu", net.linear("x", 12, 40))
    total = net.op("Add", wide, net.linear(net.linear(wide, 40, 8), 8, 40))
    model = net.model({"x": ("N", 12)}, net.linear(total, 40, 2))
    found = peak(model, {"x": np.ones((1, 12), np.float32)}, tmp_path)
    assert found == 4 * 3 * 40  # the skip, the branch's product and its sum with a bias


def test_it_grows_with_the_batch(tmp_path):
    one, three = (
        peak(nets.mlp(12, 64, 4), {"x": np.ones((n, 12), np.float32)}, tmp_path) for n in (1, 3)
    )
    assert three == 3 * one
