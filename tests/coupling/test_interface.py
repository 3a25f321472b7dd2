"""States and features of the interface: frozen as a rule, channels where that is allowed."""

import pytest

from onnxprune.coupling.relations import Axis
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
