"""First readers that take off what is lost give what the gated model gives."""

import numpy as np
import pytest

from onnxprune.runtime.delta import shortened
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Session, with_outputs
from tests import nets


def wide(make):
    net = nets.Net(30)
    return net.model({"x": ("N", 6, 8)}, make(net))


def gemm(net):
    y = net.op("Gemm", net.op("Flatten", "x"), net.weight(48, 8), net.weight(8))
    y = net.op("Gemm", net.op("Relu", y), net.weight(5, 8), net.weight(5), transB=1, alpha=0.5)
    return net.op("Relu", y)


def matmul(net):
    y = net.op("Relu", net.op("MatMul", "x", net.weight(8, 10)))
    return net.op("Tanh", net.linear(y, 10, 4))


def strided(net):
    y = net.op("Relu", net.op("Conv", "x", net.weight(8, 6, 3)))
    return net.op("Relu", net.op("Conv", y, net.weight(4, 8, 3), net.weight(4), strides=[2]))


def transposed(net):
    y = net.op("Relu", net.op("Conv", "x", net.weight(8, 6, 3)))
    return net.op("ConvTranspose", y, net.weight(8, 4, 3), net.weight(4), strides=[2])


@pytest.mark.parametrize("make", [gemm, matmul, strided, transposed])
@pytest.mark.parametrize("count", [1, 5])
def test_equals_the_gated_model(make, count, tmp_path):
    found = nets.look(wide(make), tmp_path)
    (group,) = found.coupling.groups
    gated = gate(found.view, found.traces[0], found.coupling, [m.axis for m in group.members])
    delta = shortened(gated, found.traces[0].shapes)
    assert len(delta.known) == 1
    feed = next(found.samples.feeds(range(3), 3))
    whole = Session(with_outputs(found.view.model, [*delta.known.values()])).run(feed)
    known = {name: whole[value] for name, value in delta.known.items()}
    keeps = {axis: np.arange(size) % group.size >= count for axis, size in gated.sizes.items()}
    slow = Session(gated.model).run({**feed, **gated.feeds(keeps)})
    model = delta.gated.model
    given = {**feed, **known, **delta.feeds(keeps)}
    for name, array in known.items():
        kind = nets.helper.np_dtype_to_tensor_dtype(array.dtype)
        model.graph.input.append(nets.helper.make_tensor_value_info(name, kind, array.shape))
    for name, array in Session(model).run(given).items():
        np.testing.assert_allclose(array, slow[name], rtol=1e-4, atol=1e-5)


def test_readers_behind_another_gate_are_run_in_full(tmp_path):
    """The second block reads a stream that the first one has changed already."""
    found = nets.look(nets.residual(), tmp_path)
    stream = next(g for g in found.coupling.groups if g.kind == "stream")
    gated = gate(found.view, found.traces[0], found.coupling, [m.axis for m in stream.members])
    delta = shortened(gated, found.traces[0].shapes)
    readers = {n for axis in gated.values for n, _ in found.coupling.contracts[axis]}
    assert 0 < len(delta.known) < len(readers)


def test_grouped_convolutions_and_statistics_are_left_alone(tmp_path):
    for make in (nets.normed, nets.averaged):
        found = nets.look(make(), tmp_path)
        assert not all(group.exact for group in found.coupling.groups)
        for group in found.coupling.groups:
            axes = [m.axis for m in group.members if not group.exact]
            gated = gate(found.view, found.traces[0], found.coupling, axes)
            bent = set(gated.ratios)
            assert bool(bent) != group.exact
            delta = shortened(gated, found.traces[0].shapes)
            read = {name for node in delta.gated.model.graph.node for name in node.input}
            assert all(f"onnxprune/ratio/{a.value}/{a.axis}" in read for a in bent)
