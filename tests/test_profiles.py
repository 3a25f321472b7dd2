"""Several shape profiles in one budget: read, fed, predicted, and promised at each of them."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import pipeline
from onnxprune.bench import command as benching
from onnxprune.bench.measure import worst
from onnxprune.bench.table import load_table
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.choices import parse_profile, read_options
from onnxprune.documents import validate
from onnxprune.errors import BudgetError, UsageError
from onnxprune.options import Options, Trials
from onnxprune.progress import Silent
from onnxprune.report.console import print_report
from onnxprune.report.json import to_json
from onnxprune.search import stages
from onnxprune.selection import correction
from onnxprune.selection import pace as room
from onnxprune.selection.cuttable import cuttable
from onnxprune.selection.pace import paced
from onnxprune.selection.promise import keep_predicted
from tests import nets
from tests.test_pipeline import weights_of

TWO = ({"N": 1}, {"N": 8})
ROWS = np.random.default_rng(0).standard_normal((32, 12)).astype(np.float32)


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(nets.mlp(12, 64, 48, 4), path)
    return path


def tokens(size):
    """Rows of a dynamic number of tokens, the batch nameless; fixed sizes where one is given."""
    net = nets.Net(3)
    y = net.op("Relu", net.op("MatMul", "x", net.weight(6, 16)))
    y = net.op("MatMul", y, net.weight(16, 4))
    if size:
        y = net.op("Reshape", y, net.const(np.array([-1, 5, 4])))
    return net.model({"x": (None, "seq", 6)}, y)


def ratios_of(by_batch):
    """Time models at once: their ratio depends on the batch they are fed."""

    def measure(models, feeds, **choices):
        ratio = by_batch[len(next(iter(feeds[0].values())))]
        one = Latency(1.0, 1.0, 1.0)
        verdict = "faster" if ratio < 0.99 else "no measurable change"
        names, dims = choices["names"], choices["dims"]
        found = (ratio, (ratio - 0.01, ratio + 0.01), "wall", None, None, verdict)
        figures = found if models[1:] else [None] * 6
        return BenchReport(
            names, [one] * len(models), *figures, 6, 10, 1, "cpu", dims, {}, ["load"]
        )

    return measure


def quick(**choices):
    return Options(
        **{"samples": 16, "time_limit": 20.0, "recover": False, "profiles": TWO, **choices}
    )


@pytest.fixture
def machine(monkeypatch):
    """A made-up machine: with more rows than one, half of the time cannot be saved."""

    def timer(*_):
        def time(o):
            work = 1e4 * float(np.prod([-(-w // 4) * 4 for w in o.widths]))
            return work if o.shapes[0][0] == 1 else work + 2e7

        return time

    monkeypatch.setattr(room, "operator_timer", timer)
    monkeypatch.setattr(correction, "race", lambda models, *_, **__: weights_of(models))


class TestReading:
    def test_a_profile_is_a_list_of_sizes(self):
        assert parse_profile("batch=8, seq=128") == {"batch": 8, "seq": 128}
        options = read_options({"profile": ["n=1", {"n": 8}]})
        assert options.profiles == ({"n": 1}, {"n": 8})

    @pytest.mark.parametrize("text", ["", "batch", "batch=0", "batch=1,", "n=1,n=2", "n=x"])
    def test_what_is_none(self, text):
        with pytest.raises(UsageError, match="dimension"):
            parse_profile(text)

    def test_each_counts_once(self):
        with pytest.raises(UsageError, match="twice"):
            read_options({"profile": ["n=1", "n=1"]})

    def test_a_misspelt_dimension(self, net):
        with pytest.raises(UsageError, match="no input has a dimension named 'M'"):
            pipeline.inspect(net, Options(profiles=({"M": 2},)))


class TestLooking:
    def test_samples_are_fed_where_they_fit(self, net):
        options = Options(data={"x": ROWS}, profiles=TWO)
        found = pipeline.analyse(net, options, Silent())
        one, eight = found.profiles
        assert (one.dims, eight.dims) == ({"N": 1}, {"N": 8})
        np.testing.assert_array_equal(eight.feed["x"], ROWS[:8])
        assert eight.stated.shapes[found.view.model.graph.output[0].name] == (8, 4)
        assert found.dims == {"N": 1}

    def test_dimensions_without_a_name_and_those_left_open(self, tmp_path):
        onnx.save(tokens(None), tmp_path / "in.onnx")
        options = Options(profiles=({"x[0]": 3}, {"seq": 7}), dims={"seq": 5})
        found = pipeline.analyse(tmp_path / "in.onnx", options, Silent())
        assert [p.feed["x"].shape for p in found.profiles] == [(3, 5, 6), (1, 7, 6)]

    def test_sizes_at_which_the_model_does_not_run(self, tmp_path):
        onnx.save(tokens(5), tmp_path / "in.onnx")
        options = Options(profiles=({"seq": 5}, {"seq": 7}), dims={"seq": 5})
        with pytest.raises(UsageError, match="--profile seq=7: the model does not run"):
            pipeline.analyse(tmp_path / "in.onnx", options, Silent())

    def test_without_profiles_the_stated_sizes_are_timed(self, net):
        found = pipeline.analyse(net, Options(dims={"N": 4}), Silent())
        (only,) = found.timed_at()
        assert only.dims == {"N": 4}
        assert only.feed["x"].shape == (4, 12)


@pytest.mark.usefixtures("machine")
class TestPromise:
    def test_the_worst_profile_is_what_counts(self, net, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(stages, "measure", ratios_of({1: 0.6, 8: 0.85}))
        asked = quick(latency=0.9, cache=tmp_path / "cache")
        report = pipeline.run(net, tmp_path / "out.onnx", asked)
        assert report.ratios.latency == 0.85
        assert [(p.dims, p.ratio) for p in report.profiles] == [({"N": 1}, 0.6), ({"N": 8}, 0.85)]
        document = json.loads(json.dumps(to_json(report)))
        validate(document, "onnxprune-report/1", "report")
        assert document["options"]["profiles"] == [{"N": 1}, {"N": 8}]
        assert list(report.warnings).count("load") == 1
        with (tmp_path / "page").open("w") as page:
            print_report(report, page)
        text = (tmp_path / "page").read_text()
        assert "N=1" in text
        assert "0.850 (0.840-0.860)" in text

    def test_one_profile_that_is_too_slow_writes_nothing(self, net, tmp_path, monkeypatch):
        monkeypatch.setattr(stages, "measure", ratios_of({1: 0.6, 8: 0.85}))
        asked = quick(latency=0.8, cache=tmp_path / "cache")
        with pytest.raises(BudgetError, match=r"nearest that was measured is 0\.850"):
            pipeline.run(net, tmp_path / "out.onnx", asked)
        assert not (tmp_path / "out.onnx").exists()

    def test_a_drop_alone_must_be_faster_at_every_profile(self, net, tmp_path, monkeypatch):
        monkeypatch.setattr(stages, "measure", ratios_of({1: 0.6, 8: 1.0}))
        asked = quick(max_drop=0.9, metric=("relative_l2",), cache=tmp_path / "cache")
        with pytest.raises(BudgetError, match="no measurable change"):
            pipeline.run(net, tmp_path / "out.onnx", asked)

    def test_the_price_is_the_mean_of_the_profiles(self, net, tmp_path):
        options = quick(latency=0.8, cache=tmp_path / "cache")
        found = pipeline.analyse(net, options, Silent())
        groups = cuttable(found, options)
        timed, pace = paced(found, groups, options, Silent())
        assert len(pace.profiles) == 2
        gone = {m.axis.plain: 0.5 for m in groups[0].members}
        mean = 1 - timed.costs.saved(gone).latency / timed.costs.total.latency
        keeps = (
            {axis: np.arange(64) < 32 for axis in gone}
            if groups[0].size == 64
            else {axis: np.arange(48) < 24 for axis in gone}
        )
        alone = [
            replace(pace, profiles=(terms,), totals=(total,)).worst(keeps)
            for terms, total in zip(pace.profiles, pace.totals, strict=True)
        ]
        assert mean == pytest.approx(np.mean(alone))
        assert pace.worst(keeps) == max(alone) > min(alone) + 0.01

    def test_a_table_must_promise_each_profile(self, net, tmp_path, monkeypatch):
        monkeypatch.setattr(stages, "measure", ratios_of({1: 0.6, 8: 0.9}))
        monkeypatch.setattr(benching, "measure", ratios_of({1: 0.6, 8: 0.9}))
        table = tmp_path / "table.json"
        pipeline.bench(net, None, quick(cache=tmp_path / "c"), table=table)
        sizes = {dims for _, dims in load_table(table).fits}
        assert sizes == {(("N", 1),), (("N", 8),)}
        asked = quick(latency=0.8, latency_table=table)
        both = pipeline.run(net, tmp_path / "both.onnx", asked)
        slow = pipeline.run(net, tmp_path / "slow.onnx", replace(asked, profiles=TWO[1:], seed=0))
        fast = pipeline.run(net, tmp_path / "fast.onnx", replace(asked, profiles=TWO[:1]))
        assert slow.ratios.macs < fast.ratios.macs
        assert both.ratios.macs <= slow.ratios.macs


def test_a_prediction_that_no_target_reaches():
    with pytest.raises(BudgetError, match=r"every profile: the nearest .* 0\.900"):
        keep_predicted(0.8, lambda _: None, lambda _: 0.9)


class TestBench:
    def test_every_profile_is_timed(self, net):
        one = pipeline.bench(
            net, None, Options(profiles=TWO), trials=Trials(pairs=2, runs=2, warm_up=1)
        )
        assert [p.dims for p in one.profiles] == list(TWO)
        assert one.ratio is None
        validate(to_json(one), "onnxprune-bench/1", "bench")

    def test_two_models(self, net, tmp_path, monkeypatch):
        monkeypatch.setattr(benching, "measure", ratios_of({1: 0.9, 8: 0.6}))
        report = onnxprune.bench(net, net, profile=["N=8", "N=1"])
        assert (report.ratio, report.dims) == (0.9, {"N": 1})
        with (tmp_path / "page").open("w") as page:
            print_report(report, page)
        assert "0.900 (0.890-0.910)" in (tmp_path / "page").read_text()

    def test_batch_and_profile_contradict_each_other(self, net):
        with pytest.raises(UsageError, match="--batch 4 and --profile"):
            pipeline.bench(net, None, Options(profiles=TWO), trials=Trials(batch=4))


def test_the_worst_of_models_timed_alone_is_the_slowest():
    one = ratios_of({1: 0.5})([0], [{"x": np.zeros((1, 1))}], names=["a"], dims={})
    slow = replace(one, latency_ms=[Latency(2.0, 2.0, 2.0)])
    assert worst([slow, one]).latency_ms == slow.latency_ms


def test_a_plan_is_applied_and_timed_at_other_sizes(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratios_of({1: 0.6, 8: 0.7}))
    plan = tmp_path / "plan.json"
    pipeline.run(net, None, quick(macs=0.6), dry_run=True, save_plan=plan)
    report = pipeline.apply(net, tmp_path / "out.onnx", plan, quick(profiles=({"N": 8},)))
    assert [p.dims for p in report.profiles] == [{"N": 8}]
