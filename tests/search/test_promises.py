"""Promises of quality on a real model, the whole way: kept and proven, or nothing is written."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.analysis import analyse
from onnxprune.data.splits import split_samples
from onnxprune.documents import validate
from onnxprune.errors import BudgetError, UsageError
from onnxprune.lossless.find import Free
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.quality.judge import Judge
from onnxprune.search import stages
from onnxprune.search.candidate import Workshop
from onnxprune.search.path import nested_plans
from onnxprune.selection import correction, pace
from onnxprune.selection.budget import farthest
from onnxprune.sensitivity.methods import measure_groups
from tests import nets
from tests.clock import quick_bench
from tests.test_pipeline import weights_of

MLP = nets.MODELS / "digits_mlp.onnx"
FEATURES = nets.MODELS / "digits_features.npz"
LABELLED = nets.MODELS / "digits_features_heldout.npz"
BOUNDED = Options(data=FEATURES, max_drop=0.05)


@pytest.fixture(autouse=True)
def _untimed(monkeypatch, tmp_path_factory):
    """Let a machine be made up on which time goes with the number of weights."""
    monkeypatch.setattr(stages, "measure", quick_bench)
    monkeypatch.setattr(pace, "operator_timer", lambda *_: lambda o: 10.0 * np.prod(o.widths))
    monkeypatch.setattr(correction, "race", lambda models, *_, **__: 10.0 * weights_of(models))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def run(folder, options):
    return pipeline.run(MLP, folder / "out.onnx", options)


def test_the_smallest_model_that_a_drop_allows(tmp_path):
    report = run(tmp_path, BOUNDED)
    assert report.ratios.macs < 0.9
    assert report.drop.value <= report.drop.limit == 0.05
    assert report.drop.before_recovery > report.drop.value
    assert report.drop.outputs[0].metric == "agreement"
    assert (tmp_path / "out.onnx").exists()


def test_more_may_go_where_more_may_be_lost(tmp_path):
    little, much = (
        pipeline.run(MLP, None, replace(BOUNDED, max_drop=drop), dry_run=True).ratios.macs
        for drop in (0.03, 0.2)
    )
    assert much < little


def test_the_same_seed_finds_the_same_model(tmp_path):
    for name in ("a", "b"):
        pipeline.run(MLP, tmp_path / name, BOUNDED)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_drop_that_is_proven_is_certified(tmp_path):
    report = run(tmp_path, replace(BOUNDED, max_drop=0.1, require_certificate=True))
    assert (report.drop.certified.alpha, report.drop.certified.samples) == (0.1, 100)
    assert not any("certified" in w for w in report.warnings)


def test_a_ratio_and_a_drop_that_contradict_write_nothing(tmp_path):
    with pytest.raises(
        BudgetError, match=r"at --macs 0\.\d+ on 100 .* the nearest is --macs 0\.\d"
    ):
        run(tmp_path, replace(BOUNDED, macs=0.15, max_drop=0.01))
    assert list(tmp_path.iterdir()) == []


def test_a_ratio_and_a_drop_that_both_hold(tmp_path):
    report = run(tmp_path, replace(BOUNDED, macs=0.7, max_drop=0.1))
    assert report.ratios.macs <= 0.7
    assert report.drop.value <= 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (replace(BOUNDED, max_drop=0.01), r"100 samples.*299 \(so 1196 in all\)"),
        (replace(BOUNDED, max_drop=0.0), "no number would do"),
        (Options(max_drop=0.5), "synthetic inputs certify nothing"),
        (replace(BOUNDED, samples=3), "fewer than 4 samples"),
    ],
)
def test_a_certificate_that_no_candidate_could_get(options, message, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "measure_groups", None)  # nothing takes time before it is said
    with pytest.raises(BudgetError, match=message):
        run(tmp_path, replace(options, require_certificate=True))
    assert list(tmp_path.iterdir()) == []


def test_synthetic_inputs_certify_nothing(tmp_path):
    report = run(tmp_path, Options(macs=0.7, samples=16, recover=False))
    assert report.drop.certified is None
    assert any("not certified: synthetic" in w for w in report.warnings)


def test_accuracy_with_labels(tmp_path):
    options = Options(data=LABELLED, labels="labels", macs=0.5)
    report = run(tmp_path, options)
    assert report.drop.metric == "accuracy"
    assert report.drop.interval[0] <= report.drop.value <= report.drop.interval[1]
    assert report.drop.worst_class >= report.drop.value
    assert report.drop.certified.alpha > report.drop.value


def test_a_metric_for_the_whole_is_kept_and_not_certified(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def loss(before, after):\n"
        "    a, b = before['probabilities'], after['probabilities']\n"
        "    return float(abs(a - b).max())\n"
    )
    metric = (f"{tmp_path}/mine.py:loss",)
    report = run(tmp_path, replace(BOUNDED, metric=metric, max_drop=0.9))
    assert report.drop.value <= 0.9
    assert (report.drop.interval, report.drop.certified) == (None, None)
    assert any("not certified" in w for w in report.warnings)
    with pytest.raises(UsageError, match="give --max-drop"):
        pipeline.run(MLP, None, Options(data=FEATURES, metric=metric), dry_run=True)


def test_a_model_that_pruning_ruins_writes_nothing(tmp_path):
    """Every channel of this net decides: no width below all of them keeps one percent."""
    net = nets.Net()
    hidden = net.op("Relu", net.op("Gemm", "x", net.const(np.eye(8, dtype=np.float32))))
    net.op("Gemm", hidden, net.const(np.eye(8, dtype=np.float32)))
    net.nodes[-1].output[0] = "logits"
    onnx.save(net.model({"x": ("N", 8)}, "logits"), tmp_path / "in.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.random((80, 8), np.float32))
    options = Options(data=tmp_path / "data.npz", max_drop=0.01)
    with pytest.raises(BudgetError, match=r"leaves nothing to cut|cannot be kept"):
        pipeline.run(tmp_path / "in.onnx", tmp_path / "out.onnx", options)
    assert not (tmp_path / "out.onnx").exists()


def test_the_plans_on_the_path_are_nested():
    options = Options(data=FEATURES, samples=64)
    found = analyse(MLP, options, Silent())
    splits = split_samples(64, 0)
    groups = found.coupling.groups
    measured = measure_groups(found, groups, splits, options, Silent())
    judge = Judge(found, splits, options)
    workshop = Workshop(found, groups, measured, Free(), None, splits, judge, options, Silent())
    starts = [start for _, start in nested_plans(workshop, farthest(found.costs.total, "macs"))]
    assert len(starts) > 10
    for wide, narrow in pairwise(starts):
        assert all(narrow[name] <= width for name, width in wide.items())
        assert narrow != wide


def test_what_a_drop_allows_but_is_not_faster_is_not_written(tmp_path, monkeypatch):
    def same(models, feeds, **choices):
        slow = quick_bench(models, feeds, **choices)
        return replace(slow, ratio=1.0, interval=(0.99, 1.01), verdict="no measurable change")

    monkeypatch.setattr(stages, "measure", same)
    with pytest.raises(BudgetError, match=r"allows nothing that is faster.*no measurable change"):
        run(tmp_path, BOUNDED)
    assert list(tmp_path.iterdir()) == []


def test_a_latency_and_a_drop_that_contradict_name_the_nearest(tmp_path, monkeypatch):
    def kept(models, feeds, **choices):
        return replace(quick_bench(models, feeds, **choices), ratio=0.247, interval=(0.245, 0.249))

    monkeypatch.setattr(stages, "measure", kept)
    with pytest.raises(BudgetError, match=r"--latency 0\.250 with --max-drop 0\.1 .*nearest is"):
        run(tmp_path, replace(BOUNDED, latency=0.25, max_drop=0.1, recover=False))
    assert list(tmp_path.iterdir()) == []


def test_the_front_is_a_table_with_a_plan_for_every_point(tmp_path):
    folder = tmp_path / "front"
    pipeline.run(MLP, None, replace(BOUNDED, macs=0.7, recover=False), pareto=folder, dry_run=True)
    table = json.loads((folder / "front.json").read_text())
    validate(table, "onnxprune-front/1", "front.json")
    points = table["points"]
    assert len(points) >= 3
    assert sorted(p["plan"] for p in points) == sorted(
        path.name for path in folder.glob("plan-*.json")
    )
    plan = folder / points[-1]["plan"]
    made = pipeline.apply(MLP, tmp_path / "made.onnx", plan, Options(data=FEATURES))
    assert made.ratios.macs == pytest.approx(points[-1]["macs"], abs=1e-3)


def test_a_front_replaces_nothing(tmp_path):
    with pytest.raises(UsageError, match="exists already"):
        pipeline.run(MLP, None, BOUNDED, pareto=tmp_path, dry_run=True)
