"""Recurrent layers after units are gone: what the rest can make up for, it does."""

import numpy as np
import onnx
import pytest

from onnxprune.data.splits import split_samples
from onnxprune.layers.recurrent import find_recurrences
from onnxprune.progress import Silent
from onnxprune.recovery import refit as sweeps
from onnxprune.recovery.recover import recover
from onnxprune.recovery.refit import refit
from onnxprune.rewrite.prove import prove
from onnxprune.runtime.session import Session
from tests import nets

UNITS, INPUTS, STEPS = 8, 5, 7
KINDS = {
    "lstm": ("LSTM", 4, 1, {}),
    "gru": ("GRU", 3, 1, {}),
    "gru-after": ("GRU", 3, 1, {"linear_before_reset": 1}),
    "rnn": ("RNN", 1, 1, {}),
    "both": ("LSTM", 4, 2, {"direction": "bidirectional"}),
}


def copied(kind, steps=STEPS):
    """Build a layer whose last unit does what its first does, in each direction."""
    op_type, gates, directions, attributes = KINDS[kind]
    rng = np.random.default_rng(1)

    def table(width):
        scale = 1 / np.sqrt(max(width, 1))
        array = rng.standard_normal((directions, gates, UNITS, max(width, 1))) * scale
        array[:, :, -1] = array[:, :, 0]
        return array.reshape(directions, gates * UNITS, -1).astype(np.float32)

    net = nets.Net(2)
    biases = np.concatenate([table(0), table(0)], axis=1)[..., 0]
    weights = [net.const(array) for array in (table(INPUTS), table(UNITS), biases)]
    turned = net.op("Transpose", "x", perm=[1, 0, 2])
    y = net.op(op_type, turned, *weights, hidden_size=UNITS, **attributes)
    flat = net.op("Reshape", net.op("Transpose", y, perm=[2, 0, 1, 3]), net.const([0, 0, -1]))
    logits = net.linear(flat, directions * UNITS, 4)
    return net.model({"x": ("N", steps, INPUTS)}, logits)


def outputs(model, feed):
    return next(iter(Session(model).run(feed).values()))


def swept(found, proven, feeds):
    return refit(
        found.view, found.traces[0], found.coupling.collected, proven.model, proven.keeps, feeds,
        seed=0, progress=Silent(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_unit_is_made_up_for(kind, tmp_path, monkeypatch):
    found = nets.look(copied(kind), tmp_path)
    (group,) = found.coupling.groups
    gone = range(UNITS - 1, group.size, UNITS)  # the last of each direction
    proven = prove(found, [(group, gone)])
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((32, STEPS, INPUTS)).astype(np.float32)} for _ in range(8)]
    monkeypatch.setattr(sweeps, "find_sites", lambda *_: [])  # the layer itself makes up for it
    mended = swept(found, proven, feeds)
    assert mended.refitted
    fresh = {"x": rng.standard_normal((32, STEPS, INPUTS)).astype(np.float32)}
    kept = inner(mended.model, fresh)
    assert kept.shape[-1] == UNITS - 1
    goal = inner(found.view.real, fresh)[..., :-1]
    cut = inner(proven.model, fresh)
    assert np.abs(kept - goal).max() < 0.02 * np.abs(cut - goal).max()
    assert np.abs(kept - goal).max() < 0.01


def inner(model, feed):
    """Return all states of a layer, [steps, directions, samples, units]."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    layer = next(n for n in shown.graph.node if n.op_type in ("LSTM", "GRU", "RNN"))
    del shown.graph.output[:]
    shown.graph.output.append(onnx.helper.make_tensor_value_info(layer.output[0], 1, None))
    return outputs(shown, feed)


@pytest.mark.parametrize("name", ["digits_lstm", "digits_gru"])
def test_nothing_cut_leaves_the_layer_as_it_is(name):
    found = nets.digits(name, samples=64)
    feeds = list(found.samples.feeds(range(64), 16))
    made = swept(found, prove(found, []), feeds)
    assert made.refitted == made.added == ()


@pytest.mark.parametrize("name", ["digits_lstm", "digits_gru"])
def test_states_come_back_in_real_networks(name):
    found = nets.digits(name, samples=300)
    (group,) = found.coupling.groups
    proven = prove(found, [(group, range(0, group.size, 3))])
    mended = recover(
        found, proven, split_samples(300, 0), seed=0, time_limit=60.0, progress=Silent()
    )
    assert mended.after < 0.2 * mended.before
    held = np.load(nets.MODELS / "digits_rows_heldout.npz")
    right = outputs(mended.model, {"input": held["input"]}).argmax(axis=-1) == held["labels"]
    assert right.mean() >= 0.96


def test_a_layer_without_biases_is_given_some(tmp_path):
    model = copied("gru")
    layer = next(n for n in model.graph.node if n.op_type == "GRU")
    del layer.input[3:]
    found = nets.look(model, tmp_path)
    (group,) = found.coupling.groups
    proven = prove(found, [(group, range(0, group.size, 2))])
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((32, STEPS, INPUTS)).astype(np.float32)} for _ in range(4)]
    mended = swept(found, proven, feeds)
    cut = next(n for n in mended.model.graph.node if n.op_type == "GRU")
    assert cut.input[3] in mended.added
    assert np.isfinite(outputs(mended.model, feeds[0])).all()


def test_weights_that_two_layers_share_are_left_alone(tmp_path):
    model = copied("rnn")
    layer = next(n for n in model.graph.node if n.op_type == "RNN")
    twin = onnx.NodeProto()
    twin.CopyFrom(layer)
    twin.output[0], twin.name = "other", "twin"
    place = list(model.graph.node).index(layer)
    model.graph.node.insert(place + 1, twin)
    transposed = next(n for n in model.graph.node if layer.output[0] in n.input)
    both = onnx.helper.make_node("Add", [layer.output[0], "other"], ["both"])
    transposed.input[0] = "both"
    model.graph.node.insert(place + 2, both)
    found = nets.look(model, tmp_path)
    assert len(list(find_recurrences(found.view))) == 2
    (group,) = found.coupling.groups
    proven = prove(found, [(group, range(0, group.size, 2))])
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((32, STEPS, INPUTS)).astype(np.float32)} for _ in range(4)]
    mended = swept(found, proven, feeds)
    assert mended.refitted
    assert not set(mended.refitted) & set(layer.input)
