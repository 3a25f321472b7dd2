"""A latency budget from table to file: widths that pay, and nothing written where none do."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.bench.operators import find_operators
from onnxprune.bench.sweep import fill
from onnxprune.bench.table import LatencyTable, save_table
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.errors import BudgetError, InputError, UsageError
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.runtime.session import Session
from onnxprune.search import pricing, stages
from onnxprune.selection import correction
from onnxprune.selection import pace as room
from onnxprune.selection.cuttable import cuttable
from onnxprune.selection.pace import paced
from tests import nets


def steps_of(step):
    """A machine on which widths go in steps."""
    return lambda o: 1e4 * np.prod([-(-w // step) * step for w in o.widths])


def no_gain(operator):
    """A machine on which nothing that is narrower is faster."""
    return 1e6


def table_of(path, timer, target):
    """Measure a model's operators on a machine that is made up."""
    found = pipeline.analyse(path, Options(samples=4), Silent())
    operators = list(find_operators(found.view, found.stated))
    table = fill(
        LatencyTable({"cpu": "made up"}), operators, lambda o: [True] * len(o.axes), timer,
        time_limit=60, progress=Silent(),
    )  # fmt: skip
    save_table(table, target)
    return target


@pytest.fixture
def net(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(nets.mlp(12, 64, 48, 4), path)
    return path


def options(table, **more):
    return Options(latency_table=table, samples=16, time_limit=20.0, recover=False, **more)


def ratio_of(timed_as):
    def measure(models, feeds, **choices):
        for model in models:
            Session(model).run(feeds[0])
        one = Latency(1.0, 1.0, 1.0)
        ends = (timed_as - 0.01, timed_as + 0.01)
        verdict = "faster" if ends[1] < 1 else "no measurable change"
        return BenchReport(
            choices["names"], [one, one], timed_as, ends, "wall", None, None, verdict, 6, 10, 1,
            "cpu", {}, {}, [],
        )  # fmt: skip

    return measure


@pytest.mark.parametrize("step", [8, 16, 32])
def test_widths_are_on_the_stairs(net, tmp_path, monkeypatch, step):
    monkeypatch.setattr(stages, "measure", ratio_of(0.6))
    table = table_of(net, steps_of(step), tmp_path / "table.json")
    report = pipeline.run(
        net, tmp_path / "out.onnx", options(table, latency=0.6), save_plan=tmp_path / "plan.json"
    )
    cut = [g for g in report.groups if g.after < g.before]
    assert cut
    assert all(g.after % step == 0 for g in cut)
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert {g["step"] for g in plan["groups"]} == {step}
    assert any("predicted from" in w for w in report.warnings)
    assert any("the table predicts 0." in w for w in report.warnings)


def test_where_steps_do_not_reach_widths_go_below_the_first(net, tmp_path, monkeypatch):
    monkeypatch.setattr(pricing, "_PRICES", ())  # these know no steps
    monkeypatch.setattr(stages, "measure", ratio_of(0.2))
    stairs = lambda o: 1e4 * np.prod([-(-w // 32) * 32 if w >= 16 else w for w in o.widths])  # noqa: E731
    table = table_of(net, stairs, tmp_path / "table.json")
    mild, deep = (
        pipeline.run(net, tmp_path / f"{ratio}.onnx", options(table, latency=ratio))
        for ratio in (0.5, 0.25)
    )
    assert {g.after % 32 for g in mild.groups if g.after < g.before} == {0}
    after = [g.after for g in deep.groups if g.after < g.before]
    assert all(width % 4 == 0 for width in after)
    assert min(after) < 32


def test_a_table_where_pruning_does_not_pay_writes_nothing(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratio_of(0.6))
    table = table_of(net, no_gain, tmp_path / "table.json")
    with pytest.raises(BudgetError, match=r"--latency 0.9 cannot be met: the nearest is latency 1"):
        pipeline.run(net, tmp_path / "out.onnx", options(table, latency=0.9))
    assert not (tmp_path / "out.onnx").exists()


def test_a_table_that_serves_nothing_is_refused(net, tmp_path):
    table = table_of(net, steps_of(8), tmp_path / "table.json")
    with pytest.raises(UsageError, match="--latency-table serves --latency"):
        pipeline.run(net, tmp_path / "out.onnx", options(table, macs=0.7))


def test_a_clock_that_denies_what_the_table_says_writes_nothing(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratio_of(1.0))
    monkeypatch.setattr(room, "operator_timer", lambda *_: steps_of(8))
    monkeypatch.setattr(correction, "race", lambda models, *_, **__: np.full(len(models), 1e7))
    asked = replace(options(None, latency=0.8), cache=tmp_path / "cache")
    with pytest.raises(BudgetError, match=r"no measurable change|nearest is latency"):
        pipeline.run(net, tmp_path / "out.onnx", asked)
    assert not (tmp_path / "out.onnx").exists()


def test_a_measured_latency_ends_in_a_file(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratio_of(0.75))
    monkeypatch.setattr(room, "operator_timer", lambda *_: steps_of(8))
    sizes = lambda m: float(sum(np.prod(t.dims) for t in m.graph.initializer))  # noqa: E731
    monkeypatch.setattr(
        correction, "race", lambda models, *_, **__: np.array([*map(sizes, models)])
    )
    asked = replace(options(None, latency=0.8), cache=tmp_path / "cache")
    report = pipeline.run(net, tmp_path / "out.onnx", asked)
    assert (tmp_path / "out.onnx").exists()
    assert report.ratios.latency_interval[1] <= 0.8
    assert len(list((tmp_path / "cache").glob("latency-*.json"))) == 1


class Busy:
    """A machine with stairs of 8 that is busy by turns while operators are timed first."""

    def __init__(self, calls):
        self.left, self.rng = calls, np.random.default_rng(0)

    def __call__(self, operator):
        self.left -= 1
        return steps_of(8)(operator) * (self.rng.uniform(1, 6) if self.left >= 0 else 1.0)


def true_times(models, *_, **__):
    """What models of Gemm take on that machine."""
    dims = [[t.dims for t in m.graph.initializer if len(t.dims) == 2] for m in models]
    return np.array([sum(1e4 * np.prod([-(-w // 8) * 8 for w in d]) for d in one) for one in dims])


def predicted(net, cache, timer, monkeypatch):
    """Return what halved operators take, and the whole model."""
    monkeypatch.setattr(room, "operator_timer", lambda *_: timer)
    asked = replace(options(None, latency=0.8), cache=cache)
    found = pipeline.analyse(net, asked, Silent())
    _, pace = paced(found, cuttable(found, asked), asked, Silent())
    return [*(term.left([0.5] * len(term.axes)) for term in pace.terms), pace.totals[0] / 1e8]


def test_times_taken_while_the_machine_was_busy_are_taken_again(net, tmp_path, monkeypatch):
    monkeypatch.setattr(correction, "race", true_times)
    quiet = predicted(net, tmp_path / "quiet", steps_of(8), monkeypatch)
    busy = predicted(net, tmp_path / "busy", Busy(40), monkeypatch)
    np.testing.assert_allclose(busy, quiet, rtol=0.05)


def test_a_table_of_a_busy_day_is_taken_again(net, tmp_path, monkeypatch):
    monkeypatch.setattr(correction, "race", true_times)
    quiet = predicted(net, tmp_path / "quiet", steps_of(8), monkeypatch)
    with monkeypatch.context() as patch:  # a run that has no second chance
        patch.setattr(room, "_RETAKES", 0)
        busy = predicted(net, tmp_path / "busy", Busy(10**9), monkeypatch)
    assert not np.allclose(busy, quiet, rtol=0.2)
    again = predicted(net, tmp_path / "busy", steps_of(8), monkeypatch)
    np.testing.assert_allclose(again, quiet, rtol=0.05)


def test_two_budgets_hold_together(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratio_of(0.6))
    table = table_of(net, steps_of(4), tmp_path / "table.json")
    report = pipeline.run(net, tmp_path / "out.onnx", options(table, latency=0.8, params=0.4))
    assert report.ratios.params <= 0.4


def test_what_a_conflict_leaves_is_named(net, tmp_path, monkeypatch):
    table = table_of(net, steps_of(16), tmp_path / "table.json")
    with pytest.raises(BudgetError, match=r"--params 0\.01 and --latency 0.9") as refused:
        pipeline.run(net, tmp_path / "out.onnx", options(table, latency=0.9, params=0.01))
    assert refused.value.nearest["params"] > 0.01
    assert refused.value.nearest["latency"] < 0.9


def test_the_price_follows_the_table(net, tmp_path):
    """Latency is priced on the resulting axes, whole and cut, as the table has it."""
    table = table_of(net, steps_of(16), tmp_path / "table.json")
    found = pipeline.analyse(net, options(table, latency=0.5), Silent())
    groups = cuttable(found, options(table))
    with_times, pace = paced(found, groups, options(table, latency=0.5), Silent())
    assert with_times.costs.total.latency == 1e4 * (64 * 16 + 48 * 64 + 16 * 48)
    group = next(g for g in groups if g.size == 64)
    keeps = keep_masks([(group, np.arange(40))], found.coupling.collected.sizes)
    kept = {axis: float(mask.mean()) for axis, mask in keeps.items()}
    assert with_times.costs.price(kept).latency == 1e4 * (32 * 16 + 48 * 32 + 16 * 48)
    assert pace.steps[Axis(group.members[0].axis.value, group.members[0].axis.axis)] == 16


def test_operators_that_the_table_lacks_are_guessed_and_named(net, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "measure", ratio_of(0.6))
    table = table_of(net, steps_of(8), tmp_path / "table.json")
    document = json.loads(table.read_text())
    del document["operators"][0]
    table.write_text(json.dumps(document))
    report = pipeline.run(net, tmp_path / "out.onnx", options(table, latency=0.8))
    assert "1 of 3 operators are not in the latency table" in report.warnings


def test_no_table(net, tmp_path):
    with pytest.raises(InputError, match="cannot read the latency table"):
        pipeline.run(net, tmp_path / "out.onnx", options(tmp_path / "none.json", latency=0.8))
