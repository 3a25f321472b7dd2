"""Switches: taken where curves mislead, and only where refitted models are clearly nearer."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from onnxprune import pipeline
from onnxprune.analysis import analyse
from onnxprune.data.splits import split_samples
from onnxprune.errors import BudgetError, VerificationError
from onnxprune.lossless.find import Free
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.quality.judge import Judge
from onnxprune.search import switching
from onnxprune.search.candidate import Workshop
from onnxprune.search.switching import switched
from onnxprune.selection.budget import budget_of
from onnxprune.selection.cuttable import cuttable
from onnxprune.sensitivity.methods import measure_groups
from tests import nets

GROUP = "/2/first/first.0/Conv"
NET = nets.MODELS / "digits_resnet.onnx"
CHOICES = Options(
    data=nets.MODELS / "digits_images.npz", samples=160, macs=0.6, branches=False, exclude=("/6*",)
)


@pytest.fixture(scope="module")
def shop():
    found, splits = analyse(NET, CHOICES, Silent()), split_samples(160, 0)
    groups = cuttable(found, CHOICES)
    measured = measure_groups(found, groups, splits, CHOICES, Silent())
    judge = Judge(found, splits, CHOICES)
    return Workshop(found, groups, measured, Free(), None, splits, judge, CHOICES, Silent())


def misled(shop, name):
    """Let a group's curve say that it costs next to nothing."""
    curve = shop.measured.groups[name]
    groups = {**shop.measured.groups, name: replace(curve, errors=curve.errors * 1e-3)}
    return replace(shop, measured=replace(shop.measured, groups=groups))


def start(shop, **ratios):
    """Make a candidate as the curves say."""
    options = replace(shop.options, **{"macs": None, **ratios}) if ratios else shop.options
    budget = budget_of(options, shop.found.costs.total, shop.found.model.bytes)
    return shop.make(budget)


@pytest.mark.parametrize("ratios", [{"macs": 0.6}, {"macs": 0.7, "params": 0.8, "size": 0.9}])
def test_better_widths_are_found_where_a_curve_misleads(shop, ratios):
    shop = misled(shop, GROUP)
    candidate = start(shop, **ratios)
    found = switched(shop, candidate)
    before, after = (c.settled.selection.allocation.widths[GROUP] for c in (candidate, found))
    assert after > before
    assert found.error < 0.9 * candidate.error
    for name, ratio in candidate.budget.ratios.items():
        assert found.settled.selection.reached[name] <= ratio
    for group in shop.groups:
        kept = found.settled.selection.allocation.widths[group.name]
        gone = {g.name: len(c) for g, c in found.settled.proven.removed}.get(group.name, 0)
        assert group.size - gone == kept


def test_nothing_is_switched_where_refits_see_no_gain(shop, monkeypatch):
    """What stitched weights promise does not count."""
    candidate = start(shop)
    made = Workshop.resettled
    tried = []

    def no_better(self, *given):
        tried.append(given)
        return replace(made(self, *given), recovered=candidate.recovered)

    monkeypatch.setattr(Workshop, "resettled", no_better)
    monkeypatch.setattr(switching._Around, "error", lambda _, one: -one.error)
    monkeypatch.setattr(switching, "_TRIED", 4)
    monkeypatch.setattr(switching, "_REFITTED", 2)
    assert switched(shop, candidate) is candidate
    assert 0 < len(tried) <= switching._REFITTED


def test_what_cannot_be_proven_or_is_not_as_fast_as_promised_stays(shop, monkeypatch):
    shop = misled(shop, GROUP)
    candidate = start(shop)
    monkeypatch.setattr(Workshop, "kept", raising(BudgetError("the clock says no")))
    assert switched(shop, candidate) is candidate
    monkeypatch.setattr(Workshop, "resettled", raising(VerificationError("unlike")))
    assert switched(shop, candidate) is candidate


def raising(error):
    def fail(*_):
        raise error

    return fail


def test_processor_time_bounds_the_search(shop, monkeypatch):
    shop = misled(shop, GROUP)
    candidate = start(shop)
    looked, clock = [], [0.0]

    def error(_, allocation):
        looked.append(allocation)
        clock[0] += 10.0  # of 120 s, a quarter is for looking around
        return allocation.error

    monkeypatch.setattr(switching._Around, "error", error)
    monkeypatch.setattr(switching.time, "process_time", lambda: clock[0])
    monkeypatch.setattr(Workshop, "resettled", raising(VerificationError("unlike")))
    switched(shop, candidate)
    assert len(looked) <= 4
    clock[0] = 0.0
    monkeypatch.setattr(switching, "_walk", lambda *_: clock.__setitem__(0, 61.0) or [None])
    monkeypatch.setattr(Workshop, "resettled", raising(AssertionError("time is up")))
    assert switched(shop, candidate) is candidate


@pytest.mark.parametrize(
    ("choices", "synthetic", "samples"),
    [
        ({"switches": False}, False, 64),
        ({"recover": False}, False, 64),
        ({}, True, 64),
        ({}, False, 3),
        ({}, False, 6),
    ],
    ids=["not wanted", "no refit", "no data", "no samples held out", "too few samples"],
)
def test_it_is_left_out_where_a_refit_would_not_show(choices, synthetic, samples):
    workshop = SimpleNamespace(
        found=SimpleNamespace(samples=SimpleNamespace(synthetic=synthetic)),
        splits=split_samples(samples, 0),
        options=Options(**choices),
    )
    candidate = object()
    assert switched(workshop, candidate) is candidate


def test_a_plan_of_switched_widths_is_repeated(monkeypatch):
    """Any switch is taken here, of recurrent layers too."""
    monkeypatch.setattr(switching, "_BETTER", 1e9)
    monkeypatch.setattr(switching, "_REFITTED", 1)
    data, source = nets.MODELS / "digits_rows.npz", nets.MODELS / "digits_lstm.onnx"
    options = Options(data=data, samples=96, macs=0.6, branches=False)
    done = pipeline.prune(source, options)
    assert done.report.ratios.macs <= 0.6
    assert pipeline.verify(source, done.model, done.plan, Options()).ok


def test_networks_that_take_too_long_to_run_are_left_as_they_are(shop, monkeypatch):
    candidate = start(shop)
    tried = []
    monkeypatch.setattr(switching, "_walk", lambda *_: tried.append("walk") or [])
    macs = shop.found.costs.total.macs * len(shop.splits.select)
    for tries, walks in ((15, []), (17, ["walk"])):
        limit = tries * macs / 5e10 / 0.25
        shop_in_time = replace(shop, options=replace(shop.options, time_limit=limit))
        assert switched(shop_in_time, candidate) is candidate
        assert tried == walks
