"""Shapes that recurrent networks take; each direction loses units of its own."""

import numpy as np
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.rewrite.verify import TOLERANCE
from tests.coupling.nets import Net, cuts_hold, look

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_IN, _UNITS = 5, 6


def _layer(net, op, x, size, units=_UNITS, *, ways=1, h="", c="", name="", **more):
    """A recurrent layer with biases and all its outputs."""
    gates = _GATES[op]
    w, r = net.weight(ways, gates * units, size), net.weight(ways, gates * units, units)
    given = [x, w, r, net.weight(ways, 2 * gates * units), "", h, c][: 7 if op == "LSTM" else 6]
    if not (h or c):
        given = given[:4]
    if ways == 2:
        more["direction"] = "bidirectional"
    outs = 3 if op == "LSTM" else 2
    return net.op(op, *given, name=name, outs=outs, hidden_size=units, **more)


def _sequence(net):
    return net.input("t", "n", _IN)


def _merged(net, y, units=2 * _UNITS):
    """(time, way, batch, unit) to (time, batch, way * unit)."""
    return net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3]), 0, 0, units)


def _out(net, x, size):
    net.output(net.linear(x, size, 3, name="head"))
    return net


@pytest.mark.parametrize("op", sorted(_GATES))
def test_stacked_in_both_directions(op):
    net = Net()
    y, *_ = _layer(net, op, _sequence(net), _IN, ways=2, name="a")
    y, *_ = _layer(net, op, _merged(net, y), 2 * _UNITS, ways=2, name="b")
    looked = cuts_hold(_out(net, _merged(net, y), 2 * _UNITS))
    assert looked.found == {("a", "unit", 12), ("b", "unit", 12)}
    assert {g.step for g in looked.coupling.groups} == {2}


def test_each_direction_loses_units_of_its_own():
    net = Net()
    y, *_ = _layer(net, "GRU", _sequence(net), _IN, ways=2, name="a")
    looked = look(_out(net, _merged(net, y), 2 * _UNITS))
    group = looked.group("a")
    places = next(m.positions for m in group.members if m.axis.plain == ("head", 0, -1) or
                  m.axis.value == "k1")  # fmt: skip
    assert len(places) == 12
    gone = [0, 1, 2 + _UNITS, 5 + _UNITS]  # two of each, not the same ones
    assert np.bincount(group.blocks[gone]).tolist() == [2, 2]
    assert looked.error([(group, gone)]) <= TOLERANCE
    model = looked.cut([(group, gone)])
    before, after = ({t.name: t for t in m.graph.initializer} for m in (looked.model, model))
    r = looked.view.producers[net.nodes[0].output[0]].inputs[2]
    whole, part = (np.frombuffer(m[r].raw_data, np.float32) for m in (before, after))
    whole, part = whole.reshape(2, 18, 6), part.reshape(2, 12, 4)
    np.testing.assert_array_equal(part[0, :4], whole[0, 2:6, 2:6])
    np.testing.assert_array_equal(part[1, :4], whole[1][np.ix_([0, 1, 3, 4], [0, 1, 3, 4])])


def test_unequal_counts_are_refused():
    net = Net()
    y, *_ = _layer(net, "RNN", _sequence(net), _IN, ways=2, name="a")
    looked = look(_out(net, _merged(net, y), 2 * _UNITS))
    with pytest.raises(Exception, match="equally many"):
        looked.cut([(looked.group("a"), [0, 1, _UNITS])])


@pytest.mark.parametrize("way", ["gather", "slice", "split"])
def test_last_states_of_both_directions_side_by_side(way):
    """As torch writes cat(h[-2], h[-1])."""
    net = Net()
    _, last, _ = _layer(net, "LSTM", _sequence(net), _IN, ways=2, name="a")
    if way == "gather":
        parts = [net.op("Gather", last, net.constant(i), axis=0) for i in (0, 1)]
    elif way == "slice":
        edges = [[net.constant([v]) for v in (i, i + 1, 0)] for i in (0, 1)]
        parts = [net.op("Squeeze", net.op("Slice", last, *e), net.constant([0])) for e in edges]
    else:
        pieces = net.op("Split", last, net.constant([1, 1]), axis=0, outs=2)
        parts = [net.op("Squeeze", p, net.constant([0])) for p in pieces]
    looked = cuts_hold(_out(net, net.op("Concat", *parts, axis=1), 2 * _UNITS))
    assert looked.found == {("a", "unit", 12)}
    assert looked.group("a").step == 2


def test_directions_with_other_readers():
    """Only the last state of the second direction is read twice."""
    net = Net()
    y, last = _layer(net, "GRU", _sequence(net), _IN, ways=2, name="a")
    y = net.linear(_merged(net, y), 2 * _UNITS, 3)
    z = net.linear(net.op("Gather", last, net.constant(1), axis=0), _UNITS, 3)
    net.output(net.op("Add", y, z))
    looked = cuts_hold(net)
    assert looked.found == {("a", "unit", 12)}
    assert looked.group("a").step == 2


def test_sum_of_both_directions():
    """The sum ties unit i of one direction to unit i of the other."""
    net = Net()
    y, *_ = _layer(net, "LSTM", _sequence(net), _IN, ways=2, name="a")
    looked = cuts_hold(_out(net, net.op("ReduceSum", y, net.constant([1]), keepdims=0), _UNITS))
    assert looked.found == {("a", "unit", 6)}


def test_states_that_are_learned():
    net = Net()
    batch = 2
    states = [net.weight(2, batch, _UNITS) for _ in range(2)]
    x = net.input("t", batch, _IN)
    y, *_ = _layer(net, "LSTM", x, _IN, ways=2, h=states[0], c=states[1], name="a")
    looked = cuts_hold(_out(net, _merged(net, y), 2 * _UNITS))
    assert looked.found == {("a", "unit", 12)}


@pytest.mark.parametrize("computed", [False, True])
def test_a_zero_state_couples_nothing(computed):
    net = Net()
    if computed:
        x = _sequence(net)
        batch = net.op("Slice", net.op("Shape", x), net.constant([1]), net.constant([2]))
        shape = net.op("Concat", net.constant([1]), batch, net.constant([_UNITS]), axis=0)
        zero = net.op("Expand", net.constant(np.zeros((1, 1, 1), np.float32)), shape)
    else:
        x = net.input("t", 2, _IN)
        zero = net.constant(np.zeros((1, 2, _UNITS), np.float32))
    y, *_ = _layer(net, "LSTM", x, _IN, h=zero, c=zero, name="a")
    y, *_ = _layer(net, "LSTM", net.op("Squeeze", y, net.constant([1])), _UNITS, h=zero, c=zero,
                   name="b")  # fmt: skip
    looked = cuts_hold(_out(net, net.op("Squeeze", y, net.constant([1])), _UNITS))
    assert looked.found == {("a", "unit", 6), ("b", "unit", 6)}
    (group,) = (g for g in looked.coupling.groups if g.name == "a")
    nodes = {n.name: n for n in looked.cut([(group, [1, 2])]).graph.node}
    assert list(nodes["a"].input[5:7]) == ["", ""]
    assert nodes["b"].input[5] == nodes["b"].input[6] == zero


def test_a_state_that_is_no_zero_couples():
    net = Net()
    half = net.constant(np.full((1, 2, _UNITS), 0.5, np.float32))
    y, *_ = _layer(net, "GRU", net.input("t", 2, _IN), _IN, h=half, name="a")
    y, *_ = _layer(net, "GRU", net.op("Squeeze", y, net.constant([1])), _UNITS, h=half, name="b")
    looked = cuts_hold(_out(net, net.op("Squeeze", y, net.constant([1])), _UNITS))
    assert len(looked.coupling.groups) == 1


def test_a_state_of_the_interface_is_frozen():
    net = Net()
    h = net.input(1, "n", _UNITS, name="h")
    y, last = _layer(net, "GRU", _sequence(net), _IN, h=h, name="a")
    net.output(last)
    looked = look(_out(net, net.op("Squeeze", y, net.constant([1])), _UNITS))
    assert looked.coupling.groups == ()
    assert looked.why("h", 2) == "graph input"


@pytest.mark.parametrize("reset", [0, 1])
def test_unrolled_gru_cell(reset):
    """A cell written out: one product for three gates, split into them."""
    net = Net()
    x = net.input("n", _IN)
    h = net.op("Tanh", net.linear(x, _IN, _UNITS, name="start"))
    for step in range(2):
        gx = net.op("Split", net.linear(x, _IN, 18, name=f"x{step}"), net.constant([6] * 3),
                    axis=1, outs=3)  # fmt: skip
        gh = net.op("Split", net.linear(h, _UNITS, 18, name=f"h{step}"), net.constant([6] * 3),
                    axis=1, outs=3)  # fmt: skip
        z, r = (net.op("Sigmoid", net.op("Add", gx[k], gh[k])) for k in (0, 1))
        new = net.op("Mul", r, gh[2]) if reset else gh[2]
        new = net.op("Tanh", net.op("Add", gx[2], new))
        mixed = net.op("Sub", net.constant(1.0), z)
        h = net.op("Add", net.op("Mul", mixed, new), net.op("Mul", z, h))
    looked = cuts_hold(_out(net, h, _UNITS))
    assert looked.found == {("start", "stream", 6)}


def test_masks_of_a_joint_axis_count_on_its_plain_one():
    net = Net()
    y, *_ = _layer(net, "RNN", _sequence(net), _IN, ways=2, name="a")
    looked = look(_out(net, _merged(net, y), 2 * _UNITS))
    keeps = keep_masks([(looked.group("a"), [0, _UNITS + 1])], looked.coupling.collected.sizes)
    joint = [axis for axis in keeps if axis.by >= 0]
    assert joint
    assert all(keeps[axis.plain].sum() * 2 == keeps[axis].sum() for axis in joint)
