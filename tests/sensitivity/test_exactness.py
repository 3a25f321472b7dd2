"""The fast way equals a session per channel: on every model of models/, and on random graphs."""

import numpy as np
import pytest

from onnxprune.model.frontier import float_frontier
from onnxprune.runtime.session import Session, with_outputs
from onnxprune.runtime.suffix import Suffix
from onnxprune.sensitivity.measurer import Measurer
from onnxprune.sensitivity.request import Batches, Request
from tests import nets
from tests.sensitivity import naive
from tests.sensitivity.random_nets import random_net

_SAMPLES = 6


def measurer(found, samples=_SAMPLES, **choices):
    fit = list(found.samples.feeds(np.arange(samples), 4))
    return Measurer(
        Request(
            view=found.view,
            trace=found.traces[0],
            coupling=found.coupling,
            groups=tuple(g for g in found.coupling.groups if g.exact),
            batches=Batches(fit, []),
            outputs=float_frontier(found.view, found.traces[0]),
            **choices,
        )
    )


def fast_scores(measuring, group, channels):
    """Relative squared changes of some channels."""
    ready = measuring.prepare(group)
    scores = np.zeros(len(channels))
    masks = {channel: measuring.masks(group, [channel]) for channel in channels}
    for number, feed in enumerate(measuring.batches.fit):
        removed = measuring.removed(ready, group, number, feed, masks)
        for place, found in enumerate(removed):
            change = measuring.fit.vector(number, found).astype(np.float64)
            scores[place] += (change**2).sum()
    return scores


def assert_equal_to_a_session_per_channel(found, measuring, group, channels):
    feeds = measuring.batches.fit
    clean = naive.run_all(found, found.view.model, feeds)
    slow = [
        naive.distance(clean, naive.run_all(found, naive.zeroed(found, group, c), feeds))
        for c in channels
    ]
    fast = np.sqrt(fast_scores(measuring, group, channels))
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=2e-6, err_msg=group.name)


@pytest.mark.parametrize("name", sorted(nets.DATA))
def test_every_model_of_the_repository(name):
    found = nets.digits(name)
    measuring = measurer(found)
    rng = np.random.default_rng(0)
    for group in measuring.asked.groups:
        channels = rng.choice(group.size, min(group.size, 3), replace=False).tolist()
        assert_equal_to_a_session_per_channel(found, measuring, group, channels)


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed, tmp_path):
    found = nets.look(random_net(seed), tmp_path, samples=8)
    measuring = measurer(found)
    assert measuring.asked.groups
    for group in measuring.asked.groups:
        channels = range(min(group.size, 5))
        assert_equal_to_a_session_per_channel(found, measuring, group, channels)


def assert_equal_one_by_one(found, measuring, monkeypatch):
    """Few samples, stacked where they can be: return the groups where they were."""
    stacked = []
    for group in measuring.asked.groups:
        masks = {c: measuring.masks(group, [c]) for c in range(min(group.size, 14))}
        ready, (feed,) = measuring.prepare(group), measuring.batches.fit
        if measuring.stack(ready, feed, [*masks.values()]) is not None:
            stacked.append(group)
        fast = fast_scores(measuring, group, masks)
        with monkeypatch.context() as patch:
            patch.setattr(measuring, "stack", lambda *_: None)
            slow = fast_scores(measuring, group, masks)
        np.testing.assert_allclose(fast, slow, rtol=2e-4, atol=1e-11, err_msg=group.name)
    return stacked


@pytest.mark.parametrize("name", sorted(nets.DATA))
def test_few_samples_are_stacked(name, monkeypatch):
    """But not where units are recurrent, nor where a normalization carries what is lost."""
    measuring = measurer(nets.digits(name), samples=3)
    stacked = assert_equal_one_by_one(nets.digits(name), measuring, monkeypatch)
    if name in {"digits_lstm", "digits_gru"}:
        assert not stacked
    elif name == "digits_vit":
        names = {g.name for g in stacked}
        assert "/layers/layers.2/think/think.1/MatMul" in names, "no linear layer behind it"
        assert "/layers/layers.1/think/think.1/MatMul" not in names
    else:
        assert stacked == [*measuring.asked.groups]


@pytest.mark.parametrize("seed", range(12))
def test_few_samples_of_random_graphs(seed, tmp_path, monkeypatch):
    found = nets.look(random_net(seed), tmp_path, samples=8)
    assert_equal_one_by_one(found, measurer(found, samples=2), monkeypatch)


def test_samples_that_see_one_another_behind_the_gates_stay_apart(tmp_path, monkeypatch):
    """What is measured of two samples hangs on both: no other may stand beside them."""
    net = nets.Net(41)
    y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6), net.weight(6)))
    y = net.op("Gemm", y, net.weight(6, 3))
    y = net.op("Div", y, net.op("ReduceL2", y, axes=[0], keepdims=1))
    found = nets.look(net.model({"x": ("N", 8)}, y), tmp_path)
    assert not assert_equal_one_by_one(found, measurer(found, samples=3), monkeypatch)


@pytest.mark.parametrize("memory", [1, 3_000, 30_000])
def test_what_does_not_fit_into_memory_is_computed_anew(memory, tmp_path):
    fitted = 0
    for found in (nets.look(random_net(4), tmp_path, samples=8), nets.digits("digits_mobile")):
        measuring, limited = measurer(found), measurer(found, memory=memory)
        for group in measuring.asked.groups[::2]:
            channels = range(min(group.size, 3))
            suffix = limited.prepare(group).suffix
            usual = measuring.prepare(group).suffix
            fitted += suffix.boundary.keys() == usual.boundary.keys()
            assert cached(limited, suffix) <= memory or set(suffix.boundary) <= {*found.view.inputs}
            fast, slow = (fast_scores(m, group, channels) for m in (measuring, limited))
            np.testing.assert_allclose(slow, fast, rtol=1e-4, atol=1e-11, err_msg=group.name)
    assert bool(fitted) == (memory > 1)


def cached(measuring, suffix):
    """Bytes that the first batch takes."""
    feed = measuring.batches.fit[0]
    inner = [v for v in suffix.boundary.values() if v not in feed]
    values = (
        {**feed, **(Session(with_outputs(measuring.view.real, inner)).run(feed))} if inner else feed
    )
    return sum(array.nbytes for array in suffix.cache(values).values())


def rows_run(monkeypatch):
    """Note how many samples every run of a suffix gets."""
    seen = []
    run = Suffix.run

    def spy(self, cache, keeps):
        seen.append(max(len(array) for array in cache.values()))
        return run(self, cache, keeps)

    monkeypatch.setattr(Suffix, "run", spy)
    return seen


def silent(offset):
    """Gemm, Relu, Gemm: channel 0 never fires, channel 1 always, channel 2 where x[0] > 0."""
    net = nets.Net(40)
    weight = np.zeros((4, 3), np.float32)
    weight[0, 2] = 1
    bias = np.array([-1, 1, offset], np.float32)
    y = net.op("Relu", net.op("Gemm", "x", net.const(weight), net.const(bias)))
    return net.model({"x": ("N", 4)}, net.op("Gemm", y, net.weight(3, 2)))


def test_samples_that_a_channel_is_silent_on_are_not_run(tmp_path, monkeypatch):
    found = nets.look(silent(0.0), tmp_path)
    measuring = measurer(found)
    (group,) = measuring.asked.groups
    feeds = measuring.batches.fit
    fires = [int((feed["x"][:, 0] > 0).sum()) for feed in feeds]
    assert any(0 < count < len(feed["x"]) for count, feed in zip(fires, feeds, strict=True))
    seen = rows_run(monkeypatch)
    scores = fast_scores(measuring, group, [0])
    assert scores == 0
    assert not seen
    fast_scores(measuring, group, [1])
    assert seen == [len(feed["x"]) for feed in feeds]
    seen.clear()
    fast_scores(measuring, group, [2])
    checked = [
        c for n, f in zip(fires, feeds, strict=True) if n for c in dict.fromkeys([n, len(f["x"])])
    ]
    assert seen == checked, "some samples, and all of them once to see that these stand alone"


def test_statistics_are_never_taken_for_silence(tmp_path):
    """A channel of zeros still counts in a mean."""
    for make in (nets.normed, nets.averaged):
        found = nets.look(make(), tmp_path)
        measuring = measurer(found)
        bent = [g for g in found.coupling.groups if not g.exact]
        assert bent
        for group in bent:
            assert measuring.prepare(group).exits is None


def test_samples_that_see_one_another_are_run_together(tmp_path):
    """Each sample is compared with the mean of its batch."""
    net = nets.Net(41)
    y = net.op("Relu", net.op("Gemm", "x", net.weight(6, 8), net.weight(8)))
    y = net.op("Gemm", y, net.weight(8, 4))
    y = net.op("Sub", y, net.op("ReduceMean", y, axes=[0], keepdims=1))
    found = nets.look(net.model({"x": ("N", 6)}, net.op("Tanh", y)), tmp_path)
    measuring = measurer(found)
    (group,) = measuring.asked.groups
    assert_equal_to_a_session_per_channel(found, measuring, group, range(group.size))
