"""How many samples go through a model at once."""

import numpy as np
import pytest

from onnxprune.options import Options
from onnxprune.ranking import sensitivity
from onnxprune.sensitivity import batching
from tests import nets


def at_once(net, output, shape, folder):
    found = nets.look(net.model({"x": shape}, output), folder)
    return batching.samples_at_once(found)


def products(wide, *, conv=False):
    """Two matrix products with ``wide`` floats between them, on 4 rows per sample."""
    net = nets.Net(3)
    y = net.linear(net.op("Tanh", net.linear("x", 6, wide // 4)), wide // 4, 3)
    if conv:
        y = net.op("Conv", y, net.weight(2, 4, 1))
    return net, y


@pytest.mark.parametrize(("wide", "count"), [(1 << 8, 32), (1 << 16, 16), (1 << 17, 8)])
def test_matrix_products_stay_near(wide, count, tmp_path):
    net, y = products(wide)
    assert at_once(net, y, ("N", 4, 6), tmp_path) == count


def test_but_a_few_samples_run_together(tmp_path):
    net, y = products(1 << 19)
    assert at_once(net, y, ("N", 4, 6), tmp_path) == 4


def test_convolutions_take_all(tmp_path):
    net, y = products(1 << 17, conv=True)
    assert at_once(net, y, ("N", 4, 6), tmp_path) == 32


@pytest.mark.parametrize("conv", [False, True])
def test_memory_comes_first(conv, tmp_path, monkeypatch):
    net, y = products(1 << 16, conv=conv)
    monkeypatch.setattr(batching, "MEMORY", 1 << 20)
    assert at_once(net, y, ("N", 4, 6), tmp_path) == 1


def test_figures_do_not_depend_on_it(tmp_path, monkeypatch):
    data = tmp_path / "x.npy"
    np.save(data, np.load(nets.MODELS / "digits_features.npz")["input"][:24])
    options = Options(data=data, method="perturbation", samples=24)
    path = nets.MODELS / "digits_mlp.onnx"
    many = sensitivity(path, options)
    monkeypatch.setattr(batching, "_MOST", 5)
    few = sensitivity(path, options)
    for one, other in zip(many.groups, few.groups, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-4, atol=1e-9)
