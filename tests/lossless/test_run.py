"""The lossless part on the whole way: removed first, folded, stated, and repeatable."""

import json

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.lossless.order import freed
from onnxprune.options import Options
from onnxprune.report.json import to_json
from onnxprune.runtime.session import Session
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from tests.lossless.test_free import DEAD, constant_filters, zero_filters
from tests.nets import look

pytestmark = pytest.mark.usefixtures("untimed")


def written(build, folder):
    onnx.save(build(), folder / "in.onnx")
    data = np.random.default_rng(5).standard_normal((80, 3, 6, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=data)
    return folder / "in.onnx", data


def outputs(path, data):
    return next(iter(Session(path).run({"x": data}).values()))


@pytest.mark.parametrize("build", [zero_filters, constant_filters])
@pytest.mark.parametrize("given", [True, False])
def test_what_is_free_goes_whatever_the_budget_and_changes_nothing(build, given, tmp_path):
    source, data = written(build, tmp_path)
    options = Options(
        data=tmp_path / "data.npz" if given else None,
        macs=0.99, multiple_of=1, recover=False, time_limit=5.0,
    )  # fmt: skip
    target, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    report = pipeline.run(source, target, options, save_plan=plan)
    free = report.lossless
    assert (free.channels, free.proven, free.removed) == (2, 2, 2)
    assert [(g.name, tuple(g.channels)) for g in free.groups] == [("Conv_0", DEAD)]
    assert report.ratios.macs == pytest.approx(1 - free.macs)
    assert np.allclose(outputs(target, 4 * data), outputs(source, 4 * data), rtol=1e-4, atol=1e-4)
    document = json.loads(plan.read_text())
    assert bool(document["constants"]) == (build is constant_filters)
    assert not document["recovered"]
    assert pipeline.verify(source, target, plan, Options()).ok
    again = tmp_path / "again.onnx"
    pipeline.apply(source, again, plan, Options())
    assert again.read_bytes() == target.read_bytes()


def test_inspect_states_it(tmp_path):
    source, _ = written(constant_filters, tmp_path)
    free = pipeline.inspect(source, Options(data=tmp_path / "data.npz")).lossless
    assert (free.channels, free.proven, free.samples, free.removed) == (2, 2, 80, None)
    assert pipeline.inspect(source, Options(), verify=False).lossless.samples == 0


def test_free_channels_lead_the_order_at_no_error(tmp_path):
    found = look(zero_filters(), tmp_path)
    group = next(g for g in found.coupling.groups if g.name == "Conv_0")
    order = np.array([0, 1, 2, 3, 4, 5, 6, 7])
    curve = GroupSensitivity(
        order, np.ones(8), np.array([8, 6, 4, 2]), np.array([0.0, 0.2, 0.4, 0.8]), "activation"
    )
    done = freed(Sensitivity({"Conv_0": curve}, 0, 0), [group], {"Conv_0": DEAD})
    made = done.groups["Conv_0"]
    assert made.order.tolist() == [1, 4, 0, 2, 3, 5, 6, 7]
    assert made.widths.tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    # Three others are gone where the measured order had lost four channels: 0, 1, 2 and 3.
    assert made.errors.tolist() == pytest.approx([0, 0, 0, 0.1, 0.3, 0.4, 0.8, 0.8])
    assert done.free == {"Conv_0": 2}


def test_a_refit_keeps_what_was_folded(tmp_path):
    source, data = written(constant_filters, tmp_path)
    options = Options(data=tmp_path / "data.npz", macs=0.99, multiple_of=1, time_limit=5.0)
    report = pipeline.run(source, tmp_path / "out.onnx", options)
    assert report.lossless.removed == 2
    assert report.refitted or report.added
    assert np.allclose(outputs(tmp_path / "out.onnx", data), outputs(source, data), atol=1e-4)
    assert to_json(report)["lossless"]["channels"] == 2
