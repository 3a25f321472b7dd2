"""Several cuts in one run give what they give one after the other."""

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import RunFailedError, Session, with_outputs
from onnxprune.runtime.stacked import by_row, make_stack
from onnxprune.runtime.suffix import make_suffix
from tests import nets


def parts(found, group, samples, count, room=1e18):
    axes = [m.axis for m in group.members if m.axis in found.coupling.contracts]
    gated = gate(found.view, found.traces[0], found.coupling, axes)
    gated = replace(gated, model=with_outputs(gated.model, found.view.outputs))
    feed = next(found.samples.feeds(range(samples), samples))
    rows = by_row(found.view, gated, found.traces[0])
    if rows is None:
        return gated, feed, None
    outputs, trace = found.view.outputs, found.traces[0]
    suffix = make_suffix(rows, outputs, trace, room=room, short=False)
    inner = [v for v in dict.fromkeys(suffix.boundary.values()) if v not in feed]
    original = Session(with_outputs(found.view.model, inner)) if inner else None

    def values(given):
        return {**given, **(original.run(given) if original else {})}

    return gated, feed, make_stack(found.view, rows, suffix, trace, values, feed, count)


def cuts_of(found, group, count):
    sizes = found.coupling.collected.sizes
    return [keep_masks([(group, [c % group.size])], sizes) for c in range(count)]


@pytest.mark.parametrize("room", [1e18, 0.0], ids=["all", "nothing"])
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("make", [nets.residual, nets.concat, nets.heads, nets.branching])
def test_equals_one_after_the_other(make, samples, room, tmp_path):
    found = nets.look(make(), tmp_path)
    for group in found.coupling.groups:
        gated, feed, stack = parts(found, group, samples, 4, room=room)
        assert stack is not None
        session = Session(gated.model)
        for count in (4, 3, 1):  # the last run of a group is not full
            cuts = cuts_of(found, group, count)
            many = stack.run(cuts)
            assert len(many) == count
            for keeps, outputs in zip(cuts, many, strict=True):
                slow = session.run({**feed, **gated.feeds(keeps)})
                assert outputs.keys() == slow.keys()
                for name, array in slow.items():
                    np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [nets.normed, nets.fused, nets.averaged])
def test_statistics_over_channels_are_not_stacked(make, tmp_path):
    found = nets.look(make(), tmp_path)
    stacks = [parts(found, group, 2, 4)[2] for group in found.coupling.groups if not group.exact]
    assert stacks
    assert not any(stacks)


def test_gates_on_weights_are_not_stacked():
    """The recurrent weight of a unit is no row of a sample."""
    found = nets.digits("digits_lstm")
    (group,) = (g for g in found.coupling.groups if g.kind == "unit")
    assert parts(found, group, 2, 4)[2] is None


def test_a_model_of_one_batch_size_is_not_stacked(tmp_path):
    net = nets.Net(44)
    y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6)))
    found = nets.look(net.model({"x": (2, 8)}, net.op("Gemm", y, net.weight(6, 3))), tmp_path)
    assert parts(found, found.coupling.groups[0], 2, 4)[2] is None


def test_samples_that_see_one_another_before_the_gates_are_not_stacked(tmp_path):
    net = nets.Net(45)
    place = net.op("CumSum", "x", net.const(np.array(0)))  # each sees those before it
    y = net.op("Relu", net.op("Gemm", place, net.weight(8, 6)))
    found = nets.look(net.model({"x": ("N", 8)}, net.op("Gemm", y, net.weight(6, 3))), tmp_path)
    assert parts(found, found.coupling.groups[0], 2, 4)[2] is None


def test_an_output_without_rows_is_an_error(tmp_path):
    net = nets.Net(46)
    y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6)))
    y = net.op("ReduceMax", net.op("Gemm", y, net.weight(6, 3)), keepdims=0)
    found = nets.look(net.model({"x": ("N", 8)}, y), tmp_path)
    group = found.coupling.groups[0]
    stack = parts(found, group, 2, 4)[2]
    assert stack is not None
    with pytest.raises(RunFailedError, match="no rows"):
        stack.run(cuts_of(found, group, 4))
