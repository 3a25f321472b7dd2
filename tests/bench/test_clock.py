"""What is timed is what a user's program would run."""

import onnx
import pytest

from onnxprune.bench import clock
from tests.nets import MODELS

PATH = MODELS / "digits_mlp.onnx"


@pytest.mark.parametrize("given", [PATH, PATH.read_bytes(), onnx.load(PATH)])
def test_weights_of_timed_models_lie_inside_them(given, monkeypatch):
    opened = []
    monkeypatch.setattr(clock, "Session", lambda model, **_: opened.append(model))
    clock.opened(given, threads=1, provider="CPUExecutionProvider")
    assert opened == [onnx.load(PATH).SerializeToString() if given is not PATH else PATH]
