"""The search: what it builds, what it chooses, and what no sample may tell it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from onnxprune.errors import BudgetError
from onnxprune.model.cost import Cost
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise
from onnxprune.search import path as path_module
from onnxprune.search.path import last_allowed, walk
from onnxprune.search.search import search
from onnxprune.selection.budget import Budget, farthest

TOTAL = Cost(100, 1000, 400)
FREE = Promise("agreement", None, 0.95, required=False, impossible="")


def given(values):
    values = np.asarray(values, np.float64)
    return Losses(float(values.mean()), values, "binary", None, len(values))


def share(hits, n=100):
    return given([1] * hits + [0] * (n - hits))


@dataclass
class Made:
    """A candidate that is nothing but what it lost."""

    budget: Budget
    losses: Losses
    recovered: object = None

    def __post_init__(self):
        self.recovered = self
        self.model = self

    @property
    def settled(self):
        return self

    selection = settled

    @property
    def reached(self):
        return self.budget.ratios

    def __str__(self):
        return f"drop {self.losses.drop:.4f}"


@dataclass
class Bench:
    """A workshop in which the drop depends on the ratio of MACs alone."""

    drop: object
    judged_held: object = None
    asked: list = field(default_factory=list)
    done: list = field(default_factory=list)
    options: Options = field(default_factory=lambda: Options(branches=False, switches=False))
    progress: object = field(default_factory=Silent)
    groups: tuple = ()

    @dataclass
    class Splits:
        select: tuple = (0,)
        certify: tuple = (1,)

    splits = Splits()

    @property
    def judge(self):
        return self

    def losses_count(self, indices):
        assert indices == self.splits.certify
        return 100

    @property
    def found(self):
        return self

    @property
    def costs(self):
        return self

    total = TOTAL

    def and_shortened(self, _):
        return [self]

    def left(self, budget):
        return budget

    def finished(self, candidate):
        self.done.append(candidate)
        return candidate

    def held(self, candidate):
        assert candidate in self.done  # what is written is what is certified
        lost = self.judged_held or self.drop
        return share(round(100 * lost(candidate.budget.ratios["macs"])))

    def promised(self, budget):
        return self.make(budget)

    def make(self, budget, start=None):
        self.asked.append(budget.ratios["macs"])
        return Made(budget, share(round(100 * self.drop(budget.ratios["macs"]))))


@pytest.fixture(autouse=True)
def _all_reachable(monkeypatch):
    def plans(_, end):
        return [(budget, {}) for budget in path_module._budgets(end)]

    monkeypatch.setattr(path_module, "nested_plans", plans)


def linear(ratio):
    """Lose what is cut off: nothing at 1, half at 0.5."""
    return 1 - ratio


def promised(limit, **choices):
    return replace(FREE, limit=limit, **choices)


class TestWalk:
    def test_finds_where_the_drop_passes_the_limit(self):
        bench = Bench(linear)
        made = walk(bench, farthest(TOTAL, "macs"), promised(0.3))
        assert len(bench.asked) <= 8
        drops = [c.losses.drop for c in made]
        assert drops == sorted(drops)
        best = max(d for d in drops if d <= 0.3)
        assert 0.3 - best <= 0.03

    def test_towards_a_ratio_it_stays_this_side(self):
        made = walk(Bench(linear), Budget({"macs": 0.6}, TOTAL), promised(0.3))
        assert all(c.budget.ratios["macs"] >= 0.6 for c in made)

    def test_a_budget_out_of_reach_ends_the_path(self):
        class Short(Bench):
            def make(self, budget, start=None):
                if budget.ratios["macs"] < 0.8:
                    raise BudgetError("too far")
                return super().make(budget, start)

        made = walk(Short(lambda _: 0.0), farthest(TOTAL, "macs"), promised(0.3))
        assert 0.8 <= made[-1].budget.ratios["macs"] < 0.83


class TestChoiceByCrossValidation:
    def test_takes_the_last_that_is_allowed(self):
        assert last_allowed([share(0), share(1), share(9)], 0.05, seed=0) == 1
        assert last_allowed([share(9), share(0)], 0.05, seed=0) == -1

    def test_one_number_for_all_is_taken_as_it_is(self):
        whole = [Losses(drop, None, None, None, 9) for drop in (0.1, 0.2, 0.3)]
        assert last_allowed(whole, 0.2, seed=0) == 1

    def test_a_choice_that_only_looks_good_on_its_own_samples_is_tightened(self):
        """Many candidates at the limit by luck: left-out samples see what choosing one costs."""
        rng = np.random.default_rng(0)
        stricter = 0
        for seed in range(40):
            path = [given(rng.random(40) < p) for p in (0.0, 0.05, 0.08, 0.11, 0.14)]
            drops = [losses.drop for losses in path]
            plain = next((k for k, d in enumerate(drops) if d > 0.1), len(path)) - 1
            chosen = last_allowed(path, 0.1, seed=seed)
            assert chosen <= plain
            stricter += chosen < plain
        assert 0 < stricter < 40


class TestSearch:
    def test_a_ratio_alone_is_reached_whatever_it_costs(self):
        chosen = search(Bench(linear), Budget({"macs": 0.5}, TOTAL), FREE)
        assert chosen.held[-1].drop == 0.5

    @pytest.mark.parametrize("far", [True, False])
    def test_branches_that_can_be_spared_lead_further(self, monkeypatch, far):
        """They are looked for at the first budget that the drop forbids with all of them."""
        asked = []

        def spared(workshop, budget, candidate):
            asked.append(candidate.losses.drop)
            return ["a branch"]

        shorter = Bench(lambda ratio: (1 - ratio) / (2 if far else 1))
        monkeypatch.setattr("onnxprune.search.search.spared", spared)
        monkeypatch.setattr(Bench, "shortened", lambda _, gone: shorter, raising=False)
        monkeypatch.setattr(Bench, "left", lambda _, budget: budget, raising=False)
        bench = Bench(linear, judged_held=lambda _: 0.0)
        ratio = search(bench, None, promised(0.3)).candidate.budget.ratios["macs"]
        assert 0.3 < asked[0] <= 0.35
        assert (0.4 <= ratio < 0.5) if far else (0.7 <= ratio < 0.75)
        assert max(shorter.asked) < min(r for r in bench.asked if 1 - r <= 0.3)

    def test_a_ratio_that_costs_too_much(self):
        """The message names the drop at the ratio and the ratio at the drop."""
        with pytest.raises(BudgetError) as error:
            search(Bench(linear), Budget({"macs": 0.5}, TOTAL), promised(0.3))
        text = str(error.value)
        assert "--macs 0.500 with --max-drop 0.3 (agreement) cannot be met" in text
        assert "the drop is 0.5000" in text
        assert "the nearest is --macs 0.7" in text

    def test_a_drop_that_explodes(self):
        with pytest.raises(BudgetError, match=r"leaves nothing to cut.*drop 1.0000"):
            search(Bench(lambda _: 1.0), None, promised(0.3))

    def test_held_out_samples_have_a_veto(self):
        bench = Bench(lambda _: 0.0, judged_held=lambda _: 0.4)
        with pytest.raises(BudgetError, match=r"100 held-out samples the drop is 0.4000"):
            search(bench, Budget({"macs": 0.5}, TOTAL), promised(0.3))
        with pytest.raises(BudgetError, match="cannot be kept"):
            search(bench, None, promised(0.3))

    def test_the_candidate_before_is_taken(self):
        bench = Bench(linear, judged_held=lambda ratio: 0.0 if ratio > 0.75 else 0.9)
        chosen = search(bench, None, promised(0.3))
        assert chosen.candidate.budget.ratios["macs"] > 0.75
        assert any("held-out samples the drop is 0.9000" in note for note in chosen.notes)

    def test_a_certificate_that_fails(self):
        """No loss is seen, but 100 samples do not prove one percent."""
        bench = Bench(lambda _: 0.0)
        promise = promised(0.01, required=True)
        with pytest.raises(BudgetError, match=r"not certifiable with 100 samples.*299 would do"):
            search(bench, Budget({"macs": 0.5}, TOTAL), promise)
        chosen = search(bench, Budget({"macs": 0.5}, TOTAL), promised(0.01))
        assert promised(0.01).certificate(chosen.held) is None
        assert promised(0.03).certificate(chosen.held).alpha == 0.03

    def test_with_a_certificate_required_the_last_certified_is_taken(self):
        bench = Bench(lambda ratio: 0.0 if ratio > 0.7 else 0.02)
        chosen = search(bench, None, promised(0.03, required=True))
        assert chosen.held[-1].drop == 0.0
        assert promised(0.03).certificate(chosen.held) is not None

    def test_without_a_limit_the_smallest_provable_drop_is_stated(self):
        chosen = search(Bench(lambda _: 0.0), Budget({"macs": 0.5}, TOTAL), FREE)
        certified = FREE.certificate(chosen.held)
        assert certified.alpha == pytest.approx(1 - 0.05**0.01, abs=1e-5)
        assert replace(FREE, impossible="synthetic").certificate(chosen.held) is None
