"""Which method measures which groups, and what the command says of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxprune import pipeline
from onnxprune.cli import main
from onnxprune.data.splits import split_samples
from onnxprune.documents import validate
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.report.json import to_json
from onnxprune.sensitivity import measurer, perturbation
from onnxprune.sensitivity import methods as methods_
from onnxprune.sensitivity.methods import Task, measure_groups
from onnxprune.sensitivity.perturbation import measure
from tests import nets
from tests.sensitivity import naive

MODEL, DATA = nets.MODELS / "digits_mlp.onnx", nets.MODELS / "digits_features.npz"


def methods(**choices):
    found = nets.digits("digits_resnet", 64)
    options = Options(data=DATA, **choices)
    splits = split_samples(len(found.samples), 0)
    measured = measure_groups(found, found.coupling.groups, splits, options, Silent())
    return {g.method for g in measured.groups.values()}, measured.reasons


def test_what_was_asked_for_measures_all():
    used, reasons = methods(method="perturbation")
    assert used == {"perturbation"}
    assert len(reasons) == 1


def test_gradients_are_put_right_where_they_rank_badly():
    used, (reason,) = methods(method="gradient")
    assert used == {"gradient", "perturbation"}
    assert "of them perturbed after its check" in reason


def test_auto_reconstructs_what_is_refitted_and_perturbs_the_rest():
    used, reasons = methods()
    assert used == {"reconstruction", "perturbation"}
    assert len(reasons) == 2
    assert "fits the time limit" in reasons[1]


@pytest.mark.parametrize(("limit", "most"), [(120.0, 50), (1e-9, 32)])
def test_curves_of_large_networks_are_measured_on_fewer_samples(limit, most, monkeypatch):
    seen = []
    monkeypatch.setattr(
        methods_, "measure_narrowed", lambda *given, **_: seen.append(given[4].select) or {}
    )
    found = nets.digits("digits_resnet", 200)
    options = Options(data=DATA, time_limit=limit)
    task = Task(found, found.coupling.groups, split_samples(200, 0), options, Silent())
    task.narrowed(found.coupling.groups)
    assert sum(len(feed["input"]) for feed in seen[0]) == most


def test_auto_perturbs_everything_where_nothing_is_refitted():
    assert methods(recover=False)[0] == {"perturbation"}
    assert "reconstruction" in methods(recover=False, method="reconstruction")[0]


def test_auto_takes_gradients_where_there_is_no_time_to_perturb(monkeypatch):
    monkeypatch.setattr(Task, "_affordable", lambda *_: 5.0)
    used, reasons = methods(recover=False)
    assert "gradient" in used
    assert "time to perturb on 5 only" in reasons[0]


def test_the_figures_do_not_depend_on_the_number_of_processes():
    found = nets.digits("digits_mlp")
    given = naive.batches(found)
    groups = found.coupling.groups
    assert len(groups) > 1
    widths = {g.name: [g.size // 2] for g in groups}
    one, two = (measure(naive.request(found, groups, given, widths, jobs=jobs)) for jobs in (1, 2))
    assert one.runs == two.runs
    for name, group in one.groups.items():
        for what in ("order", "scores", "errors", "halves"):
            np.testing.assert_array_equal(getattr(group, what), getattr(two.groups[name], what))


def test_time_that_ends_between_batches_leaves_an_order_from_fewer_samples(monkeypatch):
    """The clock stands still for the first batch and then jumps."""
    found = nets.digits("digits_mlp")
    given = naive.batches(found)
    group = found.coupling.groups[0]
    now = {"runs": 0}

    class Clock:
        @staticmethod
        def monotonic():
            now["runs"] += 1
            return 0.0 if now["runs"] < group.size + 6 else 1e9

    for module in (measurer, perturbation):
        monkeypatch.setattr(module, "time", Clock)
    found_ = naive.fast(found, [group], given, time_limit=10.0).groups[group.name]
    first = len(next(iter(given.fit[0].values())))
    assert found_.method == "perturbation"
    assert found_.samples == first
    assert sorted(found_.order) == list(range(group.size))


@pytest.mark.parametrize("method", ["auto", "perturbation", "gradient", "reconstruction"])
def test_the_command_prints_what_its_schema_says(method, capsys):
    given = ["sensitivity", str(MODEL), "--data", str(DATA), "--samples", "400"]
    with pytest.raises(SystemExit) as end:
        main([*given, "--json", "-", "--method", method])
    assert end.value.code == 0
    document = json.loads(capsys.readouterr().out)
    validate(document, "onnxprune-sensitivity/1", "here")
    assert document["method"] == method
    assert document["reasons"]
    assert document["forwards"] > 0
    assert document["agreement"]
    for pair in document["agreement"]:
        units_compare = {pair["first"], pair["second"]} <= {
            "perturbation",
            "gradient",
            "exact removal",
        }
        assert (pair["pooled"] is not None) == units_compare
        assert pair["worst"] <= pair["median"]
        assert pair["groups"] > 0
    for group in document["groups"]:
        assert sorted(group["order"]) == list(range(group["channels"]))
        assert len(group["widths"]) == len(group["errors"])
        assert 0 <= group["lost"] <= 1
    if method != "auto":
        assert method in {group["method"] for group in document["groups"]}


def test_few_samples_are_warned_of_and_many_are_not():
    few, many = (
        pipeline.sensitivity(
            nets.MODELS / "digits_resnet.onnx",
            Options(data=nets.MODELS / "digits_images.npz", samples=n, method="gradient"),
        )
        for n in (8, 200)
    )
    assert few.stability < 0.8 < many.stability
    assert any("two halves" in warning for warning in few.warnings)
    assert not any("two halves" in warning for warning in many.warnings)


@pytest.mark.parametrize("method", ["perturbation", "reconstruction"])
def test_every_method_says_how_stable_its_ranking_is(method):
    report = pipeline.sensitivity(
        MODEL, Options(data=DATA, samples=64, method=method, recover=method == "reconstruction")
    )
    known = [group.stability for group in report.groups]
    assert all(-1 <= value <= 1 for value in known)
    assert report.stability == pytest.approx(np.median(known))


def test_halves_that_contradict_each_other_are_warned_of(monkeypatch):
    """Whatever is measured, the second half of the samples says the opposite."""
    spread = measurer.Measurer.ranked

    def contradicted(self, group, parts):
        found = spread(self, group, parts)
        return replace(found, halves=np.stack([found.scores, -found.scores]))

    monkeypatch.setattr(measurer.Measurer, "ranked", contradicted)
    report = pipeline.sensitivity(MODEL, Options(data=DATA, samples=48, method="perturbation"))
    assert report.stability == pytest.approx(-1.0)
    assert any("two halves" in warning and "-1.00" in warning for warning in report.warnings)


def test_time_that_is_up_is_marked():
    report = pipeline.sensitivity(
        MODEL, Options(data=DATA, samples=64, method="perturbation", time_limit=1e-9)
    )
    assert report.partial
    assert all(group.partial and group.method == "activation" for group in report.groups)
    assert any("time was up" in warning for warning in report.warnings)
    assert to_json(report)["partial"] is True
