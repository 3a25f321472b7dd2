"""A promised latency on a machine that is made up: what is kept, and what is refused."""

from types import SimpleNamespace

import pytest

from onnxprune.bench.values import BenchReport, Latency
from onnxprune.errors import BudgetError
from onnxprune.selection.promise import keep_latency, keep_promises

WIDEST, NARROWEST = 100, 20


class Machine:
    """A cut is a number of channels; its predicted ratio is their share, the true one differs."""

    def __init__(self, truth, *, step=1, spread=0.01):
        self.truth, self.step, self.spread = truth, step, spread
        self.timed, self.asked = [], []

    def settle_at(self, target):
        self.asked.append(target)
        width = max(int(target * WIDEST) // self.step * self.step, NARROWEST)
        if width / WIDEST > target + 1e-9:
            raise BudgetError("out of reach", {"latency": width / WIDEST})
        allocation = SimpleNamespace(widths={"g": width}, error=WIDEST - width)
        selection = SimpleNamespace(allocation=allocation, reached={"latency": width / WIDEST})
        return SimpleNamespace(selection=selection, proven=SimpleNamespace(model=width))

    def time(self, _, width):
        self.timed.append(width)
        ratio = self.truth(width / WIDEST)
        ends = (ratio - self.spread, ratio + self.spread)
        verdict = "faster" if ends[1] < 1 else "no measurable change"
        one = Latency(1.0, 1.0, 1.0)
        return BenchReport(
            ["a", "b"], [one, one], ratio, ends, "wall", None, None, verdict, 6, 10, 1, "cpu", {},
            {}, [],
        )  # fmt: skip


@pytest.mark.parametrize(
    "truth", [lambda p: p, lambda p: 0.2 + 0.8 * p, lambda p: p**2, lambda p: 0.9 * p], ids=str
)
@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.9])
def test_the_upper_end_keeps_the_promise_and_little_is_given_away(truth, ratio):
    machine = Machine(truth)
    kept = keep_latency(ratio, machine.settle_at, machine.time)
    assert kept.high <= ratio
    assert kept.high >= 0.9 * ratio
    assert len(machine.timed) <= 5


def test_coarse_steps_end_the_search():
    machine = Machine(lambda p: p + 0.05, step=16)
    kept = keep_latency(0.7, machine.settle_at, machine.time)
    assert kept.high <= 0.7
    assert len(machine.timed) == len(set(machine.timed))


def test_pruning_that_does_not_pay_is_refused_with_what_was_measured():
    machine = Machine(lambda p: 0.97 + 0.03 * p)
    why = r"--latency 0.7 cannot be met.* 0\.9\d\d.*the rest is not spent in what may get narrower"
    with pytest.raises(BudgetError, match=why) as refused:
        keep_latency(0.7, machine.settle_at, machine.time)
    assert refused.value.nearest["latency"] > 0.9


def test_no_measurable_change_is_said():
    machine = Machine(lambda p: 1.0)
    with pytest.raises(BudgetError, match="no measurable change"):
        keep_latency(0.9, machine.settle_at, machine.time)


def test_what_the_table_rules_out_is_tried_at_its_nearest():
    """The table says 0.2 at best; the clock knows better."""
    machine = Machine(lambda p: 0.5 * p)
    assert keep_latency(0.15, machine.settle_at, machine.time).high <= 0.15


def test_what_nothing_reaches_is_refused():
    machine = Machine(lambda p: p)
    with pytest.raises(BudgetError, match=r"nearest that was measured is 0\.200"):
        keep_latency(0.1, machine.settle_at, machine.time)


def test_another_budget_out_of_reach_keeps_its_own_message():
    def settle_at(target):
        raise BudgetError("--macs 0.1 cannot be met", {"macs": 0.4, "latency": 0.3})

    with pytest.raises(BudgetError, match=r"--macs 0\.1"):
        keep_latency(0.7, settle_at, None)


def test_a_repair_that_makes_it_too_slow_leads_to_a_narrower_cut():
    machine = Machine(lambda p: p)

    def repair(settled):
        return SimpleNamespace(model=settled.proven.model + 2)  # biases take time

    settled, recovered, timed = keep_promises(0.7, machine.settle_at, repair, machine.time)
    assert timed.interval[1] <= 0.7
    assert recovered.model == settled.proven.model + 2


def test_a_repair_that_spoils_everything_is_refused():
    machine = Machine(lambda p: p)
    with pytest.raises(BudgetError, match="nearest that was measured"):
        keep_promises(0.7, machine.settle_at, lambda _: SimpleNamespace(model=99), machine.time)


def test_without_a_promise_one_cut_is_made_and_timed():
    machine = Machine(lambda p: 1.5)
    cut = machine.settle_at(0.8)
    found = keep_promises(
        None, lambda target: cut if target is None else 1 / 0,
        lambda settled: SimpleNamespace(model=settled.proven.model), machine.time,
    )  # fmt: skip
    assert found[0] is cut
    assert machine.timed == [80]


def test_it_begins_where_another_cut_ended():
    machine = Machine(lambda p: 1.3 * p - 0.05)
    repair = lambda settled: SimpleNamespace(model=settled.proven.model + 4)  # noqa: E731
    settled, _, timed = keep_promises(0.7, machine.settle_at, repair, machine.time, 0.56)
    assert machine.asked[0] == 0.56
    assert 0.97 * 0.7 <= timed.interval[1] <= 0.7
    # Nor does it begin anew where the repair, at first, takes too long.
    assert all(abs(asked - settled.proven.model / WIDEST) < 0.05 for asked in machine.asked)
