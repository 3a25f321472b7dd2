"""The joint change of many channels, from one expansion about the thinned network."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from onnxprune.coupling.keeps import keep_masks
from onnxprune.model.frontier import float_frontier
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Session, with_outputs
from onnxprune.sensitivity.joint import expand
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.thinned import thin
from tests import nets
from tests.sensitivity import naive


class Joint:
    """What removals predict, and what they really do."""

    def __init__(self, found, feeds):
        self.found, self.feeds = found, feeds
        self.groups = [g for g in found.coupling.groups if g.exact]
        self.outputs = float_frontier(found.view, found.traces[0])
        axes = [m.axis for g in self.groups for m in g.members]
        self.gated = gate(found.view, found.traces[0], found.coupling, axes)
        self.session = Session(with_outputs(self.gated.model, self.outputs))
        self.clean = OutputChange(self.run({}))

    def run(self, gone):
        pairs = [(g, gone.get(g.name, ())) for g in self.groups]
        masks = self.gated.feeds(keep_masks(pairs, self.found.coupling.collected.sizes))
        return [self.session.run({**feed, **masks}, self.outputs) for feed in self.feeds]

    def error(self, gone):
        moved = (self.clean.vector(n, out) for n, out in enumerate(self.run(gone)))
        return sum(float((v.astype(np.float64) ** 2).sum()) for v in moved)

    def expand(self, share):
        found = self.found
        return expand(
            found.view, found.traces[0], found.coupling, self.groups, self.feeds,
            outputs=self.outputs, share=share,
        )  # fmt: skip

    def draw(self, rng, share):
        every = [(g.name, c) for g in self.groups for c in range(g.size)]
        picks = [every[i] for i in rng.permutation(len(every))[: int(share * len(every))]]
        return {g.name: [c for name, c in picks if name == g.name] for g in self.groups}


def chained():
    """Nothing bends, but channels of one layer pass through those of the next two."""
    net, rng = nets.Net(3), np.random.default_rng(3)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.conv("x", 3, 16)))
    for _ in range(3):
        y = net.op("MatMul", y, net.const(rng.uniform(0, 1, (16, 16)).astype(np.float32)))
    return net.model(nets.IMAGES, y)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_one_group_of_a_linear_network_is_exact(share, tmp_path):
    found = nets.look(chained(), tmp_path)
    joint = Joint(found, naive.batches(found).fit)
    joint.groups = joint.groups[:1]
    gone = {joint.groups[0].name: [0, 2, 3]}
    assert joint.expand(share).error(gone) == pytest.approx(joint.error(gone), rel=1e-4)
    assert joint.expand(share).error({}) == pytest.approx(0.0, abs=1e-9)


def test_the_middle_predicts_layers_in_a_row_better_than_the_whole(tmp_path):
    found = nets.look(chained(), tmp_path)
    joint = Joint(found, naive.batches(found).fit)
    assert len(joint.groups) == 3
    rng, misses = np.random.default_rng(0), {}
    whole, middle = joint.expand(0.0), joint.expand(0.4)
    draws = [joint.draw(rng, 0.4) for _ in range(30)]
    for name, expansion in (("whole", whole), ("middle", middle)):
        misses[name] = np.median([abs(np.log(expansion.error(g) / joint.error(g))) for g in draws])
    assert misses["middle"] < 0.5 * misses["whole"], misses


@pytest.mark.parametrize(("name", "least"), [("digits_mlp", 0.85), ("digits_gru", 0.75)])
def test_random_fifths_of_real_networks_are_ranked(name, least):
    found = nets.digits(name, 64)
    joint = Joint(found, list(found.samples.feeds(np.arange(64), 32)))
    expansion, rng = joint.expand(0.2), np.random.default_rng(1)
    draws = [joint.draw(rng, 0.2) for _ in range(60)]
    true, said = [joint.error(g) for g in draws], [expansion.error(g) for g in draws]
    assert spearmanr(true, said).statistic > least


def test_softmax_is_taken_exactly(tmp_path):
    net = nets.Net(5)
    y = net.op("Flatten", net.op("GlobalAveragePool", net.conv("x", 3, 8)))
    y = net.op("Mul", net.linear(y, 8, 4), net.const(np.float32(30)))
    found = nets.look(net.model(nets.IMAGES, net.op("Softmax", y, axis=1)), tmp_path)
    joint = Joint(found, naive.batches(found).fit)
    expansion = joint.expand(0.2)
    assert expansion.logits is not None
    gone = {joint.groups[0].name: [1, 4, 5]}
    assert expansion.error(gone) == pytest.approx(joint.error(gone), rel=1e-3)


def test_thinning_weighs_every_exit_and_leaves_the_rest():
    found = nets.digits("digits_vit")
    groups = [g for g in found.coupling.groups if g.exact]
    view, stays = thin(found.view, found.coupling, groups, 0.25)
    assert view.model != found.view.model
    kinds = {g.kind: {stays[h.name] for h in groups if h.kind == g.kind} for g in groups}
    assert kinds["neuron"] == {0.75}
    assert 1.0 in kinds["head_dim"], "queries times keys read no weight"
    assert [n.inputs for n in view.nodes] == [n.inputs for n in found.view.nodes]


def test_thinning_leaves_the_weights_that_make_units():
    """What reads an LSTM's units is its own R and the head; W, and biases, make them."""
    found = nets.digits("digits_lstm")
    (group,) = found.coupling.groups
    view, _ = thin(found.view, found.coupling, [group], 0.25)
    node = next(n for n in found.view.nodes if n.op_type == "LSTM")
    for slot, factor in ((1, 1.0), (2, 0.75), (3, 1.0)):
        before, after = (v.constant(node.inputs[slot]) for v in (found.view, view))
        np.testing.assert_allclose(after, factor * before, rtol=1e-6)


def test_convolutions_that_read_and_write_a_stream_are_weighed_once(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    view, stays = thin(found.view, found.coupling, found.coupling.groups, 0.25)
    assert set(stays.values()) == {0.75}
    read = [n for n in found.view.nodes if n.op_type == "Conv" and n.inputs[0] != "x"]
    for node in read:
        before, after = (v.constant(node.inputs[1]) for v in (found.view, view))
        np.testing.assert_allclose(after, 0.75 * before, rtol=1e-6)
    assert read


def test_thinning_by_nothing_changes_nothing():
    found = nets.digits("digits_lstm")
    view, _ = thin(found.view, found.coupling, found.coupling.groups, 0.0)
    feed = found.probes[0]
    before, after = (Session(v.real).run(feed) for v in (found.view, view))
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])
