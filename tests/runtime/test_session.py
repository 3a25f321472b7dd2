"""Sessions: what goes wrong becomes one kind of error, and nothing runs for ever."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import UsageError
from onnxprune.runtime.session import (
    RunFailedError,
    Session,
    available_providers,
    with_outputs,
)
from tests import nets

X = {"x": np.ones((2, 8), np.float32)}


def endless():
    """A Loop without a trip count whose condition stays true."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["state", "x"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, None),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, None)],
    )
    net = nets.Net()
    y = net.op("Loop", "", net.const(np.asarray(True)), "x", body=body)
    return net.model({"x": (2, 8)}, y)


def test_runs_models_bytes_and_paths(tmp_path):
    model = nets.mlp(8, 6, 3)
    onnx.save(model, tmp_path / "m.onnx")
    results = [
        Session(m).run(X)["v2"] for m in (model, model.SerializeToString(), tmp_path / "m.onnx")
    ]
    assert results[0].shape == (2, 3)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_says_what_it_takes_and_gives():
    session = Session(nets.mlp(8, 6, 3))
    assert [(i.name, i.type, i.shape) for i in session.inputs] == [("x", "tensor(float)", ("N", 8))]
    assert [o.name for o in session.outputs] == ["v2"]


def test_only_asked_outputs_are_computed():
    model = with_outputs(nets.residual(), ["v0", "v9"])
    found = Session(model).run({"x": np.ones((1, 3, 6, 6), np.float32)}, ["v0"])
    assert list(found) == ["v0"]


@pytest.mark.parametrize(
    "model",
    [b"no model", Path("missing.onnx"), onnx.ModelProto()],
    ids=["garbage", "missing", "empty"],
)
def test_what_does_not_load_is_one_error(model):
    with pytest.raises(RunFailedError) as failure:
        Session(model)
    assert "\n" not in str(failure.value)
    assert str(failure.value)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"z": X["x"]},
        {"x": np.ones((2, 7), np.float32)},
        {"x": np.ones((2, 8), np.int64)},
        {"x": np.ones(8, np.float32)},
    ],
    ids=["none", "name", "shape", "type", "rank"],
)
def test_what_does_not_run_is_one_error(feeds):
    session = Session(nets.mlp(8, 6, 3))
    with pytest.raises(RunFailedError) as failure:
        session.run(feeds)
    assert "\n" not in str(failure.value)


def test_unknown_provider_names_the_known_ones():
    with pytest.raises(UsageError, match=r"no provider 'Warp'.*CPUExecutionProvider"):
        Session(nets.mlp(8, 3), provider="Warp")
    assert "CPUExecutionProvider" in available_providers()


def test_deadline_stops_an_endless_loop():
    session = Session(endless())
    start = time.monotonic()
    with pytest.raises(RunFailedError, match=r"still running after 0.3 s"):
        session.run(X, deadline=0.3)
    assert time.monotonic() - start < 30, "stopped by itself, not by the machine's memory"


def test_a_deadline_that_is_kept_does_no_harm():
    session = Session(nets.mlp(8, 3))
    first = session.run(X, deadline=60)
    np.testing.assert_array_equal(first["v0"], session.run(X, deadline=60)["v0"])


def test_an_error_before_the_deadline_is_not_called_a_timeout():
    with pytest.raises(RunFailedError) as failure:
        Session(nets.mlp(8, 3)).run({}, deadline=60)
    assert "still running" not in str(failure.value)


class TestWithOutputs:
    def test_inner_values_become_outputs_and_the_rest_goes(self):
        model = nets.residual()
        copy = with_outputs(model, ["v2"])
        assert [o.name for o in copy.graph.output] == ["v2"]
        assert len(copy.graph.node) == 3
        assert len(model.graph.node) > 3, "the given model stays whole"
        assert Session(copy).run({"x": np.ones((1, 3, 6, 6), np.float32)})["v2"].shape[1] == 6

    def test_declared_outputs_keep_their_types(self):
        model = nets.mlp(8, 3)
        assert with_outputs(model, ["v0"]).graph.output[0] == model.graph.output[0]

    def test_nodes_that_only_bodies_need_stay(self):
        model = nets.branching()
        copy = with_outputs(model, [model.graph.output[0].name])
        assert len(copy.graph.node) == len(model.graph.node)
        Session(copy).run({"x": np.ones((1, 5, 12), np.float32)})

    @pytest.mark.parametrize("kind", ["Shape", "Slice", "Concat"])
    def test_sizes_of_a_resize_may_be_known(self, kind):
        model, feed = nets.resized(), {"x": np.ones((2, 3, 8, 8), np.float32)}
        name = next(n.output[0] for n in model.graph.node if n.op_type == kind)
        y = model.graph.output[0].name
        inner = Session(with_outputs(model, [name])).run(feed)
        rest = with_outputs(model, [y], {name: np.zeros_like(inner[name])})
        assert np.array_equal(Session(rest).run({**feed, **inner})[y], Session(model).run(feed)[y])


def test_paths_are_opened_in_a_locale_that_cannot_spell_them(tmp_path):
    path = tmp_path / "mödel 模型.onnx"
    onnx.save(nets.mlp(8, 3), path)
    code = "from onnxprune.runtime.session import *; import sys, pathlib as p; "
    code += "print(Session(p.Path(sys.argv[1])).inputs[0].name)"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        env=os.environ | plain,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("x\n", "")
