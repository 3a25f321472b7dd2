"""Curves of narrowed groups against models narrowed and refitted the slow way."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.layers.sites import find_sites
from onnxprune.model.frontier import float_frontier
from onnxprune.progress import Silent
from onnxprune.runtime.session import Session
from onnxprune.sensitivity.narrowed import measure_narrowed
from onnxprune.sensitivity.request import Batches
from tests import nets
from tests.recovery.test_trajectory import INPUTS, KINDS, STEPS, UNITS, copied


def measured(name, samples=160, fit=80):
    found = nets.digits(name, samples=samples)
    parts = (range(fit), range(fit, samples))
    feeds = [list(found.samples.feeds(part, 40)) for part in parts]
    batches = Batches(*feeds)
    outputs = float_frontier(found.view, found.traces[0])
    return found, batches, measure_narrowed(
        found.view, found.traces[0], found.coupling, found.coupling.groups, batches,
        outputs=outputs, seed=0, progress=Silent(),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["digits_resnet", "digits_mobile"])
def test_curves_rise_from_nothing(name):
    found, _, curves = measured(name)
    assert curves
    for group in found.coupling.groups:
        if group.name in curves:
            curve = curves[group.name]
            assert sorted(curve.order.tolist()) == list(range(group.size))
            assert curve.widths[0] == group.size
            assert curve.errors[0] == 0.0
            assert (np.diff(curve.errors) >= 0).all()
            assert curve.method == "reconstruction"


def test_a_curve_is_what_a_refitted_model_loses():
    """Between the measured widths it is interpolated; hence the tolerance."""
    found, batches, curves = measured("digits_mlp", samples=400, fit=280)
    group = max(found.coupling.groups, key=lambda g: g.size)
    curve = curves[group.name]
    gone = curve.order[: group.size // 2]
    model = narrowed_by_hand(found, batches, group, gone)
    before, after = Session(found.view.model), Session(model)
    change, spread = 0.0, []
    for feed in batches.select:
        a, b = (s.run(feed, ["probabilities"])["probabilities"] for s in (before, after))
        change += ((a - b).astype(np.float64) ** 2).sum()
        spread.append(a)
    whole = np.concatenate(spread).astype(np.float64)
    relative = change / ((whole - whole.mean(axis=0)) ** 2).sum()
    assert curve.errors[len(gone)] == pytest.approx(relative, rel=0.5)


def narrowed_by_hand(found, batches, group, gone):
    """Refit the one reader by least squares on the rows, and write it into a copy."""
    view, contracts = found.view, found.coupling.contracts
    (axis,) = [m.axis for m in group.members if m.axis in contracts]
    node = view.by_index[contracts[axis][0][0]]
    (site,) = [
        s
        for s in find_sites(view, found.traces[0], found.coupling.collected)
        if s.node.index == node.index
    ]
    bias = view.by_index[site.bias.node].inputs[site.bias.slot]
    weight = view.constant(node.inputs[1])
    transposed = bool(node.attributes.get("transB"))
    matrix = (weight.T if transposed else weight).astype(np.float64)
    model = onnx.ModelProto()
    model.CopyFrom(view.model)
    model.graph.output.append(onnx.ValueInfoProto(name=axis.value))
    session = Session(model)
    rows = np.concatenate([session.run(f, [axis.value])[axis.value] for f in batches.fit])
    del model.graph.output[-1]
    left = np.setdiff1d(np.arange(group.size), gone)
    mean, centred = rows.mean(axis=0), (rows - rows.mean(axis=0)).astype(np.float64)
    inner = centred[:, left].T @ centred[:, left]
    inner += 1e-3 * np.diag(centred.T @ centred).mean() * np.eye(len(left))
    solved = np.zeros_like(matrix)
    extra = np.linalg.solve(inner, centred[:, left].T @ centred[:, gone] @ matrix[gone])
    solved[left] = matrix[left] + extra
    shift = (matrix - solved).T @ mean
    for tensor in model.graph.initializer:
        if tensor.name == view.original(node.inputs[1]):
            new = (solved.T if transposed else solved).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(new, tensor.name))
        if tensor.name == view.original(bias):
            moved = numpy_helper.to_array(tensor) + shift.reshape(1, -1)
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return model


def recurrent(model, tmp_path):
    found = nets.look(model, tmp_path)
    rng = np.random.default_rng(5)
    feeds = [{"x": rng.standard_normal((32, STEPS, INPUTS)).astype(np.float32)} for _ in range(6)]
    outputs = float_frontier(found.view, found.traces[0])
    groups = found.coupling.groups
    return groups, measure_narrowed(
        found.view, found.traces[0], found.coupling, groups, Batches(feeds[:4], feeds[4:]),
        outputs=outputs, seed=0, progress=Silent(),
    )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_recurrent_unit_goes_first_and_for_nothing(kind, tmp_path):
    (group,), curves = recurrent(copied(kind), tmp_path)
    curve = curves[group.name]
    twins = {0, UNITS - 1}
    first = curve.order[: group.step]
    assert all(int(unit) % UNITS in twins for unit in first)
    assert sorted(int(unit) // UNITS for unit in first) == list(range(group.step))
    assert sorted(curve.order.tolist()) == list(range(group.size))
    assert curve.errors[group.step] < 0.05 * curve.errors[group.size // 2]
    assert (np.diff(curve.errors) >= 0).all()


def test_layers_on_top_of_each_other_are_read_by_both(tmp_path):
    """The first layer's units go into its own recurrence and into the next layer."""
    groups, curves = recurrent(stacked(), tmp_path)
    assert len(groups) == 2
    assert curves.keys() == {group.name for group in groups}


def test_a_skip_around_a_layer(tmp_path):
    """Both layers have the same units then: the second reads them as its input and as its own."""
    (group,), curves = recurrent(stacked(skip=True), tmp_path)
    assert sorted(curves[group.name].order.tolist()) == list(range(UNITS))
    errors = curves[group.name].errors
    assert (np.diff(errors) >= 0).all()
    assert errors[-1] > errors[1] > 0


def stacked(*, skip=False):
    net, rng = nets.Net(2), np.random.default_rng(1)

    def layer(x, inputs):
        shapes = ((4 * UNITS, inputs), (4 * UNITS, UNITS), (8 * UNITS,))
        tables = [net.const(rng.standard_normal((1, *s)).astype(np.float32) / 3) for s in shapes]
        y = net.op("LSTM", x, *tables, hidden_size=UNITS)
        return net.op("Squeeze", y, net.const([1]))

    first = layer(net.op("Transpose", "x", perm=[1, 0, 2]), INPUTS)
    top = layer(first, UNITS)
    top = net.op("Add", top, first) if skip else top
    return net.model({"x": ("N", STEPS, INPUTS)}, net.linear(top, UNITS, 4))


def test_weights_that_others_read_are_no_evidence(tmp_path):
    """Not to be exchanged, they would show no error at all."""
    model = copied("rnn")
    layer = next(n for n in model.graph.node if n.op_type == "RNN")
    twin = onnx.helper.make_node("RNN", layer.input, ["other"], "twin", hidden_size=UNITS)
    place = list(model.graph.node).index(layer)
    model.graph.node.insert(place + 1, twin)
    transposed = next(n for n in model.graph.node if layer.output[0] in n.input)
    both = onnx.helper.make_node("Add", [layer.output[0], "other"], ["both"])
    transposed.input[0] = "both"
    model.graph.node.insert(place + 2, both)
    assert recurrent(model, tmp_path)[1] == {}


def test_groups_with_other_readers_are_left_out():
    found, _, curves = measured("digits_vit", samples=128)
    kinds = {g.name: g.kind for g in found.coupling.groups}
    assert {kinds[name] for name in curves} == {"neuron", "head"}
