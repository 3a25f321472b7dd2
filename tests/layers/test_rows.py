"""Rows times weight is what the layer computes, at the chosen places."""

import numpy as np
import pytest

from onnxprune.layers.rows import input_rows, output_rows, places_of, weight_matrix
from onnxprune.layers.sites import find_sites
from onnxprune.runtime.session import Session
from tests import nets

RNG = np.random.default_rng


def looked(node_type, x_shape, weight, tmp_path, **attributes):
    net = nets.Net()
    w = net.const(weight.astype(np.float32))
    net.op(node_type, "x", w, **attributes)
    model = net.model({"x": ("N", *x_shape)}, "v0")
    found = nets.look(model, tmp_path)
    (site,) = find_sites(found.view, found.traces[0], found.coupling.collected)
    x = RNG(1).standard_normal((3, *x_shape)).astype(np.float32)
    return found, site, x, Session(model).run({"x": x})["v0"]


@pytest.mark.parametrize(
    ("shape", "kernel", "attributes"),
    [
        ((4, 9, 8), (3, 3), {"pads": [1, 1, 1, 1]}),
        ((4, 9, 8), (3, 2), {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
        ((4, 12, 12), (3, 3), {"dilations": [2, 3]}),
        ((4, 9, 8), (3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 9, 8), (2, 2), {"auto_pad": "SAME_LOWER"}),
        ((4, 11), (3,), {"pads": [1, 1]}),
        ((4, 5, 5, 5), (2, 2, 2), {}),
        ((4, 30, 30), (1, 1), {}),
    ],
)
def test_convolutions(shape, kernel, attributes, tmp_path):
    weight = RNG(0).standard_normal((6, shape[0], *kernel))
    found, site, x, y = looked("Conv", shape, weight, tmp_path, **attributes)
    places = places_of(found.traces[0], site, RNG(2))
    rows = input_rows(site, x, weight, places)
    wanted = output_rows(y, places)
    assert rows.shape == (3 * min(np.prod(y.shape[2:]), 64), weight[0].size)
    np.testing.assert_allclose(rows @ weight_matrix(site, weight), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed, tmp_path):
    weight = RNG(0).standard_normal((5, 7) if transposed else (7, 5))
    found, site, x, y = looked("Gemm", (7,), weight, tmp_path, transB=transposed)
    assert places_of(found.traces[0], site, RNG(2)) is None
    rows = input_rows(site, x, weight, None)
    np.testing.assert_allclose(
        rows @ weight_matrix(site, weight), output_rows(y, None), rtol=1e-3, atol=1e-5
    )


def test_grouped_convolutions_have_no_matrix(tmp_path):
    weight = RNG(0).standard_normal((6, 2, 3, 3))
    _, site, _, _ = looked("Conv", (6, 8, 8), weight, tmp_path, group=3)
    assert weight_matrix(site, weight) is None


def test_what_is_no_site(tmp_path):
    net = nets.Net()
    product = net.op("MatMul", "x", net.op("Transpose", "x", perm=[0, 2, 1]))
    found = nets.look(net.model({"x": ("N", 4, 6)}, product), tmp_path)
    assert list(find_sites(found.view, found.traces[0], found.coupling.collected)) == []


def test_skips_are_found_behind_a_normalization():
    found = nets.digits("digits_resnet_bn")
    sites = list(find_sites(found.view, found.traces[0], found.coupling.collected))
    assert any(s.skip is not None for s in sites)
    for site in sites:
        if site.skip is not None:
            add = found.view.producers[site.total]
            assert add.op_type == "Add"
            assert site.skip in add.inputs
