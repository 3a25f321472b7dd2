"""Linear layers behind a normalization that take off what is lost equal the gated model."""

import numpy as np
import pytest

from onnxprune.runtime.carried import carried
from onnxprune.runtime.delta import KNOWN, shortened
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Session, keep_outputs, with_outputs
from tests import nets

_SIZE = 8


def normal(net, x, **attributes):
    scale = net.const(net.rng.uniform(0.5, 2, _SIZE).astype(np.float32))
    return net.op("LayerNormalization", x, scale, net.weight(_SIZE), **attributes)


def block(net, x):
    """Neurons that a stream is added to."""
    inner = net.op("Tanh", net.linear(x, _SIZE, 6))
    return net.op("Add", x, net.linear(inner, 6, _SIZE))


def plain(net):
    """A bias, a sum, a normalization, two linear layers of which one has a bias."""
    x = normal(net, block(net, "x"), axis=-1)
    y = net.op("MatMul", x, net.weight(_SIZE, 5))
    return net.op("Mul", net.op("Sigmoid", net.linear(x, _SIZE, 5)), y)


def twice(net):
    """The stream goes on, and into a second normalization, where the change is no small one."""
    stream = block(net, "x")
    scale = net.weight(_SIZE)
    first = net.op("LayerNormalization", stream, scale, axis=2)
    stream = net.op("Add", stream, net.linear(first, _SIZE, _SIZE))
    return net.linear(normal(net, stream), _SIZE, 3)


def behind(net):
    """The normalization stands behind the sum; its result is the next stream."""
    x = normal(net, block(net, "x"))
    return net.op("Add", net.linear(x, _SIZE, _SIZE), x)


def alone(net):
    """No sum in between, and the bias comes first."""
    inner = net.op("Relu", net.linear("x", _SIZE, 6))
    x = normal(net, net.op("MatMul", inner, net.weight(6, _SIZE)))
    return net.op("Add", net.weight(4), net.op("MatMul", x, net.weight(_SIZE, 4)))


def both(net, model, folder, count):
    """Gate the first group: return the carried model, and outputs of it and of the plain one."""
    found = nets.look(net.model({"x": ("N", 5, _SIZE)}, model(net)), folder)
    group = next(g for g in found.coupling.groups if g.size == 6)
    gated = gate(found.view, found.traces[0], found.coupling, [m.axis for m in group.members])
    shapes = found.traces[0].shapes
    delta = carried(shortened(gated, shapes), shapes)
    keep_outputs(delta.gated.model, found.view.outputs)
    feed = next(found.samples.feeds(range(3), 3))
    inner = [value for value in delta.known.values() if value not in feed]
    whole = {**feed, **Session(with_outputs(found.view.model, inner)).run(feed)}
    keeps = {axis: np.arange(size) % group.size >= count for axis, size in gated.sizes.items()}
    given = {**feed, **{n: whole[v] for n, v in delta.known.items()}, **delta.feeds(keeps)}
    known = {name: whole[value] for name, value in delta.known.items()}
    session = Session(with_outputs(delta.gated.model, found.view.outputs, known))
    read = {value.name for value in session.inputs}
    fast = session.run({name: array for name, array in given.items() if name in read})
    return delta, fast, Session(gated.model).run({**feed, **gated.feeds(keeps)})


@pytest.mark.parametrize("count", [1, 4, 5])
@pytest.mark.parametrize("make", [plain, twice, behind, alone])
def test_equals_the_gated_model(make, count, tmp_path):
    delta, fast, slow = both(nets.Net(40), make, tmp_path, count)
    assert delta.carried
    for name, array in slow.items():
        np.testing.assert_allclose(fast[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("make", "whole"), [(plain, 0), (alone, 0), (twice, 1), (behind, 0)])
def test_the_whole_product_is_not_run(make, whole, tmp_path):
    """But for layers behind what is no change of few dimensions any more."""
    delta, _, _ = both(nets.Net(41), make, tmp_path, 1)
    graph = delta.gated.model.graph
    changed = {value.name for value in graph.input if value.name.startswith("onnxprune/")}
    full = 0
    for node in graph.node:
        if changed.intersection(node.input):
            changed.update(node.output)
            full += node.op_type == "MatMul" and not node.output[0].startswith("onnxprune/")
    assert full == whole


def over_rows(net):
    x = net.op("Add", "x", net.linear(net.op("Tanh", net.linear("x", _SIZE, 6)), 6, _SIZE))
    scale = net.const(np.ones((5, _SIZE), np.float32))
    return net.linear(net.op("LayerNormalization", x, scale, axis=1), _SIZE, 3)


def bent(net):
    return net.linear(normal(net, net.op("Relu", block(net, "x"))), _SIZE, 3)


def doubled(net):
    inner = net.linear(net.op("Tanh", net.linear("x", _SIZE, 6)), 6, _SIZE)
    return net.linear(normal(net, net.op("Add", inner, inner)), _SIZE, 3)


def spread(net):
    """The sum has more rows than the change."""
    inner = net.op("Tanh", net.linear(net.op("ReduceMean", "x", axes=[1]), _SIZE, 6))
    return net.linear(normal(net, net.op("Add", "x", net.linear(inner, 6, _SIZE))), _SIZE, 3)


@pytest.mark.parametrize("make", [over_rows, bent, doubled, spread])
def test_what_is_not_linear_is_run_in_full(make, tmp_path):
    delta, fast, slow = both(nets.Net(42), make, tmp_path, 2)
    assert not delta.carried
    for name, array in slow.items():
        np.testing.assert_allclose(fast[name], array, rtol=1e-4, atol=1e-5)


def test_a_change_that_is_fed_back_has_the_names_of_the_original(tmp_path):
    delta, _, _ = both(nets.Net(43), plain, tmp_path, 1)
    assert all(name == KNOWN + value for name, value in delta.known.items())
