"""What measuring takes: by multiply-accumulates downstream, and by nothing that a clock says."""

import pytest

from onnxprune.analysis import analyse
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.sensitivity.effort import downstream, effort, samples_within
from tests.nets import MODELS


def test_less_lies_downstream_of_later_groups():
    found = analyse(MODELS / "digits_mlp.onnx", Options(macs=0.5), Silent())
    first, second = sorted(found.coupling.groups, key=lambda g: g.size, reverse=True)
    whole = found.costs.total.macs
    assert downstream(found, first) == pytest.approx(0.02 + (128 * 64 + 64 * 10) / whole)
    assert downstream(found, second) == pytest.approx(0.02 + 64 * 10 / whole)
    assert effort(found, first) == pytest.approx(128 * downstream(found, first))


def test_samples_are_planned_by_their_work():
    assert samples_within(2.0, 1e9) == 100
    assert samples_within(1.0, 2e9) == 25
    assert samples_within(1.0, 1e12) == 0
    assert samples_within(1.0, 0.0) > 10**9
