"""States and features of the interface: frozen as a rule, channels where that is allowed."""

import numpy as np
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.sensitivity.output import OutputChange
from tests.coupling.nets import Net, cuts_hold, look
from tests.coupling.test_patterns_recurrent import _layer, _merged, _sequence

_IN, _UNITS = 5, 6


def recurrent(op, ways=1, units=_UNITS):
    """A layer that begins with states of the caller and hands its last ones back."""
    net = Net()
    names = {"h": "h0", "c": "c0"} if op == "LSTM" else {"h": "h0"}
    states = {slot: net.input(ways, "n", units, name=name) for slot, name in names.items()}
    y, *last = _layer(net, op, _sequence(net), _IN, units, ways=ways, name="a", **states)
    last = last[: len(states)]
    net.output(net.linear(_merged(net, y, ways * units), ways * units, 3, name="scores"), *last)
    return net


@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_states_go_with_their_units(op, ways):
    looked = cuts_hold(recurrent(op, ways), change_interface=True)
    assert looked.found == {("a", "unit", ways * _UNITS)}
    assert looked.free("h0", 2)
    assert not looked.free("h0", 1)
    assert looked.why("x", 2) == "graph input"
    assert looked.why("h0", 1) == "graph input"


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_states_stay_unless_asked(op):
    looked = look(recurrent(op))
    assert looked.coupling.groups == ()
    frozen = looked.coupling.frozen[Axis("h0", 2)]
    assert "--allow-interface-change" in frozen.unlock


def decoder(heads=4, dim=6, layers=2):
    """One step of a decoder: keys and values of the past come in, those of now go out."""
    net, width = Net(), 12
    inner = heads * dim
    x = net.linear(net.input("n", "t", 8), 8, width, name="embed")
    for k in range(layers):
        parts = {}
        for part in "qkv":
            made = net.linear(x, width, inner, name=f"{part}_{k}")
            made = net.reshape(made, 0, 0, heads, dim)
            parts[part] = net.op("Transpose", made, perm=[0, 2, 1, 3])
        for part, what in (("k", "key"), ("v", "value")):
            past = net.input("n", heads, "p", dim, name=f"past.{k}.{what}")
            present = net.op("Concat", past, parts[part], axis=2, name=f"present.{k}.{what}")
            net.output(present)
            parts[part] = present
        scores = net.op("MatMul", parts["q"], net.op("Transpose", parts["k"], perm=[0, 1, 3, 2]))
        read = net.op("MatMul", net.op("Softmax", scores, axis=-1), parts["v"])
        read = net.reshape(net.op("Transpose", read, perm=[0, 2, 1, 3]), 0, 0, inner)
        x = net.op("Add", x, net.linear(read, inner, width, name=f"o_{k}"))
    net.output(net.linear(x, width, 5, name="logits"))
    return net


def test_heads_and_their_dims_of_a_cache():
    looked = cuts_hold(decoder(), change_interface=True)
    kinds = sorted((kind, size) for _, kind, size in looked.found)
    assert kinds == [("head", 4)] * 2 + [("head_dim", 24)] * 4 + [("stream", 12)]
    assert looked.free("past.0.key", 1)
    assert looked.free("past.0.key", 3)
    assert not looked.free("past.0.key", 2)
    assert not looked.free("past.0.key", 0)
    assert not looked.free("logits", 2)


def test_features_of_an_encoder():
    net = Net()
    stream = net.linear(net.input("n", "t", 8), 8, 12, name="embed")
    stream = net.op("Add", stream, net.linear(net.op("Relu", stream), 12, 12, name="mix"))
    net.output(stream)
    assert look(net).coupling.groups == ()
    looked = cuts_hold(net, change_interface=True)
    assert looked.found == {("embed", "stream", 12)}
    assert [looked.free(stream, axis) for axis in range(3)] == [False, False, True]


def test_class_scores_stay():
    """Nothing sums them up: they are no channels."""
    net = Net()
    net.output(net.linear(net.op("Relu", net.linear(net.input("n", 4), 4, 6, name="a")), 6, 5))
    looked = look(net, change_interface=True)
    assert looked.found == {("a", "neuron", 6)}
    assert looked.why(net.outputs[0], 1) == "graph output"


def test_an_image_behind_its_normalization_stays():
    """Constants of the channels' size do not make the colours."""
    net = Net()
    x = net.op("Sub", net.input("n", 3, 6, 6), net.weight(1, 3, 1, 1))
    x = net.op("Relu", net.conv(net.op("Div", x, net.weight(1, 3, 1, 1)), 3, 8, 3, name="a"))
    net.output(net.conv(x, 8, 4, name="b"), x)
    looked = cuts_hold(net, change_interface=True)
    assert looked.found == {("a", "filter", 8)}
    assert [looked.why("x", axis) for axis in range(4)] == ["graph input"] * 4


def test_states_of_fixed_sizes():
    """Batch and time are numbers here, and stay all the same."""
    net = Net()
    h = net.input(1, 2, _UNITS, name="h0")
    y, last = _layer(net, "GRU", net.input(5, 2, _IN), _IN, h=h, name="a")
    net.output(net.linear(_merged(net, y, _UNITS), _UNITS, 3, name="scores"), last)
    looked = cuts_hold(net, change_interface=True)
    assert [looked.free("h0", axis) for axis in range(3)] == [False, False, True]
    assert [looked.why("x", axis) for axis in range(3)] == ["graph input"] * 3


def test_other_positions_than_the_kept_ones_are_caught():
    looked = look(recurrent("GRU"), change_interface=True)
    keeps = keep_masks([(looked.group("a"), [0, 3])], looked.coupling.collected.sizes)
    model = looked.cut([(looked.group("a"), [0, 3])])
    assert looked.verifier.error(model, keeps) <= TOLERANCE
    for value in ("h0", "a.1"):
        wrong = {**keeps, Axis(value, 2): np.roll(keeps[Axis(value, 2)], 1)}
        assert looked.verifier.error(model, wrong) > TOLERANCE


def test_what_an_output_loses_is_no_change():
    clean = {"y": np.arange(6, dtype=np.float32).reshape(2, 3)}
    change = OutputChange([clean])
    mask = {Axis("y", 1): np.array([True, False, True])}
    other = {"y": clean["y"] + np.array([0, 9, 0], np.float32)}
    assert change.vector(0, other).any()
    assert not change.vector(0, other, mask).any()
    assert (
        change.vector(0, {"y": clean["y"] + 1}, mask).astype(bool).reshape(2, 3).tolist()
        == [[True, False, True]] * 2
    )
