"""Groups that cannot be cut are found and left whole; the rest goes on without them."""

from dataclasses import dataclass

import pytest

from onnxprune.coupling.groups import Coupling
from onnxprune.model.view import View
from onnxprune.rewrite.prove import attempt, prove
from onnxprune.rewrite.verify import TOLERANCE, Verifier
from onnxprune.runtime.trace import Trace
from tests.coupling.nets import Net, half, look


@dataclass
class _Found:
    """What proving needs of an analysis."""

    view: View
    coupling: Coupling
    traces: tuple[Trace, ...]
    verifier: "Verifier | _Suspicious"


class _Suspicious:
    """A verifier that does not believe cuts of some groups, or of some together."""

    def __init__(self, verifier, *guilty, together=()):
        self.verifier, self.guilty, self.together, self.asked = verifier, guilty, together, 0

    def error(self, model, keeps):
        self.asked += 1
        cut = {axis.value for axis in keeps}
        if cut & set(self.guilty) or (self.together and set(self.together) <= cut):
            return 0.5
        return self.verifier.error(model, keeps)

    def objection(self, error, keeps):
        return self.verifier.objection(error, keeps)


def _tower(layers=5):
    net = Net()
    x, before = net.input("n", 5), 5
    for number in range(layers):
        x, before = net.op("Relu", net.linear(x, before, 8, name=f"l{number}")), 8
    net.output(net.linear(x, 8, 3, name="out"))
    return look(net)


def _found(looked, *guilty, together=()):
    verifier = _Suspicious(looked.verifier, *guilty, together=together)
    return _Found(looked.view, looked.coupling, looked.traces, verifier)


def _names(removed):
    return {group.name for group, _ in removed}


def test_innocent_groups_are_all_cut_at_once():
    looked = _tower()
    found = _found(looked)
    proven = prove(found, half(looked.coupling.groups))
    assert _names(proven.removed) == {"l0", "l1", "l2", "l3", "l4"}
    assert proven.guilty == {}
    assert proven.error <= TOLERANCE
    assert found.verifier.asked == 1


@pytest.mark.parametrize("guilty", [("l0",), ("l3",), ("l1", "l4"), ("l0", "l1", "l2", "l3")])
def test_guilty_groups_are_dropped(guilty):
    looked = _tower()
    proven = prove(_found(looked, *guilty), half(looked.coupling.groups))
    assert set(proven.guilty) == set(guilty)
    assert _names(proven.removed) == {"l0", "l1", "l2", "l3", "l4"} - set(guilty)
    assert all("differs from its reference by 0.5" in why for why in proven.guilty.values())
    assert {axis.value for axis in proven.keeps}.isdisjoint(guilty)
    assert looked.verifier.error(proven.model, proven.keeps) <= TOLERANCE


def test_nothing_is_left_if_all_are_guilty():
    looked = _tower(2)
    proven = prove(_found(looked, "l0", "l1"), half(looked.coupling.groups))
    assert proven.removed == ()
    assert proven.model.SerializeToString() == looked.model.SerializeToString()


def test_groups_that_fail_only_together_are_parted():
    looked = _tower()
    proven = prove(_found(looked, together=("l1", "l2")), half(looked.coupling.groups))
    assert not {"l1", "l2"} <= _names(proven.removed)
    assert all("only together" in why for why in proven.guilty.values())
    assert looked.verifier.error(proven.model, proven.keeps) <= TOLERANCE


def test_cut_that_cannot_be_written_is_dropped_with_the_reason():
    net = Net()
    x = net.op("Squeeze", net.linear(net.input("n", 5), 5, 2, name="a"), name="s")
    net.output(net.linear(net.linear(x, 2, 6, name="b"), 6, 3, name="out"))
    looked = look(net)
    proven = prove(_found(looked), half(looked.coupling.groups))
    assert _names(proven.removed) == {"b"}
    assert proven.guilty["a"] == "Squeeze s: an axis would shrink to one and be squeezed"


def test_empty_removals_are_no_groups():
    looked = _tower(2)
    proven = prove(_found(looked), [(group, []) for group in looked.coupling.groups])
    assert proven.removed == ()
    assert proven.guilty == {}
    assert proven.error == 0.0


def test_attempt_says_how_wrong():
    looked = _tower(2)
    removed = half(looked.coupling.groups)
    assert attempt(_found(looked), removed)[1] == ""
    assert attempt(_found(looked, "l1"), removed) == (0.5, "differs from its reference by 0.5")
