"""Rows times weight is what the layer computes, at the chosen places."""

import numpy as np
import pytest

from onnxprune.layers.rows import input_rows, output_rows, places_of, weight_blocks, weight_of
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
    assert rows.shape == (1, 3 * min(np.prod(y.shape[2:]), 64), weight[0].size)
    made = rows[0] @ weight_blocks(site, weight)[0]
    np.testing.assert_allclose(made, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("op", "shape", "weight", "attributes"),
    [
        ("Conv", (6, 8, 8), (6, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
        ("Conv", (4, 9, 9), (8, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
        ("ConvTranspose", (4, 7, 6), (4, 5, 3, 3), {"strides": [2, 2], "pads": [1, 0, 1, 1]}),
        ("ConvTranspose", (4, 7, 6), (4, 5, 2, 3), {"dilations": [2, 1]}),
        ("ConvTranspose", (6, 9), (6, 2, 4), {"group": 3, "strides": [3], "output_padding": [1]}),
    ],
)
def test_groups_and_transposed_convolutions(op, shape, weight, attributes, tmp_path):
    weight = RNG(0).standard_normal(weight)
    found, site, x, y = looked(op, shape, weight, tmp_path, **attributes)
    groups = attributes.get("group", 1)
    places = places_of(found.traces[0], site, RNG(2))
    blocks = weight_blocks(site, weight, groups)
    made = input_rows(site, x, weight, places, groups) @ blocks
    made = made.transpose(1, 0, 2).reshape(made.shape[1], -1)
    np.testing.assert_allclose(made, output_rows(y, places), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(weight_of(site, blocks, weight.shape), weight)


def test_of_many_tokens_the_same_are_drawn_before_and_behind(tmp_path):
    weight = RNG(0).standard_normal((7, 5))
    found, site, x, y = looked("MatMul", (40, 7), weight, tmp_path)
    places = places_of(found.traces[0], site, RNG(2), samples=1000, batch=1)
    rows = input_rows(site, x, weight, places)
    assert rows.shape == (1, 64, 7), "64 per sample of a feed"
    np.testing.assert_allclose(
        rows[0] @ weight_blocks(site, weight)[0], output_rows(y, places), rtol=1e-3, atol=1e-5
    )
    assert len(np.unique(rows[0], axis=0)) == 64


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed, tmp_path):
    weight = RNG(0).standard_normal((5, 7) if transposed else (7, 5))
    found, site, x, y = looked("Gemm", (7,), weight, tmp_path, transB=transposed)
    places = places_of(found.traces[0], site, RNG(2))
    rows = input_rows(site, x, weight, places)
    np.testing.assert_allclose(
        rows[0] @ weight_blocks(site, weight)[0], output_rows(y, places), rtol=1e-3, atol=1e-5
    )
    np.testing.assert_array_equal(
        weight_of(site, weight_blocks(site, weight), weight.shape), weight
    )


@pytest.mark.parametrize(
    ("attributes", "bounds"),
    [({}, (0.0, np.inf)), ({"min": -1.0, "max": 6.0}, (-1.0, 6.0)), ({"max": 6.0}, (-np.inf, 6.0))],
)
def test_what_an_activation_lets_through(attributes, bounds, tmp_path):
    net = nets.Net()
    made = net.op("Gemm", "x", net.const(np.ones((4, 3), np.float32)))
    low, high = (
        net.const(np.float32(attributes[k])) if k in attributes else "" for k in ("min", "max")
    )
    out = net.op("Clip", made, low, high) if attributes else net.op("Relu", made)
    found = nets.look(net.model({"x": ("N", 4)}, out), tmp_path)
    (site,) = find_sites(found.view, found.traces[0], found.coupling.collected)
    assert site.gate == bounds


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
