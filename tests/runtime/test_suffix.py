"""The suffix gives what the whole gated model gives, from cached activations."""

import numpy as np
import pytest

from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Session, with_outputs
from onnxprune.runtime.suffix import make_suffix
from tests import nets

MAKERS = [
    nets.residual,
    nets.concat,
    nets.heads,
    nets.normed,
    nets.fused,
    nets.averaged,
    nets.resized,
    nets.branching,
]


def parts(found, group, room=1e18):
    axes = [m.axis for m in group.members]
    gated = gate(found.view, found.traces[0], found.coupling, axes)
    suffix = make_suffix(gated, found.view.outputs, found.traces[0], room=room)
    return gated, suffix


def cached(found, suffix, feed):
    names = dict.fromkeys(v for v in suffix.boundary.values() if v not in feed)
    inner = Session(with_outputs(found.view.model, [*names])).run(feed) if names else {}
    return suffix.cache({**feed, **inner})


def random_keeps(gated, seed):
    """One mask for all axes of a group of one place per channel; else everything stays."""
    rng = np.random.default_rng(seed)
    sizes = set(gated.sizes.values())
    masks = {size: rng.random(size) < 0.6 for size in sizes}
    return {axis: masks[size] for axis, size in gated.sizes.items()}


@pytest.mark.parametrize("room", [1e18, 900.0, 0.0], ids=["all", "some", "nothing"])
@pytest.mark.parametrize("make", MAKERS)
def test_equals_the_whole_gated_model(make, room, tmp_path):
    found = nets.look(make(), tmp_path)
    feed = next(found.samples.feeds(range(4), 4))
    for group in found.coupling.groups:
        gated, suffix = parts(found, group, room)
        assert room or set(suffix.boundary) == set(found.view.inputs)
        for seed in range(3):
            keeps = random_keeps(gated, seed)
            fast = suffix.run(cached(found, suffix, feed), keeps)
            slow = Session(gated.model).run({**feed, **gated.feeds(keeps)})
            assert fast.keys() == slow.keys()
            for name, array in slow.items():
                np.testing.assert_allclose(fast[name], array, rtol=1e-4, atol=1e-5)


def test_boundary_is_what_crosses_and_nothing_else(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    _, suffix = parts(found, nets.group_of(found, "Conv_2"))
    assert set(suffix.boundary.values()) == {"v1", "v3", "v4"}, (
        "the shortcut, the gated activation and what its first reader gives"
    )
    assert suffix.outputs == found.view.outputs


def test_inputs_that_the_suffix_reads_are_named(tmp_path):
    net = nets.Net(18)
    y = net.conv(net.conv("x", 3, 4), 4, 3)
    found = nets.look(net.model(nets.IMAGES, net.op("Add", y, "x")), tmp_path)
    _, suffix = parts(found, found.coupling.groups[0])
    assert set(suffix.boundary.values()) == {"x", "v0", "v1"}


def test_outputs_that_no_gate_reaches_are_left_out(tmp_path):
    net = nets.Net(19)
    y = net.op("Gemm", net.op("Gemm", "x", net.weight(8, 6)), net.weight(6, 3))
    other = net.op("Relu", "x")
    found = nets.look(net.model({"x": ("N", 8)}, other, y), tmp_path)
    _, suffix = parts(found, found.coupling.groups[0])
    assert suffix.outputs == (y,)


def test_gates_that_reach_nothing_need_no_session(tmp_path):
    found = nets.look(nets.dead_end(), tmp_path)
    lost = nets.group_of(found, "Gemm_1")
    gated, suffix = parts(found, lost)
    assert gated.sizes
    assert suffix.session is None
    assert suffix.run({}, {}) == {}
