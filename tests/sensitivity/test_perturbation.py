"""The fast way of perturbing equals the slow one, and gives up in an orderly way."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from onnxprune.coupling.relations import Axis
from onnxprune.runtime.session import Session
from onnxprune.sensitivity import perturbation
from onnxprune.sensitivity.measurer import Measurer
from onnxprune.sensitivity.request import Batches, Request
from tests import nets
from tests.sensitivity import naive

SMALL = [nets.residual, nets.concat, nets.heads]
BENT = [nets.normed, nets.averaged]  # removal changes a statistic


def slow_scores(found, group, feeds, channels):
    clean = naive.run_all(found, found.view.model, feeds)
    changed = (naive.run_all(found, naive.zeroed(found, group, c), feeds) for c in channels)
    return np.array([naive.distance(clean, outputs) for outputs in changed])


def assert_exact(found, group, sensitivity, feeds, channels):
    assert sensitivity.method == "perturbation"
    slow = slow_scores(found, group, feeds, channels)
    fast = np.sqrt(sensitivity.scores[list(channels)])
    np.testing.assert_allclose(fast, slow, rtol=1e-4, atol=1e-6, err_msg=group.name)


@pytest.mark.parametrize("make", SMALL)
def test_every_channel_equals_zeroed_initializers(make, tmp_path):
    found = nets.look(make(), tmp_path)
    given = naive.batches(found)
    measured = naive.fast(found, found.coupling.groups, given)
    assert set(measured.groups) == {g.name for g in found.coupling.groups}
    for group in found.coupling.groups:
        assert_exact(found, group, measured.groups[group.name], given.fit, range(group.size))


@pytest.mark.parametrize(
    ("name", "step"), [("digits_resnet", 1), ("digits_mobile", 2), ("digits_lstm", 4)]
)
def test_real_networks_equal_zeroed_initializers(name, step):
    found = nets.digits(name)
    given = naive.batches(found)
    measured = naive.fast(found, found.coupling.groups, given)
    for group in found.coupling.groups:
        channels = range(0, group.size, step)
        assert_exact(found, group, measured.groups[group.name], given.fit, channels)


def test_the_transformer_equals_zeroed_initializers():
    found = nets.digits("digits_vit")
    given = naive.batches(found)
    exact = [g for g in found.coupling.groups if g.exact]
    assert {g.kind for g in exact} == {"neuron", "head", "head_dim"}
    measured = naive.fast(found, exact, given)
    for group in exact:
        channels = range(0, group.size, 8 if group.size > 16 else 3)
        assert_exact(found, group, measured.groups[group.name], given.fit, channels)


@pytest.mark.parametrize("make", [*SMALL, *BENT])
def test_curve_equals_really_narrowed_model(make, tmp_path):
    found = nets.look(make(), tmp_path)
    given = naive.batches(found)
    measured = naive.fast(found, found.coupling.groups, given)
    for group in found.coupling.groups:
        assert_curve(found, group, measured.groups[group.name], given.select)


@pytest.mark.parametrize("name", ["digits_resnet", "digits_vit"])
def test_curve_of_real_networks_equals_really_narrowed_model(name):
    found = nets.digits(name)
    given = naive.batches(found)
    groups = found.coupling.groups[::2]
    measured = naive.fast(found, groups, given)
    for group in groups:
        assert_curve(found, group, measured.groups[group.name], given.select)


def assert_curve(found, group, sensitivity, feeds):
    """Errors never decrease by construction; below that they are those of cut models."""
    clean = naive.run_all(found, found.view.model, feeds)
    widths, errors = sensitivity.widths, np.sqrt(sensitivity.errors)
    assert widths[0] == group.size
    assert errors[0] == 0.0
    assert len(widths) > 1
    slow = [0.0]
    for width in widths[1:]:
        gone = sensitivity.order[: group.size - width].tolist()
        outputs = naive.run_all(found, naive.narrowed(found, group, gone), feeds)
        slow.append(naive.distance(clean, outputs))
    np.testing.assert_allclose(
        errors, np.maximum.accumulate(slow), rtol=1e-4, atol=1e-5, err_msg=group.name
    )


def test_bent_groups_are_marked_inexact(tmp_path):
    for make in BENT:
        found = nets.look(make(), tmp_path)
        assert not all(g.exact for g in found.coupling.groups)


def test_levels_hold_both_ends_and_no_more_than_eight_cuts():
    found = nets.digits("digits_resnet")
    group = max(found.coupling.groups, key=lambda g: g.size)
    measured = naive.fast(found, [group], naive.batches(found)).groups[group.name]
    assert len(measured.widths) == 9
    assert measured.widths[0] == group.size
    assert measured.widths[-1] == round(0.1 * group.size)
    assert (np.diff(measured.widths) < 0).all()
    assert (np.diff(measured.errors) >= 0).all()
    assert sorted(measured.order) == list(range(group.size))


def test_without_time_groups_fall_back_and_are_marked(tmp_path):
    found = nets.look(nets.concat(), tmp_path)
    measured = naive.fast(found, found.coupling.groups, naive.batches(found), time_limit=1e-9)
    for group in found.coupling.groups:
        result = measured.groups[group.name]
        assert result.method == "activation"
        assert sorted(result.order) == list(range(group.size))
        assert result.scores.sum() > 0, "an order made of zeros is no order"
        assert result.errors[-1] > 0, "widths are measured all the same"
        assert (np.diff(result.scores[result.order]) >= 0).all()


def test_cheap_order_agrees_roughly_with_the_measured_one():
    found = nets.digits("digits_resnet")
    given = naive.batches(found)
    exact = naive.fast(found, found.coupling.groups, given)
    cheap = naive.fast(found, found.coupling.groups, given, time_limit=1e-9)
    agreement = {
        g.name: spearmanr(exact.groups[g.name].scores, cheap.groups[g.name].scores).statistic
        for g in found.coupling.groups
    }
    assert min(agreement.values()) > 0.3, agreement
    assert np.median(list(agreement.values())) > 0.5, agreement


def test_bodies_of_control_flow_are_measured_too(tmp_path):
    found = nets.look(nets.branching(), tmp_path)
    given = naive.batches(found)
    (group,) = found.coupling.groups
    result = naive.fast(found, [group], given).groups[group.name]
    assert_exact(found, group, result, given.fit, range(group.size))
    assert_curve(found, group, result, given.select)


def test_channels_that_reach_no_output_change_nothing(tmp_path):
    found = nets.look(nets.dead_end(), tmp_path)
    used, lost = found.coupling.groups
    measured = naive.fast(found, [used, lost], naive.batches(found)).groups
    assert (measured[used.name].scores > 0).all()
    assert (measured[lost.name].scores == 0).all()
    assert (measured[lost.name].errors == 0).all()


def test_runs_are_counted(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    given = naive.batches(found)
    measured = naive.fast(found, found.coupling.groups, given)
    (result,) = measured.groups.values()
    assert measured.samples == 7
    assert measured.runs == 6 * len(given.fit) + (len(result.widths) - 1) * len(given.select)


def test_only_the_part_downstream_is_run(tmp_path, monkeypatch):
    """The last group's session must not hold the convolutions before it."""
    found = nets.look(nets.concat(), tmp_path)
    last = nets.group_of(found, "Conv_5")
    seen = []

    class Spy(Session):
        def __init__(self, model, **choices):
            seen.append([n.op_type for n in model.graph.node])
            super().__init__(model, **choices)

    monkeypatch.setattr("onnxprune.runtime.suffix.Session", Spy)
    naive.fast(found, [last], naive.batches(found))
    assert len(seen) == 1
    assert "Conv" not in seen[0]
    assert "Gemm" in seen[0]


def test_masked_scores_and_nan_do_not_poison_the_figures(tmp_path):
    """Outputs of -inf that stay -inf have not changed; the finite ones count."""
    net = nets.Net(9)
    y = net.op("Tanh", net.op("Gemm", "x", net.weight(12, 6), net.weight(6)))
    y = net.op("Gemm", y, net.weight(6, 4), net.weight(4))
    keep = net.const(np.array([True, True, False, True]))
    y = net.op("Where", keep, y, net.const(np.float32(-np.inf)))
    found = nets.look(net.model({"x": ("N", 12)}, y), tmp_path)
    (group,) = found.coupling.groups
    result = naive.fast(found, [group], naive.batches(found)).groups[group.name]
    assert np.isfinite(result.scores).all()
    assert (result.scores > 0).all()
    assert (result.scores < 10).all()


def test_a_removal_that_makes_the_output_nan_is_the_dearest(tmp_path):
    """Channel 0 alone keeps a divisor from zero."""
    net = nets.Net(10)
    y = net.op("Gemm", "x", net.weight(4, 4), net.const(np.ones(4, np.float32)))
    ones = np.zeros((4, 1), np.float32)
    ones[0] = 1
    below = net.op("MatMul", net.op("Abs", y), net.const(ones))
    above = net.op("MatMul", y, net.const(np.array([[0], [1], [1], [1]], np.float32)))
    above = net.op("Mul", above, below)
    found = nets.look(net.model({"x": ("N", 4)}, net.op("Div", above, below)), tmp_path)
    (group,) = found.coupling.groups
    result = naive.fast(found, [group], naive.batches(found)).groups[group.name]
    assert np.isfinite(result.scores).all()
    assert np.argmax(result.scores) == 0
    assert result.order[-1] == 0


def test_masks_only_touch_the_groups_axes(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    given = naive.batches(found)
    group = nets.group_of(found, "Conv_2")
    measurer = Measurer(
        Request(found.view, found.traces[0], found.coupling, [group], given, found.view.outputs)
    )
    masks = measurer.masks(group, [1])
    assert set(masks) == {m.axis for m in group.members}
    assert all((~mask).sum() == 1 for mask in masks.values())
    assert Axis("v2", 1) in masks


def test_halves_are_what_every_other_sample_says(tmp_path):
    """Seven samples in batches of four: parity goes on over the border."""
    found = nets.look(nets.residual(), tmp_path)
    given = naive.batches(found)
    group = found.coupling.groups[0]
    result = naive.fast(found, [group], given).groups[group.name]
    np.testing.assert_allclose(result.halves.sum(axis=0), result.scores, rtol=1e-6)
    samples = {k: np.concatenate([feed[k] for feed in given.fit]) for k in given.fit[0]}
    for half in range(2):
        part = Batches([{k: a[half::2] for k, a in samples.items()}], given.select)
        alone = naive.fast(found, [group], part).groups[group.name].scores
        np.testing.assert_allclose(
            result.halves[half] / result.halves[half].sum(), alone / alone.sum(), rtol=1e-3
        )


def test_a_group_with_hardly_any_work_gets_a_part_of_an_even_share(monkeypatch):
    class Clock:
        monotonic = staticmethod(lambda: 0.0)

    monkeypatch.setattr(perturbation, "time", Clock)
    shares = perturbation._Shares([0.01, 1.0, 8.99], 80.0, 1)
    assert [shares.give(k) for k in range(3)] == pytest.approx([80 / 12, 10.0, 80.0])
