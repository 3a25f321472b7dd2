"""The masked original: whole it equals the original, masked it equals what one masks by hand."""

import numpy as np
import pytest

from onnxprune.coupling.relations import Axis
from onnxprune.runtime.gates import gate, mask_name
from onnxprune.runtime.session import Session, with_outputs
from tests import nets

MAKERS = [
    nets.residual, nets.concat, nets.heads, nets.normed, nets.fused, nets.averaged, nets.branching,
    lambda: old_norm(13), lambda: two_means(17),
]  # fmt: skip


def old_norm(opset):
    """Mean over channels the way of old opsets, where axes are an attribute."""
    net = nets.Net(12, opset)
    y = net.conv("x", 3, 8)
    return net.model(nets.IMAGES, net.op("ReduceMean", y, axes=[1], keepdims=0))


def two_means(opset):
    """A mean over channels and pixels at once, beside a sum over the same channels."""
    net = nets.Net(13, opset)
    y = net.conv("x", 3, 8)
    mean = net.op("ReduceMean", y, axes=[1, 2, 3], keepdims=1)
    return net.model(nets.IMAGES, net.op("Add", net.conv(y, 8, 2), mean))


def gated_session(found):
    axes = [a for a in found.coupling.contracts if a not in found.coupling.frozen]
    gated = gate(found.view, found.traces[0], found.coupling, axes)
    return gated, Session(gated.model)


def feed_of(found):
    return next(found.samples.feeds(range(4), 4))


@pytest.mark.parametrize("make", MAKERS)
def test_whole_masks_change_nothing(make, tmp_path):
    found = nets.look(make(), tmp_path)
    gated, session = gated_session(found)
    assert gated.sizes
    feed = feed_of(found)
    whole = session.run({**feed, **gated.feeds({})})
    for name, array in Session(found.view.model).run(feed).items():
        np.testing.assert_allclose(whole[name], array, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["digits_resnet_bn", "digits_mobile", "digits_vit"])
def test_whole_masks_change_nothing_in_real_networks(name):
    found = nets.digits(name)
    gated, session = gated_session(found)
    feed = feed_of(found)
    whole = session.run({**feed, **gated.feeds({})})
    for output, array in Session(found.view.model).run(feed).items():
        np.testing.assert_allclose(whole[output], array, rtol=1e-4, atol=1e-5)


def test_masked_sum_by_hand(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    gated, session = gated_session(found)
    a, b, w, c = (found.view.constant(n).astype(np.float64) for n in ("w0", "w1", "w2", "w3"))
    keep = np.array([1, 0, 1, 1, 0, 1], bool)
    feed = feed_of(found)
    wanted = np.where(keep, np.maximum(feed["x"] @ a + b, 0), 0) @ w + c
    masks = gated.feeds({Axis("v1", 1): keep, Axis("w2", 0): keep})
    np.testing.assert_allclose(session.run({**feed, **masks})["v2"], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [13, 17, 18, 20])
def test_masked_mean_by_hand(opset, tmp_path):
    """The mean is taken over the kept channels only."""
    net = nets.Net(14, opset)
    y = net.conv("x", 3, 8)
    if opset < 18:
        mean = net.op("ReduceMean", y, axes=[1], keepdims=1)
    else:
        mean = net.op("ReduceMean", y, net.const(np.array([1])), keepdims=1)
    found = nets.look(net.model(nets.IMAGES, mean), tmp_path)
    gated, session = gated_session(found)
    keep = np.array([1, 1, 0, 1, 0, 0, 1, 0], bool)
    feed = feed_of(found)
    inner = inner_value(found, y, feed)
    masks = gated.feeds({Axis(y, 1): keep})
    np.testing.assert_allclose(
        session.run({**feed, **masks})[mean],
        inner[:, keep].mean(axis=1, keepdims=True),
        rtol=1e-4,
        atol=1e-6,
    )


@pytest.mark.parametrize("opset", [17, 18])
@pytest.mark.parametrize("bias", [True, False])
def test_masked_layer_norm_by_hand(opset, bias, tmp_path):
    net = nets.Net(15, opset)
    y = net.linear("x", 12, 8)
    vectors = [net.weight(8), net.weight(8)] if bias else [net.weight(8)]
    normal = net.op("LayerNormalization", y, *vectors, axis=-1, epsilon=0.1)
    out = net.op("MatMul", normal, net.weight(8, 3))
    found = nets.look(net.model(nets.ROWS, out), tmp_path)
    gated, session = gated_session(found)
    keep = np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)
    feed = feed_of(found)
    x = inner_value(found, y, feed).astype(np.float64)[..., keep]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 0.1)
    gamma, *beta = (found.view.constant(v)[keep] for v in vectors)
    x = x * gamma + (beta[0] if beta else 0)
    weight = found.view.constant(found.view.by_index[len(net.nodes) - 1].inputs[1])
    keeps = {axis: keep for axis, size in gated.sizes.items() if size == 8}
    found_ = session.run({**feed, **gated.feeds(keeps)})[out]
    np.testing.assert_allclose(found_, x @ weight[keep], rtol=1e-4, atol=1e-5)


def inner_value(found, name, feed):
    return Session(with_outputs(found.view.model, [name])).run(feed)[name]


def test_infinities_behind_a_closed_gate_do_not_turn_into_nan(tmp_path):
    """0 * -inf is NaN: a gate must choose, not multiply."""
    net = nets.Net(16)
    y = net.op("Log", net.op("Relu", net.op("Gemm", "x", net.weight(8, 6))))  # log 0 = -inf
    found = nets.look(net.model({"x": ("N", 8)}, net.op("Gemm", y, net.weight(6, 3))), tmp_path)
    gated, session = gated_session(found)
    shut = {axis: np.zeros(size, bool) for axis, size in gated.sizes.items()}
    feed = feed_of(found)
    assert not np.isfinite(session.run({**feed, **gated.feeds({})})["v3"]).all()
    np.testing.assert_array_equal(session.run({**feed, **gated.feeds(shut)})["v3"], 0)


def test_the_same_value_in_two_slots_is_gated_in_both(tmp_path):
    net = nets.Net(17)
    y = net.linear("x", 12, 8)
    squared = net.op("MatMul", y, net.op("Transpose", y, perm=[0, 2, 1]))
    found = nets.look(net.model(nets.ROWS, squared), tmp_path)
    gated, session = gated_session(found)
    keep = np.arange(8) % 3 > 0
    feed = feed_of(found)
    inner = inner_value(found, y, feed)[..., keep].astype(np.float64)
    masks = gated.feeds(dict.fromkeys(gated.sizes, keep))
    np.testing.assert_allclose(
        session.run({**feed, **masks})[squared], inner @ inner.swapaxes(1, 2), rtol=1e-4, atol=1e-5
    )


def test_axes_without_an_exit_are_passed_over(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    gated = gate(found.view, found.traces[0], found.coupling, [Axis("v2", 1), Axis("nothing", 0)])
    assert gated.sizes == {}
    assert gated.feeds({}) == {}
    assert list(gated.model.graph.node) == list(found.view.model.graph.node)


def test_feeds_have_the_masks_shape_and_the_ratio(tmp_path):
    found = nets.look(nets.averaged(), tmp_path)
    gated, _ = gated_session(found)
    (axis,) = gated.ratios
    keep = np.arange(8) < 2
    feeds = gated.feeds({axis: keep})
    assert feeds[mask_name(axis)].shape == (8, 1, 1)
    assert [v for n, v in feeds.items() if "ratio" in n] == [np.float32(4.0)]


def test_the_original_is_not_changed(tmp_path):
    found = nets.look(nets.normed(), tmp_path)
    before = found.view.model.SerializeToString(deterministic=True)
    gated_session(found)
    assert found.view.model.SerializeToString(deterministic=True) == before
