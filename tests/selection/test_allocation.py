"""The allocation: meets budgets, comes near the best, leaves no slack, prices what it cuts."""

from itertools import product

import numpy as np
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.model.cost import Cost, fractions
from onnxprune.rewrite.cut import cut
from onnxprune.selection.allocation import allocate
from onnxprune.selection.budget import Budget
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.values import GroupSensitivity
from tests import nets

MAKERS = {
    "mlp": lambda: nets.mlp(8, 6, 5, 6, 3),
    "residual": nets.residual,
    "concat": nets.concat,
    "heads": nets.heads,
}


def steps(rng, count, kind):
    found = rng.gamma(0.3 if kind == "uneven" else 1.0, size=count)
    return {"convex": np.sort(found), "concave": np.sort(found)[::-1]}.get(kind, found)


def curve(group, rng, kind="uneven", levels=None):
    errors = np.concatenate([[0], np.cumsum(steps(rng, group.size - 1, kind))])
    at = np.arange(group.size) if levels is None else np.asarray(levels)
    order = rng.permutation(group.size)
    widths = group.size - at
    return GroupSensitivity(order, np.ones(group.size), widths, errors[at], "perturbation")


def set_up(found, seed, kind="uneven", multiple=1):
    rng = np.random.default_rng(seed)
    groups, sizes = found.coupling.groups, found.coupling.collected.sizes
    curves = {g.name: curve(g, rng, kind) for g in groups}
    widths = {g.name: allowed_widths(g, multiple, sizes) for g in groups}
    return curves, widths


def run(found, curves, widths, **ratios):
    budget = Budget(ratios, found.costs.total)
    sizes = found.coupling.collected.sizes
    return allocate(found.coupling.groups, curves, widths, found.costs, budget, sizes), budget


def error_of(curves, widths):
    return sum(float(np.interp(-w, -curves[n].widths, curves[n].errors)) for n, w in widths.items())


def saved_by(found, curves, widths):
    """Price a choice of widths as a whole."""
    keeps = keep_masks(
        [(g, curves[g.name].order[: g.size - widths[g.name]]) for g in found.coupling.groups],
        found.coupling.collected.sizes,
    )
    return found.costs.saved(fractions(keeps))


def best_of(found, curves, widths, budget):
    """Try everything."""
    least = np.inf
    for choice in product(*widths.values()):
        chosen = dict(zip(widths, choice, strict=True))
        error = error_of(curves, chosen)
        if error < least and budget.met(saved_by(found, curves, chosen)):
            least = error
    return least


@pytest.mark.parametrize("kind", ["convex", "concave", "uneven"])
@pytest.mark.parametrize("name", MAKERS)
def test_near_the_best_of_all_choices(name, kind, tmp_path):
    found = nets.look(MAKERS[name](), tmp_path)
    behind = []
    for seed in range(4):
        curves, widths = set_up(found, seed, kind)
        for ratio in (0.8, 0.5):
            allocation, budget = run(found, curves, widths, macs=ratio)
            best = best_of(found, curves, widths, budget)
            assert allocation.met
            assert allocation.error >= best * (1 - 1e-9) - 1e-12
            behind.append(allocation.error / best)
    assert max(behind) < 1.7
    assert np.mean(behind) < 1.15


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("multiple", [1, 2])
def test_says_truly_what_it_did(name, multiple, tmp_path):
    found = nets.look(MAKERS[name](), tmp_path)
    curves, widths = set_up(found, 7, multiple=multiple)
    allocation, budget = run(found, curves, widths, macs=0.6)
    assert allocation.met
    assert set(allocation.widths) == set(curves)
    for group in found.coupling.groups:
        kept = allocation.widths[group.name]
        gone = allocation.removed.get(group.name, ())
        assert kept in widths[group.name]
        assert len(gone) == group.size - kept
        assert set(gone) == set(curves[group.name].order[: group.size - kept].tolist())
        assert list(gone) == sorted(gone)
    assert all(allocation.removed.values()), "whole groups are not listed"
    assert allocation.error == pytest.approx(error_of(curves, allocation.widths))
    saved = saved_by(found, curves, allocation.widths)
    assert allocation.saved.macs == pytest.approx(saved.macs)
    assert allocation.saved.params == pytest.approx(saved.params)
    assert budget.met(saved)


@pytest.mark.parametrize("name", MAKERS)
def test_leaves_no_slack(name, tmp_path):
    """No group can be given a channel back that is worth something."""
    found = nets.look(MAKERS[name](), tmp_path)
    for seed in range(5):
        curves, widths = set_up(found, seed)
        allocation, budget = run(found, curves, widths, macs=0.55)
        for group in found.coupling.groups:
            for wider in (w for w in widths[group.name] if w > allocation.widths[group.name]):
                chosen = {**allocation.widths, group.name: wider}
                relief = allocation.error - error_of(curves, chosen)
                assert relief <= 1e-9 or not budget.met(saved_by(found, curves, chosen))


def test_several_ratios_at_once(tmp_path):
    found = nets.look(nets.concat(), tmp_path)
    curves, widths = set_up(found, 1)
    for ratios in ({"macs": 0.5, "params": 0.9}, {"macs": 0.9, "params": 0.4}):
        allocation, budget = run(found, curves, widths, **ratios)
        assert allocation.met
        reached = budget.reached(allocation.saved)
        assert all(reached[name] <= ratio for name, ratio in ratios.items())


def test_out_of_reach_everything_is_as_narrow_as_allowed(tmp_path):
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    curves, widths = set_up(found, 1)
    allocation, _ = run(found, curves, widths, macs=0.01)
    assert not allocation.met
    assert allocation.widths == {name: min(w) for name, w in widths.items()}


def test_nothing_may_be_narrowed(tmp_path):
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    curves, widths = set_up(found, 1, multiple=16)
    allocation, _ = run(found, curves, widths, macs=0.9)
    assert not allocation.met
    assert allocation.removed == {}
    assert allocation.saved == Cost(0, 0, 0)
    assert allocation.error == 0.0


def test_flat_curves_go_first_and_whole(tmp_path):
    """What costs nothing is taken before what costs little."""
    found = nets.look(nets.mlp(8, 8, 8, 3), tmp_path)
    curves, widths = set_up(found, 2)
    free, dear = (g.name for g in found.coupling.groups)
    flat = curves[free]
    curves[free] = GroupSensitivity(
        flat.order, flat.scores, flat.widths, np.zeros(8), "perturbation"
    )
    allocation, _ = run(found, curves, widths, macs=0.7)
    assert allocation.met
    assert allocation.widths[dear] == 8
    assert allocation.error == 0.0


def test_errors_between_measured_widths_are_interpolated(tmp_path):
    found = nets.look(nets.mlp(8, 9, 3), tmp_path)
    (group,) = found.coupling.groups
    order = np.arange(9)
    widths, errors = np.array([9, 5, 1]), np.array([0.0, 0.4, 4.4])
    curves = {group.name: GroupSensitivity(order, np.ones(9), widths, errors, "activation")}
    allowed = {group.name: [9, 7, 3]}
    shallow, _ = run(found, curves, allowed, macs=0.8)
    deep, _ = run(found, curves, allowed, macs=0.4)
    assert (shallow.widths[group.name], shallow.error) == (7, pytest.approx(0.2))
    assert (deep.widths[group.name], deep.error) == (3, pytest.approx(2.4))


@pytest.mark.parametrize("name", ["digits_vit", "digits_mobile", "digits_resnet"])
@pytest.mark.parametrize("ratio", [0.7, 0.4])
def test_savings_are_those_of_the_really_cut_model(name, ratio):
    """Heads and head dims share axes: their product is priced, never the sum."""
    found = nets.digits(name)
    curves, widths = set_up(found, 3, "convex")
    allocation, _ = run(found, curves, widths, macs=ratio)
    assert allocation.met
    if name == "digits_vit":
        shared = {n.removesuffix("#2") for n in allocation.removed if n.endswith("#2")}
        assert shared & set(allocation.removed), "some heads and some of their dims must go"
    removed = [
        (g, allocation.removed[g.name])
        for g in found.coupling.groups
        if g.name in allocation.removed
    ]
    keeps = keep_masks(removed, found.coupling.collected.sizes)
    after = nets.retraced(found, cut(found.view, found.coupling, found.traces, keeps))
    total = found.costs.total
    assert after.macs == round(total.macs - allocation.saved.macs)
    assert after.params == round(total.params - allocation.saved.params)
