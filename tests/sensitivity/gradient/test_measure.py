"""Whole networks: sketches against exact removals, and what happens without a derivative."""

from importlib import import_module

import numpy as np
import onnx
import pytest
from scipy.stats import spearmanr

from onnxprune.model.frontier import float_frontier
from onnxprune.progress import Silent
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.gradient.masked import Masked
from onnxprune.sensitivity.gradient.measure import measure
from onnxprune.sensitivity.gradient.rules import Call, pointwise, registered
from onnxprune.sensitivity.gradient.rules import _registry as rules
from tests import nets
from tests.sensitivity import naive


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def sketch(found, given, *, widths=None, progress=None, **choices):
    groups = found.coupling.groups
    progress = progress or Silent()
    return measure(naive.request(found, groups, given, widths or {}, progress=progress), **choices)


def linear_net():
    """Nothing bends: to first order is exact."""
    net = nets.Net(21)
    a = net.conv("x", 3, 6, strides=[2, 2])
    b = net.op("AveragePool", net.conv(a, 6, 5), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    joined = net.op("Concat", a, b, axis=1)
    flat = net.op("Flatten", joined)
    return net.model(nets.IMAGES, net.op("Gemm", flat, net.weight(11 * 9, 4), net.weight(4)))


def group_norm_net(way):
    """GroupNormalization as it is, or written with one channel per group."""
    net = nets.Net(opset=21)
    x = net.conv("x", 3, 8)
    if way == "native":
        x = net.op("GroupNormalization", x, net.weight(8), net.weight(8), num_groups=2)
    else:
        ones = net.const(np.ones(2, np.float32)), net.const(np.zeros(2, np.float32))
        y = net.op(
            "InstanceNormalization", net.op("Reshape", x, net.const(np.array([0, 2, -1]))), *ones
        )
        y = net.op("Reshape", y, net.op("Shape", x))
        x = net.op("Add", net.op("Mul", y, net.weight(8, 1, 1)), net.weight(8, 1, 1))
    flat = net.op("Flatten", net.conv(x, 8, 4))
    return net.model(nets.IMAGES, net.op("Gemm", flat, net.weight(4 * 36, 4), net.weight(4)))


def exact_scores(found, group, feeds):
    outputs = float_frontier(found.view, found.traces[0])
    masked = Masked(found.view, found.traces[0], found.coupling, [group], outputs, feeds)
    return np.array([masked.error(group, [c]) for c in range(group.size)])


def test_linear_networks_are_exact_with_all_cotangents(tmp_path):
    found = nets.look(linear_net(), tmp_path)
    given = naive.batches(found)
    measured = sketch(found, given, cotangents=4)
    assert measured.agreement.pooled == pytest.approx(1.0)
    for group in found.coupling.groups:
        result = measured.groups[group.name]
        assert result.method == "gradient"
        np.testing.assert_allclose(
            result.scores, exact_scores(found, group, given.fit), rtol=1e-3, atol=1e-9
        )


def test_statistics_of_groups_change_alike_however_they_are_written(tmp_path):
    scores = []
    for way in ("native", "spelled out"):
        found = nets.look(group_norm_net(way), tmp_path)
        given = naive.batches(found)
        measured = sketch(found, given, cotangents=4)
        group = next(g for g in found.coupling.groups if not g.exact)
        assert measured.groups[group.name].method == "gradient"
        scores.append(measured.groups[group.name].scores)
        assert spearmanr(scores[-1], exact_scores(found, group, given.fit))[0] > 0.9
    np.testing.assert_allclose(*scores, rtol=1e-3)


def test_vectors_of_linear_networks_add_up(tmp_path):
    found = nets.look(linear_net(), tmp_path)
    given = naive.batches(found)
    group = found.coupling.groups[0]
    vectors = sketch(found, given, cotangents=4).groups[group.name].vectors
    outputs = float_frontier(found.view, found.traces[0])
    masked = Masked(found.view, found.traces[0], found.coupling, [group], outputs, given.fit)
    for gone in ([0, 1], [0, 2, 3], [1, 2, 3, 4]):
        joint = float((vectors[gone].astype(np.float64).sum(axis=0) ** 2).sum())
        assert joint == pytest.approx(masked.error(group, gone), rel=1e-3)


@pytest.mark.parametrize(
    "make", [nets.residual, nets.concat, nets.heads, nets.normed, nets.averaged]
)
def test_small_changes_are_predicted(make, tmp_path):
    """To first order: the smaller the channels, the better; here they are scaled down at exits."""
    found = nets.look(make(), tmp_path)
    given = naive.batches(found)
    measured = sketch(found, given, cotangents=8, check=False)
    for group in found.coupling.groups:
        result = measured.groups[group.name]
        exact = exact_scores(found, group, given.fit)
        assert result.method == "gradient"
        assert 0.2 < np.median(result.scores / np.maximum(exact, 1e-12)) < 5


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("digits_resnet_bn", 0.95),
        ("digits_mobile", 0.95),
        ("digits_vit", 0.95),
        ("digits_keras", 0.95),
        ("digits_mlp", 0.95),
        ("digits_lstm", 0.85),
        ("digits_gru", 0.85),
    ],
)
def test_rankings_agree_with_exact_removals(name, least):
    found = nets.digits(name, samples=64)
    given = naive.batches(found, 16)
    assert sketch(found, given).agreement.pooled > 0.8
    measured = sketch(found, given, check=False)
    assert {r.method for r in measured.groups.values()} == {"gradient"}
    rng = np.random.default_rng(0)
    exact, sketched = [], []
    outputs = float_frontier(found.view, found.traces[0])
    groups = found.coupling.groups
    masked = Masked(found.view, found.traces[0], found.coupling, groups, outputs, given.fit)
    for group in groups:
        for channel in rng.permutation(group.size)[: max(6, 40 // len(groups))].tolist():
            exact.append(masked.error(group, [channel]))
            sketched.append(measured.groups[group.name].scores[channel])
    assert spearmanr(exact, sketched).statistic > least


def test_saturated_probabilities_are_taken_exactly(tmp_path):
    """A linear network with a very sure softmax: to first order nothing would change."""
    net = nets.Net(27)
    h = net.op("Gemm", "x", net.weight(12, 6), net.weight(6))
    logits = net.op("Gemm", h, net.const((net.rng.standard_normal((6, 4)) * 9).astype("f4")))
    model = net.model({"x": ("N", 12)}, net.op("Softmax", logits, axis=-1))
    found = nets.look(model, tmp_path)
    given = naive.batches(found)
    (group,) = found.coupling.groups
    result = sketch(found, given).groups[group.name]
    exact = exact_scores(found, group, given.fit)
    np.testing.assert_allclose(result.scores, exact, rtol=1e-3, atol=1e-7)


def test_curves_are_measured(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    given = naive.batches(found)
    sizes = found.coupling.collected.sizes
    widths = {g.name: allowed_widths(g, 1, sizes) for g in found.coupling.groups}
    measured = sketch(found, given, widths=widths)
    outputs = float_frontier(found.view, found.traces[0])
    for group in found.coupling.groups:
        result = measured.groups[group.name]
        masked = Masked(found.view, found.traces[0], found.coupling, [group], outputs, given.select)
        gone = [result.order[: group.size - w].tolist() for w in result.widths]
        wanted = np.maximum.accumulate([masked.error(group, g) for g in gone])
        np.testing.assert_allclose(result.errors, wanted, rtol=1e-5, atol=1e-9)
        assert result.errors[0] == 0
        assert sorted(result.order.tolist()) == list(range(group.size))


def test_without_widths_there_is_no_curve(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    for result in sketch(found, naive.batches(found)).groups.values():
        assert result.errors.tolist() == [0.0]


def test_past_the_time_limit_the_sketch_goes_on(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    given = naive.batches(found)
    groups = found.coupling.groups
    widths = {g.name: allowed_widths(g, 1, found.coupling.collected.sizes) for g in groups}
    measured = measure(naive.request(found, groups, given, widths, time_limit=0.0))
    for result in measured.groups.values():
        assert (np.diff(result.errors) >= 0).all()
        assert result.errors[-1] > 0


def test_groups_behind_an_operator_without_a_rule_fall_back(tmp_path, monkeypatch):
    net = nets.Net(22)
    a = net.op("Relu", net.linear("x", 12, 6))
    b = net.op("Tanh", net.linear(a, 6, 5))
    found = nets.look(net.model(nets.ROWS, net.linear(b, 5, 3)), tmp_path)
    given = naive.batches(found)
    monkeypatch.delitem(rules.vjp.known, ("", "Tanh"))
    notes = Notes()
    measured = sketch(found, given, progress=notes)
    second, first = sorted(found.coupling.groups, key=lambda g: g.size)
    assert measured.groups[first.name].method == "perturbation"
    assert measured.groups[second.name].method == "gradient"
    (line,) = [n for n in notes.notes if "no derivative" in n]
    assert "Tanh" in line
    assert first.name in line
    assert second.name not in line
    exact = naive.fast(found, [first], given).groups[first.name]
    np.testing.assert_allclose(measured.groups[first.name].scores, exact.scores)


def test_a_rule_that_gives_up_is_no_rule(tmp_path):
    """A learnt exponent: Pow has a rule, but not for this."""
    net = nets.Net(23)
    base = net.op("Exp", net.linear("x", 12, 4))
    power = net.op("Sigmoid", net.linear("x", 12, 4))
    model = net.model(nets.ROWS, net.linear(net.op("Pow", base, power), 4, 3))
    found = nets.look(model, tmp_path)
    measured = sketch(found, naive.batches(found))
    assert {r.method for r in measured.groups.values()} == {"gradient"}
    net = nets.Net(24)
    inner = net.op("Sigmoid", net.linear("x", 12, 5))
    power = net.op("Sigmoid", net.linear(inner, 5, 4))
    base = net.op("Exp", net.linear("x", 12, 4))
    found = nets.look(net.model(nets.ROWS, net.op("Pow", base, power)), tmp_path)
    notes = Notes()
    measured = sketch(found, naive.batches(found), progress=notes)
    assert {r.method for r in measured.groups.values()} == {"perturbation"}
    assert any("exponent" in n for n in notes.notes)


def test_bodies_of_control_flow_fall_back(tmp_path):
    found = nets.look(nets.branching(), tmp_path)
    notes = Notes()
    measured = sketch(found, naive.batches(found), progress=notes)
    assert {r.method for r in measured.groups.values()} == {"perturbation"}
    assert any("If" in n for n in notes.notes)


def wrong_relu(tape, call: Call):
    yield 0, tape.masked(call.g, tape.op("Not", pointwise._positive(tape, call.y)))


def test_a_wrong_rule_shows_in_the_agreement(monkeypatch):
    found = nets.digits("digits_resnet", samples=64)
    given = naive.batches(found, 8)
    good = sketch(found, given).agreement.pooled
    monkeypatch.setitem(rules.vjp.known, ("", "Relu"), wrong_relu)
    assert sketch(found, given).agreement.pooled < good - 0.08


def test_what_the_check_finds_ranked_badly_is_perturbed(monkeypatch):
    found = nets.digits("digits_resnet", samples=64)
    given = naive.batches(found, 8)
    monkeypatch.setitem(rules.vjp.known, ("", "Relu"), wrong_relu)
    notes = Notes()
    measured = sketch(found, given, progress=notes)
    outright = [g for g in found.coupling.groups if measured.groups[g.name].method != "gradient"]
    assert outright
    assert len(outright) < len(found.coupling.groups), "within some passes"
    exact = naive.fast(found, outright, given).groups
    for group in outright:
        assert measured.groups[group.name].method == "perturbation"
        np.testing.assert_allclose(measured.groups[group.name].scores, exact[group.name].scores)
        assert any(group.name in line for line in notes.notes)


def test_nothing_is_perturbed_past_the_time_limit(monkeypatch):
    found = nets.digits("digits_resnet", samples=64)
    monkeypatch.setitem(rules.vjp.known, ("", "Relu"), wrong_relu)
    given, groups = naive.batches(found, 8), found.coupling.groups
    measured = measure(naive.request(found, groups, given, {}, time_limit=0.0))
    assert {r.method for r in measured.groups.values()} == {"gradient"}


def test_channels_that_reach_no_output_change_nothing(tmp_path):
    found = nets.look(nets.dead_end(), tmp_path)
    lost, used = sorted(found.coupling.groups, key=lambda g: g.size)
    measured = sketch(found, naive.batches(found)).groups
    assert (measured[used.name].scores > 0).any()
    assert (measured[lost.name].scores == 0).all()


def test_several_outputs_weigh_as_in_perturbation(tmp_path):
    net = nets.Net(25)
    h = net.op("Gemm", "x", net.weight(12, 6), net.weight(6))
    small = net.op("Gemm", h, net.const((net.rng.standard_normal((6, 3)) * 1e-3).astype("f4")))
    large = net.op("Gemm", h, net.const((net.rng.standard_normal((6, 2)) * 1e3).astype("f4")))
    found = nets.look(net.model({"x": ("N", 12)}, small, large), tmp_path)
    given = naive.batches(found)
    (group,) = found.coupling.groups
    result = sketch(found, given, cotangents=8).groups[group.name]
    exact = naive.fast(found, [group], given).groups[group.name]
    assert spearmanr(result.scores, exact.scores).statistic > 0.8
    assert result.scores.sum() == pytest.approx(exact.scores.sum(), rel=0.4)


def test_a_fixed_batch_of_one(tmp_path):
    model = linear_net()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = nets.look(model, tmp_path)
    given = naive.Batches(list(found.samples.feeds(range(6), 4)), [])
    assert all(len(f["x"]) == 1 for f in given.fit)
    measured = sketch(found, given, cotangents=4)
    for group in found.coupling.groups:
        exact = exact_scores(found, group, given.fit)
        np.testing.assert_allclose(measured.groups[group.name].scores, exact, rtol=1e-3, atol=1e-9)


def test_samples_of_different_sizes(tmp_path):
    """A derivative is written for every set of sizes."""
    net = nets.Net(26)
    a = net.op("Relu", net.conv("x", 3, 6, strides=[2, 2]))
    y = net.op("GlobalAveragePool", net.conv(a, 6, 4, strides=[2, 2]))
    found = nets.look(net.model({"x": ("N", 3, "H", "W")}, net.op("Flatten", y)), tmp_path)
    rng = np.random.default_rng(0)
    sizes = ((8, 8), (9, 7), (12, 11), (8, 8))
    feeds = [{"x": rng.standard_normal((4, 3, *s)).astype(np.float32)} for s in sizes]
    (group,) = found.coupling.groups
    measured = sketch(found, naive.Batches(feeds, []), cotangents=4)
    exact = exact_scores(found, group, feeds)
    assert spearmanr(measured.groups[group.name].scores, exact).statistic > 0.7


def test_half_precision(tmp_path):
    from onnx import numpy_helper

    model = nets.residual()
    for tensor in model.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    found = nets.look(model, tmp_path)
    given = naive.batches(found)
    measured = sketch(found, given)
    assert {r.method for r in measured.groups.values()} == {"gradient"}
    wide = nets.look(nets.residual(), tmp_path)
    feeds = [{n: a.astype(np.float32) for n, a in f.items()} for f in given.fit]
    reference = sketch(wide, naive.Batches(feeds, []))
    for group in found.coupling.groups:
        a, b = measured.groups[group.name].scores, reference.groups[group.name].scores
        np.testing.assert_allclose(a, b, rtol=0.2, atol=1e-3)


def test_rules_are_registered_once():
    assert ("", "Conv") in registered()
    with pytest.raises(ValueError, match="two rules for Conv"):
        rules.vjp("Conv")(lambda tape, call: iter(()))
    assert import_module("onnxprune.sensitivity.gradient.rules").lookup("", "NonZero") is None
