"""Budgets: what is asked, what is reached, and what a step brings."""

import pytest

from onnxprune.errors import UsageError
from onnxprune.model.cost import Cost
from onnxprune.options import Options
from onnxprune.selection.budget import Budget, budget_of, farthest

TOTAL = Cost(params=100, macs=1000, bytes=400)


def test_reached_and_met_need_all_ratios():
    budget = Budget({"macs": 0.5, "params": 0.8}, TOTAL)
    assert budget.reached(Cost(10, 500, 0)) == {"macs": 0.5, "params": 0.9}
    assert not budget.met(Cost(10, 500, 0))
    assert not budget.met(Cost(20, 499, 0))
    assert budget.met(Cost(20, 500, 0))
    assert not budget.met(Cost(0, 0, 0))


def test_bytes_count_what_is_no_constant():
    """A file of 500 bytes, 400 of them constants: half means 250 less, not 200."""
    budget = Budget({"bytes": 0.5}, TOTAL, overhead=100)
    assert budget.reached(Cost(0, 0, 250)) == {"bytes": 0.5}
    assert not budget.met(Cost(0, 0, 249))


def test_progress_counts_only_what_is_missing():
    budget = Budget({"macs": 0.5, "params": 0.8}, TOTAL)
    nothing = Cost(0, 0, 0)
    assert budget.progress(nothing, Cost(0, 250, 0)) == pytest.approx(0.5)
    assert budget.progress(nothing, Cost(10, 250, 0)) == pytest.approx(1.0)
    assert budget.progress(nothing, Cost(90, 900, 0)) == pytest.approx(2.0), "no more than all"
    assert budget.progress(Cost(0, 500, 0), Cost(0, 100, 0)) == 0.0
    assert budget.progress(Cost(0, 400, 0), Cost(0, 50, 0)) == pytest.approx(0.5)


def test_a_model_without_the_quantity_can_never_save_it():
    budget = Budget({"macs": 0.5}, Cost(100, 0, 400))
    assert not budget.met(Cost(100, 0, 400))
    assert budget.progress(Cost(0, 0, 0), Cost(10, 0, 40)) == 0.0


def test_made_of_options():
    budget = budget_of(Options(macs=0.5, size=0.25), TOTAL, 450)
    assert budget.ratios == {"macs": 0.5, "bytes": 0.25}
    assert budget.total == TOTAL
    assert budget.overhead == 50
    assert budget_of(Options(params=0.1), TOTAL, 100).overhead == 0


@pytest.mark.parametrize("option", ["macs", "params", "size"])
@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 50.0, float("nan"), float("inf")])
def test_ratios_lie_between_zero_and_one(option, ratio):
    with pytest.raises(UsageError, match=f"--{option} .*between 0 and 1"):
        budget_of(Options(**{"params": 0.5, option: ratio}), TOTAL, 400)


def test_no_ratio_is_no_budget_but_a_direction_to_search():
    assert budget_of(Options(max_drop=0.1), TOTAL, 400) is None
    far = farthest(TOTAL, "params")
    assert set(far.ratios) == {"params"}
    assert not far.met(Cost(90, 1000, 400))
    assert far.met(Cost(96, 0, 0))
