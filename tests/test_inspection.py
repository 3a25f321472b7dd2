"""Inspection: what can be cut, how much that covers, what stands in the way."""

import numpy as np
import pytest

from onnxprune import inspection
from onnxprune.documents import validate
from onnxprune.inspection import frozen_axes, inspect_groups
from onnxprune.progress import Silent
from onnxprune.report.json import to_json
from tests import nets


def inspected(found, groups=None, *, verify=True):
    groups = found.coupling.groups if groups is None else groups
    return inspect_groups(found, groups, verify=verify, progress=Silent())


@pytest.mark.parametrize("name", nets.DATA)
def test_the_projects_models_can_be_cut_nearly_everywhere(name):
    found = nets.digits(name)
    report = inspected(found)
    assert report.coverage.params >= 0.95
    assert report.coverage.macs >= 0.95
    assert report.groups
    assert all(group.verified is True for group in report.groups)
    assert report.warnings == []
    validate(to_json(report), "onnxprune-inspect/1", name)


def test_figures_and_members(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    report = inspected(found)
    assert (report.opset, report.dims) == (17, {"N": 1})
    assert report.macs == 36 * 9 * (3 * 8 + 8 * 6 + 6 * 8) + 32
    assert report.params == 8 * 27 + 8 + 6 * 72 + 6 + 8 * 54 + 8 + 32 + 4
    assert report.bytes == found.model.path.stat().st_size
    inner = next(g for g in report.groups if g.name == "Conv_2")
    assert (inner.kind, inner.channels, inner.exact) == ("filter", 6, True)
    assert inner.params == 6 * 72 + 6 + 8 * 54
    assert inner.macs == 36 * 9 * 2 * 48
    assert ("w2", 0, 1) in inner.members
    assert ("w4", 1, 1) in inner.members


def test_places_per_channel_are_told(tmp_path):
    found = nets.look(nets.concat(), tmp_path)
    group = next(g for g in inspected(found).groups if g.name == "Conv_5")
    assert ("w6", 0, 36) in group.members


@pytest.mark.parametrize(("name", "op"), [("digits_lstm", "LSTM"), ("digits_gru", "GRU")])
def test_operators_without_a_rule_are_named_as_what_freezes(name, op, monkeypatch):
    nets.forget_rule(monkeypatch, op)
    found = nets.digits.__wrapped__(name)
    report = inspected(found)
    assert report.coverage.params < 0.5
    blamed = [f for f in report.frozen if f.op == op]
    assert blamed
    assert all(f"no rule for {op}" in f.reason for f in blamed)
    assert all("rule" in f.unlock for f in blamed)
    assert all(any(n.name == f.node for n in found.view.nodes) for f in blamed)
    validate(to_json(report), "onnxprune-inspect/1", name)


def test_the_interface_is_frozen_and_says_so(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    frozen = {(f.value, f.axis): f for f in frozen_axes(found, found.coupling.groups)}
    assert frozen.keys() == {("w0", 0), ("w2", 1)}
    assert (frozen["w0", 0].reason, frozen["w0", 0].source) == ("graph input", ("x", 1))
    assert (frozen["w2", 1].reason, frozen["w2", 1].source) == ("graph output", ("v2", 1))
    assert all((f.params, f.macs) == (0, 0) for f in frozen.values())
    assert "other programs" in frozen["w0", 0].unlock


def test_a_group_that_fails_does_not_count(tmp_path, monkeypatch):
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    monkeypatch.setattr(inspection, "objections", lambda *_: ["", "differs from its reference"])
    report = inspected(found)
    assert [g.verified for g in report.groups] == [True, False]
    assert report.warnings == ["Gemm_2 cannot be cut: differs from its reference"]
    sizes = np.array([48, 30, 15])
    assert report.coverage.params == pytest.approx(sizes[:2].sum() / sizes.sum())
    assert report.coverage.macs == pytest.approx(sizes[:2].sum() / sizes.sum())
    assert [(f.value, f.params) for f in report.frozen if f.params] == [("w4", 15)]


def test_without_verification_every_group_counts(tmp_path, monkeypatch):
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    monkeypatch.setattr(inspection, "objections", lambda *_: 1 / 0)
    report = inspected(found, verify=False)
    assert [g.verified for g in report.groups] == [None, None]
    assert report.coverage.params == 1.0
    validate(to_json(report), "onnxprune-inspect/1", "it")


def test_inexact_groups_are_counted_apart(tmp_path):
    report = inspected(nets.look(nets.averaged(), tmp_path))
    assert (report.coverage.params, report.coverage.exact_params) == (1.0, 0.0)
    assert (report.coverage.macs, report.coverage.exact_macs) == (1.0, 0.0)


def test_excluded_groups_do_not_count(tmp_path):
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    report = inspected(found, found.coupling.groups[:1])
    assert [g.name for g in report.groups] == ["Gemm_0"]
    assert report.coverage.params < 1.0


def test_a_model_without_weights_covers_nothing(tmp_path):
    net = nets.Net()
    found = nets.look(net.model({"x": ("N", 4)}, net.op("Relu", "x")), tmp_path)
    report = inspected(found)
    assert (report.groups, report.frozen) == ([], [])
    assert report.coverage.params == report.coverage.macs == 0.0


def test_obstacles_name_the_operator(monkeypatch):
    nets.forget_rule(monkeypatch, "LSTM")
    line = inspection.obstacles(nets.digits.__wrapped__("digits_lstm"))
    assert "LSTM" in line
    assert "\n" not in line


def test_obstacles_of_a_model_without_any(tmp_path):
    net = nets.Net()
    found = nets.look(net.model({"x": ("N", 4)}, net.op("Relu", "x")), tmp_path)
    assert inspection.obstacles(found) == "it has no weight that a cut shrinks"


def test_obstacles_say_what_would_free_the_first_of_them(tmp_path, monkeypatch):
    nets.forget_rule(monkeypatch, "Elu")
    net = nets.Net()
    y = net.op("Elu", net.op("MatMul", "x", net.weight(4, 6)))
    found = nets.look(net.model({"x": ("N", 4)}, net.op("MatMul", y, net.weight(6, 3))), tmp_path)
    assert "(to free the first: a rule for this operator" in inspection.obstacles(found)


def test_what_costs_most_coverage_comes_first(tmp_path, monkeypatch):
    nets.forget_rule(monkeypatch, "Elu")
    net = nets.Net()
    y = net.op("Elu", net.op("MatMul", "x", net.weight(4, 6)))
    y = net.op("Softmax", net.op("MatMul", y, net.weight(6, 12)), axis=1)
    y = net.op("Relu", net.op("MatMul", y, net.weight(12, 5)))
    y = net.op("MatMul", y, net.weight(5, 3))
    found = nets.look(net.model({"x": ("N", 4)}, y), tmp_path)
    report = inspected(found)
    cost = [(f.value, f.axis, f.op, f.params, f.macs) for f in report.frozen]
    assert cost[:4] == [
        ("w1", 0, "Elu", 72, 72),
        ("w1", 1, "Softmax", 72, 72),
        ("w0", 0, "", 24, 24),
        ("w0", 1, "Elu", 24, 24),
    ]
    assert all(c[3:] == (0, 0) for c in cost[4:])
    assert {c[0] for c in cost[4:]} == {"w2", "w3"}
    assert inspection.obstacles(found).startswith("in the way: onnxprune has no rule for Elu; ")
    validate(to_json(report), "onnxprune-inspect/1", "it")
