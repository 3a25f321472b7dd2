"""Another price than time is taken where the samples prefer it, and only within the promise."""

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from onnxprune.errors import BudgetError
from onnxprune.model.cost import Cost
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.search.pricing import repriced
from onnxprune.search.search import search
from onnxprune.selection.budget import Budget
from tests.search.test_path import FREE, share

TOTAL = Cost(100, 1000, 400, 1e6)
ASKED = Budget({"latency": 0.7}, TOTAL)


def name_of(budget):
    return "+".join(sorted(budget.price)) or "time"


@dataclass
class Made:
    budget: Budget
    settled: object
    error: float
    losses: object = field(default_factory=lambda: share(0))
    timed: object = None

    @property
    def predicted(self):
        return self.settled.selection.reached["latency"]


@dataclass
class Shop:
    """A workshop in which a price decides the error, and how the table is off."""

    trials: dict
    earnest: dict = field(default_factory=dict)
    off: dict = field(default_factory=dict)
    options: Options = field(default_factory=lambda: Options(branches=False, switches=False))
    splits: object = field(default_factory=lambda: SimpleNamespace(shared=False))
    asked: list = field(default_factory=list)
    first: list = field(default_factory=list)
    progress: object = field(default_factory=Silent)

    def hurried(self):
        return self

    def again(self, candidate):
        return replace(candidate, error=self.trials["time"])

    def settled(self, budget):
        reached = {"latency": budget.ratios["latency"]}
        return SimpleNamespace(name=name_of(budget), selection=SimpleNamespace(reached=reached))

    def raced(self, settled, _):
        return self.off.get(settled.name, 1.0)

    def make(self, budget):
        name = name_of(budget)
        self.asked.append((name, round(budget.ratios["latency"], 4)))
        return Made(budget, self.settled(budget), self.trials[name])

    def promised(self, budget, first=None):
        self.first.append(first)
        found = self.earnest.get(name_of(budget), 0.2)
        if isinstance(found, Exception):
            raise found
        return Made(budget, self.settled(budget), found)

    def finished(self, candidate):
        return candidate

    def held(self, _):
        return share(0)


TRIALS = {"time": 0.2, "macs": 0.1, "latency+macs": 0.15}


def test_what_stays_nearer_is_taken():
    shop = Shop(TRIALS, {"macs": 0.12})
    found = repriced(shop, ASKED, shop.promised(ASKED))
    assert (found.error, found.budget.price) == (0.12, {"macs": 1.0})
    assert found.budget.ratios == ASKED.ratios


def test_the_search_goes_on_with_it():
    shop = Shop(TRIALS, {"macs": 0.12})
    shop.found = SimpleNamespace(costs=SimpleNamespace(total=TOTAL))
    assert search(shop, ASKED, FREE, objective="latency").candidate.error == 0.12


@pytest.mark.parametrize(
    "shop",
    [
        Shop({"time": 0.2, "macs": 0.3, "latency+macs": 0.199}, {"latency+macs": 0.1}),
        Shop(TRIALS, {"macs": 0.21}),
        Shop(TRIALS, {"macs": BudgetError("the clock says no")}),
    ],
    ids=["no better on trial", "no better in earnest", "the promise is not kept"],
)
def test_otherwise_the_candidate_stays(shop):
    candidate = shop.promised(ASKED)
    assert repriced(shop, ASKED, candidate) is candidate


def test_it_is_held_to_the_same_time():
    """What the race shows to take a quarter longer than predicted is cut as much deeper."""
    shop = Shop(TRIALS, {"macs": 0.12}, off={"macs": 1.25})
    repriced(shop, ASKED, shop.promised(ASKED))
    assert shop.asked == [("macs", 0.56), ("latency+macs", 0.7)]
    assert shop.first == [None, pytest.approx(0.56)]


def test_without_a_latency_nothing_is_tried():
    shop = Shop({})
    budget = Budget({"macs": 0.5}, TOTAL)
    candidate = Made(budget, None, 0.2)
    assert repriced(shop, budget, candidate) is candidate


def test_a_price_values_savings_whatever_is_missing():
    budget = replace(ASKED, price={"macs": 0.5, "latency": 0.5})
    saving = Cost(50, 100, 0, 3e5)
    assert budget.progress(Cost(0, 0, 0), saving) == pytest.approx(0.5 * 0.1 + 0.5 * 0.3)
    assert budget.progress(Cost(0, 0, 0, 9e5), saving) == pytest.approx(0.2)
    assert not budget.met(saving + Cost(0, 1000, 0, -1))
    assert budget.met(saving)


def test_only_a_price_that_knows_time_keeps_to_widths_that_pay():
    assert ASKED.in_steps
    assert replace(ASKED, price={"macs": 0.5, "latency": 0.5}).in_steps
    assert not replace(ASKED, price={"macs": 1.0}).in_steps
    assert not Budget({"macs": 0.5}, TOTAL).in_steps
