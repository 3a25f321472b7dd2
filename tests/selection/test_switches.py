"""Switches: all keep the budget, each once, the most promising first, and none is the start."""

import pytest

from onnxprune.selection.allocation import Allocator, allocate
from onnxprune.selection.budget import Budget
from onnxprune.selection.switches import switches
from tests import nets
from tests.selection.test_allocation import MAKERS, error_of, saved_by, set_up

BUDGETS = {
    "macs": {"macs": 0.6},
    "params": {"params": 0.7},
    "several": {"macs": 0.7, "params": 0.6, "bytes": 0.8},
}


def around(found, curves, widths, budget, now):
    sizes = found.coupling.collected.sizes
    groups, most = found.coupling.groups, {name: max(each) for name, each in widths.items()}
    return switches(Allocator(groups, curves, widths, found.costs, budget, sizes, most), now)


@pytest.mark.parametrize("ratios", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize("name", MAKERS)
def test_no_switch_breaks_a_budget(name, ratios, tmp_path):
    found = nets.look(MAKERS[name](), tmp_path)
    switched = 0
    for seed in range(3):
        curves, widths = set_up(found, seed)
        budget = Budget(ratios, found.costs.total)
        sizes = found.coupling.collected.sizes
        start = allocate(found.coupling.groups, curves, widths, found.costs, budget, sizes)
        if not start.met:
            continue
        made = around(found, curves, widths, budget, start.widths)
        switched += len(made)
        for one in made:
            assert one.met
            assert budget.met(saved_by(found, curves, one.widths))
            assert all(w in widths[n] for n, w in one.widths.items())
            assert one.error == pytest.approx(error_of(curves, one.widths))
            gone = {n: len(channels) for n, channels in one.removed.items()}
            for group in found.coupling.groups:
                assert group.size - gone.get(group.name, 0) == one.widths[group.name]
        kept = [tuple(sorted(one.widths.items())) for one in made]
        assert len(set(kept)) == len(kept)
        assert tuple(sorted(start.widths.items())) not in kept
        assert [one.error for one in made] == sorted(one.error for one in made)
    assert switched


def test_a_bad_start_is_one_switch_from_a_better_one(tmp_path):
    found = nets.look(MAKERS["mlp"](), tmp_path)
    curves, widths = set_up(found, 0, "convex")
    first, second, *_ = found.coupling.groups
    now = {g.name: g.size for g in found.coupling.groups}
    now[first.name], now[second.name] = min(widths[first.name]) + 1, second.size
    budget = Budget({"macs": 0.95}, found.costs.total)
    best = around(found, curves, widths, budget, now)[0]
    assert best.widths[first.name] > now[first.name]
    assert best.error < error_of(curves, now)


def test_nothing_to_switch_with_a_single_group(tmp_path):
    found = nets.look(nets.mlp(8, 6, 3), tmp_path)
    curves, widths = set_up(found, 0)
    (group,) = found.coupling.groups
    budget = Budget({"macs": 0.6}, found.costs.total)
    assert around(found, curves, widths, budget, {group.name: 3}) == []
