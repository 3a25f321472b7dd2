"""The cheap importance: activation energy times weight energy, summed over exits."""

import numpy as np
import pytest

from onnxprune.runtime.session import Session, with_outputs
from onnxprune.sensitivity.importance import activation_importance
from tests import nets


def exits(found, group, feeds):
    """Read the activations of a group off the original."""
    known = found.coupling.collected.constants
    values = [m.axis.value for m in group.members if m.axis.value not in known]
    session = Session(with_outputs(found.view.model, values))
    return [session.run(feed, values) for feed in feeds]


def test_energy_times_outgoing_weight(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    (group,) = found.coupling.groups
    feeds = list(found.samples.feeds(range(8), 4))
    scores = activation_importance(found.view, found.coupling, group, exits(found, group, feeds))
    a, b, w = (found.view.constant(n) for n in ("w0", "w1", "w2"))
    x = np.concatenate([f["x"] for f in feeds])
    wanted = (np.maximum(x @ a + b, 0) ** 2).mean(axis=0) * (w**2).sum(axis=1)
    np.testing.assert_allclose(scores, wanted / wanted.sum(), rtol=1e-4)


def test_channels_of_several_places_add_up(tmp_path):
    """A flattened feature map: one filter is 36 rows of the classifier."""
    found = nets.look(nets.concat(), tmp_path)
    group = nets.group_of(found, "Conv_5")
    feeds = list(found.samples.feeds(range(4), 4))
    scores = activation_importance(found.view, found.coupling, group, exits(found, group, feeds))
    flat = exits(found, group, feeds)[0]["v7"]
    energy = (flat.astype(np.float64) ** 2).mean(axis=0).reshape(3, 36).sum(axis=1)
    weight = (found.view.constant("w6") ** 2).reshape(3, -1).sum(axis=1)
    wanted = energy * weight
    np.testing.assert_allclose(scores, wanted / wanted.sum(), rtol=1e-4)


def test_several_exits_count_alike(tmp_path):
    """The readers' scales differ by 1e6; one channel matters to each."""
    net = nets.Net(11)
    h = net.op("Gemm", "x", net.const(np.eye(4, dtype=np.float32)))
    small, large = (np.full((4, 2), 0.1, np.float32) for _ in range(2))
    small[1], large[2] = 10, 10
    outputs = [net.op("Gemm", h, net.const(w * s)) for w, s in ((small, 1e-3), (large, 1e3))]
    found = nets.look(net.model({"x": ("N", 4)}, *outputs), tmp_path)
    (group,) = found.coupling.groups
    feeds = [{"x": np.ones((2, 4), np.float32)}]
    scores = activation_importance(found.view, found.coupling, group, exits(found, group, feeds))
    assert scores[1] == pytest.approx(scores[2], rel=1e-6)
    assert scores[1] > 100 * scores[0]


def test_dead_channels_score_nothing(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    (group,) = found.coupling.groups
    zero = {m.axis.value: np.zeros((4, 6), np.float32) for m in group.members}
    scores = activation_importance(found.view, found.coupling, group, [zero])
    assert scores.tolist() == [0.0] * 6
