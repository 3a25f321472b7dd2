"""Stacked recurrent layers whose last states are gathered in one Concat."""

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.model.direct import read_directly
from onnxprune.runtime.session import Session
from tests import nets

_X = {"x": (5, "N", 4)}


def _stack(net: nets.Net, kind: str = "LSTM", directions: int = 1, layers: int = 2) -> str:
    """Return the last states of some layers of six units each, [layers * directions, N, 6]."""
    y, size, states = "x", 4, []
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]
    more = {"direction": "bidirectional"} if directions == 2 else {}
    for _ in range(layers):
        weights = [net.weight(directions, gates * 6, n) for n in (size, 6)]
        y, state = net.ops(2, kind, y, *weights, hidden_size=6, **more)
        y = net.op("Transpose", y, perm=[0, 2, 1, 3])
        y = net.op("Reshape", y, net.const(np.array([0, 0, -1])))
        size = 6 * directions
        states.append(state)
    return net.op("Concat", *states, axis=0)


def _last(net: nets.Net, states: str, *which: int) -> onnx.ModelProto:
    """Classify by the states of some layers and directions."""
    taken = [net.op("Gather", states, net.const(np.array(i)), axis=0) for i in which]
    y = net.op("Concat", *taken, axis=1) if len(taken) > 1 else taken[0]
    return net.model(_X, net.op("Gemm", y, net.weight(6 * len(taken), 3)))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize(
    ("directions", "which"), [(1, [-1]), (1, [1, 0]), (2, [-2, -1]), (2, [3])], ids=str
)
def test_layers_go_by_themselves(kind, directions, which, tmp_path):
    net = nets.Net()
    model = _last(net, _stack(net, kind, directions), *which)
    direct = read_directly(model, tmp_path)
    assert len(direct.graph.node) == len(model.graph.node) - 1
    feed = {"x": np.random.default_rng(0).standard_normal((5, 3, 4)).astype(np.float32)}
    before, after = (next(iter(Session(m).run(feed).values())) for m in (model, direct))
    np.testing.assert_array_equal(before, after)
    found = nets.look(model, tmp_path)
    assert len(found.coupling.groups) == 2
    assert onnxprune.inspect(model).coverage.macs == 1


def test_the_cut_is_made_written_and_verified(tmp_path, untimed):
    net = nets.Net()
    onnx.save(_last(net, _stack(net), -1), tmp_path / "m.onnx")
    result = onnxprune.prune(tmp_path / "m.onnx", macs=0.6, samples=16)
    widths = {g.name: g.after for g in result.report.groups}
    assert len(set(widths.values())) == 2, "one number for both layers proves nothing"
    assert [name.split("_")[0] for name in result.report.removed_nodes] == ["Concat"]
    again = onnxprune.apply(tmp_path / "m.onnx", result.plan)
    assert onnxprune.verify(tmp_path / "m.onnx", again.model, result.plan).ok


def _all_of(net: nets.Net, states: str) -> str:
    return net.op("ReduceSum", states, net.const(np.array([0, 2])))


def _two_at_once(net: nets.Net, states: str) -> str:
    return net.op("Gather", states, net.const(np.array([0, 1])), axis=0)


@pytest.mark.parametrize("read", [_all_of, _two_at_once, lambda _, states: states])
def test_what_reads_more_than_one_layer_stays(read, tmp_path):
    net = nets.Net()
    states = _stack(net)
    last = net.op("Gather", states, net.const(np.array(-1)), axis=0)
    model = net.model(_X, last, read(net, states))
    assert read_directly(model, tmp_path) is model


def test_layers_chosen_at_run_time_stay(tmp_path):
    net = nets.Net()
    y = net.op("Gather", _stack(net), "which", axis=0)
    model = net.model({**_X, "which": ()}, y, types={"which": onnx.TensorProto.INT64})
    assert read_directly(model, tmp_path) is model
