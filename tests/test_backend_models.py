"""A sample of the onnx package's own backend tests; all of them: ``tests/zoo/backend.py``."""

from itertools import islice

import onnx
import pytest

from tests import nets
from tests.zoo import backend

STEP = {"node": 60, "simple": 4, "pytorch-converted": 6, "pytorch-operator": 5}


def sample():
    for kind, step in STEP.items():
        for _, name, model in islice(backend.models([kind]), 0, None, step):
            yield pytest.param(kind, name, model, id=f"{kind}-{name}")


@pytest.mark.parametrize(("kind", "name", "model"), list(sample()))
def test_backend_model(kind, name, model):
    outcome = backend.look(kind, name, model)
    assert not outcome.bad, outcome
    if outcome.state == "rejected":
        assert outcome.note
        assert "\n" not in outcome.note


def test_a_model_without_floats_goes_through_apply():
    net = nets.Net()
    y = net.op("Neg", "x")
    model = net.model({"x": ("N", 4)}, y, types=dict.fromkeys(("x", y), onnx.TensorProto.INT64))
    assert backend.look("x", "y", model) == backend.Outcome("y", "x", "identity")


def test_apply_feeds_no_made_up_sample_that_was_not_tried():
    net = nets.Net()
    y = net.op("Div", "x", "d")
    types = dict.fromkeys(("x", "d", y), onnx.TensorProto.UINT8)
    model = net.model({"x": (3, 4, 5), "d": (3, 4, 5)}, y, types=types)
    outcome = backend.look("x", "y", model)
    assert outcome.state in ("identity", "rejected"), outcome


def test_what_is_wrong_is_told(monkeypatch):
    model = nets.mlp(4, 6, 3)
    assert backend.look("x", "y", model).state == "cut"
    monkeypatch.setattr(backend, "field_diff", lambda *_: ["ir_version"])
    assert backend.look("x", "y", model).state == "changed"
    monkeypatch.setattr(backend, "cut", lambda *_: 1 / 0)
    assert backend.look("x", "y", model).state == "crash"
    assert backend.look("x", "y", onnx.ModelProto()).state == "rejected"
