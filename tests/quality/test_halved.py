"""What the metric says without half of one group."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from onnxprune.cli import main
from onnxprune.coupling.keeps import keep_masks
from onnxprune.data.splits import split_samples
from onnxprune.options import Options
from onnxprune.quality.drop import worst_class
from onnxprune.quality.halved import Halved
from onnxprune.quality.judge import Judge
from onnxprune.rewrite.cut import cut
from tests import nets


@pytest.mark.parametrize("metric", [(), ("kl",)])
@pytest.mark.parametrize("name", ["digits_resnet", "digits_lstm"])
def test_equals_the_cut_model(name, metric):
    found = nets.digits(name, 64)
    splits, options = split_samples(64, 0), Options(metric=metric)
    halved, judge = Halved(found, splits, options), Judge(found, splits, options)
    assert halved.metric == judge.metric
    for group in found.coupling.groups[:3]:
        order = np.random.default_rng(0).permutation(group.size)
        keeps = keep_masks([(group, order[: group.size // 2])], found.coupling.collected.sizes)
        model = cut(found.view, found.coupling, found.traces, keeps)
        true = judge.losses(model, splits.select, keeps)
        mean, worst = halved.lost(group, order.tolist())
        assert mean == pytest.approx(true.drop, rel=1e-3, abs=1e-6)
        assert worst == worst_class(true)


def test_a_single_channel_has_no_half():
    halved = Halved(nets.digits("digits_mlp", 16), split_samples(16, 0), Options())
    assert halved.lost(SimpleNamespace(size=1, step=1), [0]) == (None, None)


def report(tmp_path, *more):
    target = tmp_path / "r.json"
    data = nets.MODELS / "digits_features_heldout.npz"
    given = [str(nets.MODELS / "digits_mlp.onnx"), "--data", str(data), "--samples", "64"]
    with pytest.raises(SystemExit) as end:
        main(["sensitivity", *given, "--quiet", "--json", str(target), *more])
    assert end.value.code == 0
    return json.loads(target.read_text())


def test_the_command_takes_metrics_and_labels(tmp_path):
    own = tmp_path / "own.py"
    own.write_text("def all_of_it(before, after):\n    return 0.25\n")
    found = report(tmp_path, "--metric", f"{own}:all_of_it")
    assert [g["lost"] for g in found["groups"]] == [0.25, 0.25]
    found = report(tmp_path, "--labels", "labels", "--samples", "256")
    assert found["metric"].startswith("accuracy")
    assert any(g["worst_class"] is not None for g in found["groups"])
