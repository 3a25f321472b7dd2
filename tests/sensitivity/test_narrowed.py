"""Curves of narrowed groups against models narrowed and refitted the slow way."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.layers.sites import find_sites
from onnxprune.model.frontier import float_frontier
from onnxprune.progress import Silent
from onnxprune.runtime.session import Session
from onnxprune.sensitivity.measurer import Batches
from onnxprune.sensitivity.narrowed import measure_narrowed
from tests import nets


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


def test_groups_with_other_readers_are_left_out():
    found, _, curves = measured("digits_vit", samples=128)
    kinds = {g.name: g.kind for g in found.coupling.groups}
    assert {kinds[name] for name in curves} == {"neuron", "head"}
