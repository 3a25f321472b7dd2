"""Narrower inputs and outputs, end to end: what is fed, judged, reported and replayed."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune import pipeline
from onnxprune.cli import main
from onnxprune.documents import validate
from onnxprune.errors import BudgetError, InputError
from onnxprune.options import Options
from onnxprune.rewrite.verify import TOLERANCE, relative_error
from onnxprune.runtime.session import Session
from tests.coupling.test_interface import decoder, recurrent

UNITS = 12
pytestmark = pytest.mark.usefixtures("untimed")


def saved(net, folder, count=24):
    """Write a net, and whole feeds for it: states other than zeros."""
    model, rng = net.model(), np.random.default_rng(1)
    sizes = {"n": 1, "t": 5, "p": 4}
    onnx.save(model, folder / "in.onnx")
    arrays = {}
    for info in model.graph.input:
        dims = info.type.tensor_type.shape.dim
        shape = [sizes.get(d.dim_param, d.dim_value) for d in dims]
        arrays[info.name] = rng.standard_normal((count, *shape)).astype(np.float32)
    np.savez(folder / "data.npz", **arrays)
    return model, {name: array[0] for name, array in arrays.items()}


def call(*arguments):
    with pytest.raises(SystemExit) as found:
        main([str(a) for a in arguments])
    return found.value.code


def sliced(values, report, role):
    """Slice as the README says."""
    found = dict(values)
    for change in report["interface"]:
        if change["role"] == role:
            assert change["by"] is None
            array = found[change["name"]]
            assert array.shape[change["axis"]] == change["before"]
            assert len(change["kept"]) == change["after"] < change["before"]
            found[change["name"]] = np.take(array, change["kept"], axis=change["axis"])
    return found


@pytest.mark.parametrize("refit", ["--recover", "--no-recover"])
def test_an_lstm_with_states_from_the_command_line(tmp_path, refit):
    _, feed = saved(recurrent("LSTM", units=UNITS), tmp_path)
    given = (tmp_path / "in.onnx", tmp_path / "out.onnx")
    data, plan, file = (tmp_path / name for name in ("data.npz", "plan.json", "report.json"))
    options = ("--data", data, "--save-plan", plan, "--json", file, "--quiet", refit)
    assert call("run", *given, "--macs", "0.6", "--allow-interface-change", *options) == 0
    report = json.loads(file.read_text())
    validate(report, "onnxprune-report/1", "the report")
    names = [(c["name"], c["role"], c["axis"], c["before"]) for c in report["interface"]]
    assert names == [("h0", "input", 2, UNITS), ("c0", "input", 2, UNITS),
                     ("a.1", "output", 2, UNITS), ("a.2", "output", 2, UNITS)]  # fmt: skip
    assert len({tuple(c["kept"]) for c in report["interface"]}) == 1
    whole = Session(given[0]).run(feed)
    found = Session(given[1]).run(sliced(feed, report, "input"))
    for name, wanted in sliced(whole, report, "output").items():
        assert found[name].shape == wanted.shape
        assert np.abs(found[name] - wanted).max() < np.abs(wanted).max()
    info = {i.name: i.type.tensor_type.shape for i in onnx.load(given[1]).graph.input}
    assert info["h0"].dim[2].dim_value == report["interface"][0]["after"]
    assert info["h0"].dim[1].dim_param == "n"
    assert call("verify", *given, "--plan", plan, "--data", data, "--quiet") == 0
    again = tmp_path / "again.onnx"
    assert (
        call("apply", given[0], again, "--plan", plan, "--data", data, "--json", file, "--quiet")
        == 0
    )
    assert again.read_bytes() == given[1].read_bytes()
    assert json.loads(file.read_text())["interface"] == report["interface"]


def test_a_cache_is_refitted_and_judged_by_what_stays(tmp_path):
    saved(decoder(), tmp_path)
    options = Options(
        data=tmp_path / "data.npz", macs=0.6, allow_interface_change=True, time_limit=20.0
    )
    report = pipeline.run(tmp_path / "in.onnx", tmp_path / "out.onnx", options)
    assert report.drop.value < report.drop.before_recovery < 1
    assert {c.axis for c in report.interface} <= {1, 3}
    assert report.verified["max_rel_error"] < 1e-4
    assert report.ratios.macs <= 0.6


def test_a_result_narrows_what_goes_in_and_comes_out(tmp_path):
    """Each direction keeps units of its own."""
    model, feed = saved(recurrent("LSTM", 2, UNITS), tmp_path)
    result = onnxprune.prune(
        model, tmp_path / "data.npz", macs=0.6, allow_interface_change=True, recover=False
    )
    assert {c.by for c in result.report.interface} == {0}
    kept = np.zeros(2 * UNITS, bool)
    kept[list(result.report.interface[0].kept)] = True
    masked = masked_units(model, kept.reshape(2, UNITS))
    wanted = result.narrow(Session(masked).run(feed))
    found = Session(result.model).run(result.narrow(feed))
    assert found["a.1"].shape == (2, 1, result.report.interface[0].after)
    assert relative_error(found, wanted) < TOLERANCE


def masked_units(model, kept):
    """Let nothing read the units that go, shape (directions, units)."""
    masked = onnx.ModelProto()
    masked.CopyFrom(model)
    weights = {t.name: t for t in masked.graph.initializer}
    nodes = {n.op_type: n for n in masked.graph.node}
    for name, mask in (
        (nodes["LSTM"].input[2], kept[:, None, :]),
        (nodes["MatMul"].input[1], kept.reshape(-1, 1)),
    ):
        array = numpy_helper.to_array(weights[name]) * mask.astype(np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    return masked


def test_nothing_of_the_interface_goes_unasked(tmp_path):
    saved(recurrent("GRU", units=UNITS), tmp_path)
    options = Options(data=tmp_path / "data.npz", macs=0.6)
    with pytest.raises(BudgetError, match="--allow-interface-change"):
        pipeline.run(tmp_path / "in.onnx", tmp_path / "out.onnx", options)


def test_an_excluded_state_stays(tmp_path):
    saved(recurrent("GRU", units=UNITS), tmp_path)
    options = Options(
        data=tmp_path / "data.npz", macs=0.6, allow_interface_change=True, exclude=("h0",)
    )
    with pytest.raises(BudgetError, match="excluded"):
        pipeline.run(tmp_path / "in.onnx", tmp_path / "out.onnx", options)


class TestBench:
    def models(self, folder, widths):
        for width in widths:
            onnx.save(recurrent("GRU", units=width).model(), folder / f"{width}.onnx")
        return [folder / f"{width}.onnx" for width in widths]

    def test_a_narrower_model_is_fed_narrower_states(self, tmp_path):
        report = pipeline.bench(*self.models(tmp_path, (6, 4)), Options())
        assert "'h0' of [1, 16, 4] in place of [1, 16, 6]" in report.warnings[0]

    def test_models_of_the_same_inputs_are_fed_the_same(self, tmp_path):
        path = self.models(tmp_path, (6,))[0]
        assert pipeline.bench(path, path, Options()).warnings == []

    def test_a_wider_model_is_refused(self, tmp_path):
        with pytest.raises(InputError, match="both must take the same"):
            pipeline.bench(*self.models(tmp_path, (4, 6)), Options())
