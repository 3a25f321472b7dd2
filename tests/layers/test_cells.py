"""Cells compute what the runtime computes, and are the sums of their parts."""

import numpy as np
import pytest

from onnxprune.layers.recurrent import find_recurrences
from onnxprune.model.view import build_view
from onnxprune.runtime.session import Session
from tests.nets import Net

STEPS, SAMPLES, INPUTS, UNITS = 5, 3, 4, 6
KINDS = {
    "lstm": ("LSTM", 4, {}),
    "gru": ("GRU", 3, {}),
    "gru-after": ("GRU", 3, {"linear_before_reset": 1}),
    "rnn": ("RNN", 1, {}),
    "rnn-relu": ("RNN", 1, {"activations": ["Relu"]}),
    "reverse": ("LSTM", 4, {"direction": "reverse"}),
    "both": ("GRU", 3, {"direction": "bidirectional"}),
}


def built(kind, *, biased=True, started=False, **more):
    op_type, gates, attributes = KINDS[kind]
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    net = Net(3)
    states = 1 + (op_type == "LSTM")
    inputs = [
        "x",
        net.weight(directions, gates * UNITS, INPUTS),
        net.weight(directions, gates * UNITS, UNITS),
        net.weight(directions, 2 * gates * UNITS) if biased else "",
        "",
        *((net.weight(directions, SAMPLES, UNITS) for _ in range(states)) if started else ()),
    ]
    y = net.op(op_type, *inputs, hidden_size=UNITS, **attributes, **more)
    return net.model({"x": (STEPS, SAMPLES, INPUTS)}, y)


def sequences():
    shape = (STEPS, SAMPLES, INPUTS)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_does_what_the_operator_does(kind, started, tmp_path):
    model = built(kind, biased=not started or kind != "rnn", started=started)
    feed = {"x": sequences()}
    expected = next(iter(Session(model).run(feed).values()))
    view = build_view(model, tmp_path)
    (layer,) = find_recurrences(view)
    for number, cell in enumerate(layer.taught(view)):
        starts = layer.starts(feed, layer.constants(view), number, UNITS)
        found = cell.run(layer.sequences(feed, number), *starts)
        backwards = kind == "reverse" or number == 1
        after = found.after[::-1] if backwards else found.after
        np.testing.assert_allclose(after, expected[:, number], atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru", "gru-after", "rnn"])
def test_parts_are_linear_and_can_be_exchanged_one_by_one(kind, tmp_path):
    view = build_view(built(kind), tmp_path)
    (layer,) = find_recurrences(view)
    (cell,) = layer.taught(view)
    starts = layer.starts({"x": sequences()}, layer.constants(view), 0, UNITS)
    found = cell.run(sequences(), *starts)
    for number, part in enumerate(cell.parts):
        weight, bias = cell.block(part)
        goal = found.sums[number, :, :, part.first : part.last]
        sums = (found.rows(part) @ weight + bias).reshape(goal.shape)
        np.testing.assert_allclose(sums, goal, atol=1e-5)
        other = cell.with_block(part, weight + 1.0, bias + 2.0)
        for block, old, change in zip(other.block(part), (weight, bias), (1.0, 2.0), strict=True):
            np.testing.assert_allclose(block, old + change, atol=1e-5)
        for rest in set(cell.parts) - {part}:
            np.testing.assert_array_equal(other.block(rest)[0], cell.block(rest)[0])


@pytest.mark.parametrize(
    "more", [{"clip": 1.0}, {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, {"input_forget": 1}]
)
def test_what_is_not_understood_is_left_alone(more, tmp_path):
    assert not list(find_recurrences(build_view(built("lstm", **more), tmp_path)))
    assert list(find_recurrences(build_view(built("lstm"), tmp_path)))
