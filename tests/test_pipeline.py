"""The whole way: run, apply, verify, inspect on real and on hostile models."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune import pipeline
from onnxprune.bench import command as benching
from onnxprune.bench.table import load_table
from onnxprune.documents import validate
from onnxprune.errors import BudgetError, InputError, UsageError, VerificationError
from onnxprune.model.load import load
from onnxprune.options import Options, Trials
from onnxprune.report.json import to_json
from onnxprune.rewrite import prove
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import Session
from onnxprune.selection import correction, pace
from tests import nets
from tests.clock import quick_bench, stop

RESNET = nets.MODELS / "digits_resnet.onnx"
IMAGES = nets.MODELS / "digits_images.npz"
QUICK = Options(data=IMAGES, macs=0.5, samples=32, time_limit=30.0)
PLAIN = replace(QUICK, recover=False)


def weights_of(models):
    """Numbers in the models, as a made-up machine's times."""
    return np.array([sum(np.prod(t.dims) for t in m.graph.initializer) for m in models], float)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The main job once, clock and refit included: (report, folder with out.onnx, plan.json)."""
    folder = tmp_path_factory.mktemp("pruned")
    report = pipeline.run(RESNET, folder / "out.onnx", QUICK, save_plan=folder / "plan.json")
    return report, folder


@pytest.fixture(scope="module")
def cut_only(tmp_path_factory):
    """The same without refit or clock."""
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        stop(patch)
        report = pipeline.run(RESNET, folder / "out.onnx", PLAIN, save_plan=folder / "plan.json")
    return report, folder


def save(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "in.onnx")
    return folder / "in.onnx"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def small(model, folder, **choices):
    """Prune a small net on synthetic inputs; gives the report."""
    options = Options(**{"macs": 0.6, "samples": 16, "recover": False, **choices})
    return pipeline.run(save(model, folder), folder / "out.onnx", options)


class TestMainJob:
    def test_reaches_the_budget_and_proves_it(self, pruned):
        report, _ = pruned
        assert 0.4 < report.ratios.macs <= 0.5
        assert report.verified["max_rel_error"] <= TOLERANCE
        assert report.verified["samples"] == 2
        assert report.after.macs / report.before.macs == report.ratios.macs
        assert report.before.bytes == RESNET.stat().st_size
        assert report.before.macs == 1_353_344

    def test_report_fits_its_schema(self, pruned):
        validate(json.loads(json.dumps(to_json(pruned[0]))), "onnxprune-report/1", "report")

    def test_written_model_is_whole(self, pruned):
        report, folder = pruned
        out = folder / "out.onnx"
        assert report.target == str(out)
        assert report.after.bytes == out.stat().st_size
        onnx.checker.check_model(onnx.load(out), full_check=True)
        images = np.load(IMAGES)["input"]
        for batch in (1, 7):
            scores = Session(out).run({"input": images[:batch]})["scores"]
            assert scores.shape == (batch, 10)

    def test_interface_names_and_order_stay(self, cut_only):
        before, after = onnx.load(RESNET), onnx.load(cut_only[1] / "out.onnx")
        assert before.graph.input == after.graph.input
        assert before.graph.output == after.graph.output
        assert before.opset_import == after.opset_import
        assert before.ir_version == after.ir_version
        assert [n.name for n in before.graph.node] == [n.name for n in after.graph.node]
        assert [t.name for t in before.graph.initializer] == [
            t.name for t in after.graph.initializer
        ]

    def test_time_and_drop_are_told(self, pruned):
        report, _ = pruned
        assert report.before.latency_ms.median > 0
        assert report.ratios.latency > 0
        assert report.drop.metric == "agreement"
        assert report.drop.samples == 8
        assert 0 <= report.drop.interval[0] <= report.drop.value <= report.drop.interval[1] <= 1
        assert report.drop.certified.samples == 8
        assert report.drop.value <= report.drop.certified.alpha < 1
        assert report.drop.before_recovery >= report.drop.value
        assert report.drop.limit is None
        assert {"load", "couple", "measure", "cut", "recover", "bench", "write"} <= set(
            report.seconds
        )

    def test_groups_and_removed_positions_agree(self, pruned):
        report, _ = pruned
        assert {g.method for g in report.groups} == {"perturbation", "reconstruction"}
        assert any(g.after < g.before for g in report.groups)
        lost = {len(r.positions) for r in report.removed if r.initializer and r.axis == 0}
        assert {g.before - g.after for g in report.groups} - {0} <= lost
        original = {t.name: t.dims for t in onnx.load(RESNET).graph.initializer}
        result = {t.name: t.dims for t in onnx.load(pruned[1] / "out.onnx").graph.initializer}
        for entry in report.removed:
            if entry.initializer:
                size = original[entry.value][entry.axis]
                assert result[entry.value][entry.axis] == size - len(entry.positions)
                assert max(entry.positions) < size

    def test_real_data_brings_no_synthetic_warning(self, pruned):
        assert not any("synthetic" in w for w in pruned[0].warnings)

    def test_refit_is_listed_and_helps(self, pruned, cut_only):
        report, folder = pruned
        assert report.refitted
        assert cut_only[0].refitted == ()
        heldout = np.load(nets.MODELS / "digits_images_heldout.npz")
        right = [
            (Session(f / "out.onnx").run({"input": heldout["input"]})["scores"].argmax(1)
             == heldout["labels"]).mean()
            for f in (folder, cut_only[1])
        ]  # fmt: skip
        assert right[0] > right[1]


class TestApplyAndVerify:
    @pytest.mark.parametrize("kind", ["pruned", "cut_only"])
    def test_a_plan_makes_the_same_bytes(self, kind, request, untimed, tmp_path):
        _, folder = request.getfixturevalue(kind)
        report = pipeline.apply(
            RESNET, tmp_path / "again.onnx", folder / "plan.json", replace(QUICK, macs=None)
        )
        again = (tmp_path / "again.onnx").read_bytes()
        assert again == (folder / "out.onnx").read_bytes()
        assert report.target == str(tmp_path / "again.onnx")
        validate(json.loads(json.dumps(to_json(report))), "onnxprune-report/1", "report")

    def test_the_pure_cut_needs_no_data(self, cut_only, untimed, tmp_path):
        _, folder = cut_only
        pipeline.apply(RESNET, tmp_path / "again.onnx", folder / "plan.json", Options(samples=8))
        assert (tmp_path / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()

    def test_a_refit_without_data_is_left_out_and_said(self, pruned, untimed, tmp_path):
        _, folder = pruned
        report = pipeline.apply(
            RESNET, tmp_path / "again.onnx", folder / "plan.json", Options(samples=8)
        )
        assert report.refitted == ()
        assert any("refit" in w for w in report.warnings)

    @pytest.mark.parametrize("kind", ["pruned", "cut_only"])
    def test_verify_agrees(self, kind, request):
        _, folder = request.getfixturevalue(kind)
        found = pipeline.verify(RESNET, folder / "out.onnx", folder / "plan.json", Options())
        assert found.ok
        assert found.differences == []
        assert found.max_rel_error <= TOLERANCE
        assert found.same_bytes is (kind == "cut_only")
        validate(to_json(found), "onnxprune-verify/1", "it")

    def test_verify_sees_one_changed_weight(self, cut_only, tmp_path):
        _, folder = cut_only
        model = onnx.load(folder / "out.onnx")
        tensor = model.graph.initializer[0]
        array = numpy_helper.to_array(tensor).copy()
        array.flat[0] += 1e-3
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        onnx.save(model, tmp_path / "out.onnx")
        found = pipeline.verify(RESNET, tmp_path / "out.onnx", folder / "plan.json", Options())
        assert not found.ok
        assert not found.same_bytes
        assert len(found.differences) == 1
        assert "graph.initializer[0]" in found.differences[0]
        validate(to_json(found), "onnxprune-verify/1", "it")

    def test_verify_sees_a_changed_attribute_of_a_refitted_model(self, pruned, tmp_path):
        _, folder = pruned
        model = onnx.load(folder / "out.onnx")
        node = next(n for n in model.graph.node if n.op_type == "Conv")
        next(a for a in node.attribute if a.name == "pads").ints[0] += 1
        onnx.save(model, tmp_path / "out.onnx")
        found = pipeline.verify(RESNET, tmp_path / "out.onnx", folder / "plan.json", Options())
        assert not found.ok
        assert any("attribute" in d for d in found.differences)

    def test_verify_sees_the_original_in_place_of_the_cut(self, cut_only):
        found = pipeline.verify(RESNET, RESNET, cut_only[1] / "plan.json", Options())
        assert not found.ok

    def test_an_empty_plan_copies_the_bytes(self, cut_only, untimed, tmp_path):
        content = json.loads((cut_only[1] / "plan.json").read_text())
        content |= {"removed": [], "groups": []}
        (tmp_path / "empty.json").write_text(json.dumps(content))
        out, plan = tmp_path / "out.onnx", tmp_path / "empty.json"
        report = pipeline.apply(RESNET, out, plan, replace(QUICK, macs=None))
        assert out.read_bytes() == RESNET.read_bytes()
        assert (report.ratios.macs, report.ratios.params, report.removed) == (1.0, 1.0, ())
        assert pipeline.verify(RESNET, out, plan, Options()).ok

    def test_the_plan_of_another_model_writes_nothing(self, cut_only, tmp_path):
        other, out = nets.MODELS / "digits_mobile.onnx", tmp_path / "out.onnx"
        with pytest.raises(InputError, match="another model"):
            pipeline.apply(other, out, cut_only[1] / "plan.json", Options())
        with pytest.raises(InputError, match="another model"):
            pipeline.verify(other, other, cut_only[1] / "plan.json", Options())
        assert files(tmp_path) == set()

    def test_a_plan_with_one_axis_left_out_writes_nothing(self, cut_only, untimed, tmp_path):
        """Half a channel gone: the cut model does not run, or does not equal its reference."""
        content = json.loads((cut_only[1] / "plan.json").read_text())
        at = next(i for i, e in enumerate(content["removed"]) if e["initializer"])
        del content["removed"][at]
        (tmp_path / "bad.json").write_text(json.dumps(content))
        with pytest.raises(VerificationError):
            pipeline.apply(RESNET, tmp_path / "out.onnx", tmp_path / "bad.json", QUICK)
        assert files(tmp_path) == {"bad.json"}


@pytest.mark.usefixtures("untimed")
class TestOptions:
    def test_dry_run_writes_nothing(self, tmp_path):
        report = pipeline.run(RESNET, tmp_path / "out.onnx", PLAIN, dry_run=True)
        assert files(tmp_path) == set()
        assert report.target is None
        assert report.ratios.macs <= 0.5

    def test_dry_run_needs_no_target_and_may_save_the_plan(self, tmp_path):
        plan = tmp_path / "plan.json"
        pipeline.run(RESNET, None, PLAIN, dry_run=True, save_plan=plan)
        assert files(tmp_path) == {"plan.json"}

    def test_without_data_the_report_says_synthetic(self, tmp_path):
        report = small(nets.residual(), tmp_path)
        assert any("synthetic" in w for w in report.warnings)
        assert report.drop is not None

    def test_the_same_seed_makes_the_same_plan(self, cut_only, tmp_path):
        pipeline.run(RESNET, None, PLAIN, dry_run=True, save_plan=tmp_path / "a.json")
        assert (tmp_path / "a.json").read_text() == (cut_only[1] / "plan.json").read_text()

    def test_two_budgets_at_once(self, tmp_path):
        report = pipeline.run(
            RESNET, tmp_path / "o.onnx", replace(PLAIN, macs=0.7, params=0.4, size=0.6)
        )
        assert report.ratios.macs <= 0.7
        assert report.ratios.params <= 0.4
        assert report.ratios.bytes <= 0.6

    @pytest.mark.parametrize("multiple", [8, 16])
    def test_multiples_are_honoured(self, multiple, tmp_path):
        options = replace(PLAIN, macs=0.6, multiple_of=multiple)
        report = pipeline.run(RESNET, tmp_path / "o.onnx", options)
        changed = [g for g in report.groups if g.after < g.before]
        assert changed
        assert all(g.after % multiple == 0 for g in changed)
        model = onnx.load(tmp_path / "o.onnx")
        convs = [n.input[1] for n in model.graph.node if n.op_type == "Conv"]
        sizes = {t.name: t.dims[0] for t in model.graph.initializer}
        assert all(sizes[w] % multiple == 0 for w in convs)

    def test_excluded_groups_stay_whole(self, tmp_path):
        options = replace(PLAIN, macs=0.8, exclude=("/6/*", "op:Add"))
        report = pipeline.run(RESNET, tmp_path / "o.onnx", options)
        for group in report.groups:
            if group.name.startswith("/6/") or group.kind == "stream":
                assert group.after == group.before
        assert report.options["exclude"] == ("/6/*", "op:Add")

    def test_short_time_is_said(self, tmp_path):
        report = small(nets.residual(), tmp_path, time_limit=1e-9, method="perturbation")
        assert {g.method for g in report.groups} == {"activation"}
        assert any("activation importance" in w for w in report.warnings)

    @pytest.mark.parametrize("samples", [1, 3])
    def test_few_samples_are_said(self, samples, tmp_path):
        report = small(nets.residual(), tmp_path, samples=samples)
        assert any("fewer than 4 samples" in w for w in report.warnings)

    def test_existing_target_and_input_as_target_are_refused(self, tmp_path):
        source = save(nets.residual(), tmp_path)
        (tmp_path / "out.onnx").write_bytes(b"mine")
        options = Options(macs=0.6, samples=8, recover=False)
        with pytest.raises(UsageError, match="exists"):
            pipeline.run(source, tmp_path / "out.onnx", options)
        assert (tmp_path / "out.onnx").read_bytes() == b"mine"
        with pytest.raises(UsageError, match="input itself"):
            pipeline.run(source, source, options, force=True)
        pipeline.run(source, tmp_path / "out.onnx", options, force=True)
        Session(tmp_path / "out.onnx").run({"x": np.ones((1, 3, 6, 6), np.float32)})

    @pytest.mark.parametrize(
        "choices", [{"macs": 1.5}, {"params": 0.0}, {"max_drop": -0.1}], ids=str
    )
    def test_budgets_that_make_no_sense(self, choices, tmp_path):
        with pytest.raises(UsageError, match="--"):
            small(nets.residual(), tmp_path, **choices)
        assert "out.onnx" not in files(tmp_path)


@pytest.mark.usefixtures("untimed")
class TestNothingToGain:
    def refused(self, source, folder, options):
        before = files(folder)
        with pytest.raises(BudgetError) as refusal:
            pipeline.run(source, folder / "out.onnx", options, save_plan=folder / "plan.json")
        assert files(folder) == before
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    @pytest.mark.parametrize(("name", "op"), [("digits_lstm", "LSTM"), ("digits_gru", "GRU")])
    def test_operators_without_a_rule_are_named(self, name, op, tmp_path, monkeypatch):
        nets.forget_rule(monkeypatch, op)
        options = replace(QUICK, data=nets.MODELS / "digits_rows.npz")
        message = self.refused(nets.MODELS / f"{name}.onnx", tmp_path, options)
        assert "nothing to cut" in message
        assert f"no rule for {op}" in message

    def test_out_of_reach_names_the_nearest(self, tmp_path):
        message = self.refused(RESNET, tmp_path, replace(QUICK, macs=0.001))
        assert "--macs 0.001 cannot be met: the nearest is macs 0.0" in message

    def test_both_ratios_are_named(self, tmp_path):
        source = save(nets.residual(), tmp_path)
        options = Options(macs=0.9, size=0.01, samples=8)
        message = self.refused(source, tmp_path, options)
        assert "--macs 0.9 and --size 0.01 cannot be met" in message
        assert "size 0." in message

    def test_everything_excluded(self, tmp_path):
        message = self.refused(RESNET, tmp_path, replace(QUICK, exclude=("*",)))
        assert "everything is excluded" in message

    def test_a_multiple_that_no_group_has(self, tmp_path):
        options = replace(QUICK, multiple_of=256, branches=False)
        message = self.refused(RESNET, tmp_path, options)
        assert "the nearest is macs 1.000" in message

    def test_a_model_without_weights(self, tmp_path):
        net = nets.Net()
        source = save(net.model({"x": ("N", 4)}, net.op("Relu", "x")), tmp_path)
        assert "nothing to cut" in self.refused(source, tmp_path, Options(macs=0.5, samples=8))

    def test_channels_without_macs(self, tmp_path):
        """An embedding's width costs parameters but no multiplications."""
        net = nets.Net()
        y = net.op("Gather", net.weight(20, 8), "x")
        y = net.op("ReduceSum", y, net.const(np.array([2])), keepdims=0)
        model = net.model({"x": ("N", 5)}, y, types={"x": TensorProto.INT64})
        source = save(model, tmp_path)
        assert "cannot be met" in self.refused(source, tmp_path, Options(macs=0.5, samples=8))
        report = pipeline.run(
            source, tmp_path / "out.onnx", Options(params=0.5, samples=8, recover=False)
        )
        assert report.ratios.params <= 0.5


def corrupt(monkeypatch, spoils):
    """Let cuts of some values go wrong: their first cut weight is off by one."""
    real = prove.cut

    def cut(view, coupling, traces, keeps):
        model = real(view, coupling, traces, keeps)
        for tensor in model.graph.initializer:
            if any(axis.value == tensor.name and spoils(tensor.name) for axis in keeps):
                array = numpy_helper.to_array(tensor) + 1
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        return model

    monkeypatch.setattr(prove, "cut", cut)


@pytest.mark.usefixtures("untimed")
class TestFailingProof:
    def test_the_guilty_group_stays_whole_and_is_reported(self, tmp_path, monkeypatch):
        corrupt(monkeypatch, lambda name: name in ("w2", "w3"))
        report = small(nets.mlp(8, 8, 8, 8, 3), tmp_path, macs=0.8)
        widths = {g.name: (g.before, g.after) for g in report.groups}
        assert widths["Gemm_0"] == (8, 8), "w2 has its columns"
        assert widths["Gemm_2"] == (8, 8), "and its rows"
        assert widths["Gemm_4"][1] < 8
        stays = [w for w in report.warnings if "stays whole" in w]
        assert stays
        assert all("differs from its reference" in w for w in stays)
        assert report.verified["max_rel_error"] <= TOLERANCE
        assert report.ratios.macs <= 0.8

    def test_everything_fails(self, tmp_path, monkeypatch):
        corrupt(monkeypatch, lambda _: True)
        with pytest.raises(VerificationError, match=r"no cut could be proven.*differs"):
            small(nets.mlp(8, 8, 3), tmp_path)
        assert files(tmp_path) == {"in.onnx"}

    def test_the_rest_cannot_meet_the_budget(self, tmp_path, monkeypatch):
        corrupt(monkeypatch, lambda name: name in ("w0", "w1"))
        with pytest.raises(BudgetError, match=r"cannot be met.*1 groups? could not be proven"):
            small(nets.mlp(8, 32, 4, 3), tmp_path, macs=0.5)
        assert files(tmp_path) == {"in.onnx"}

    @pytest.mark.parametrize("how", ["RandomNormalLike", "RandomUniformLike", "Bernoulli"])
    def test_models_that_answer_by_chance_are_rejected(self, how, tmp_path):
        net = nets.Net()
        y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6), net.weight(6)))
        y = net.op("Sigmoid", net.op("Gemm", y, net.weight(6, 3), net.weight(3)))
        y = net.op("Add", y, net.op(how, y))
        with pytest.raises(InputError, match="different outputs for the same input"):
            small(net.model({"x": ("N", 8)}, y), tmp_path)
        assert files(tmp_path) == {"in.onnx"}


@pytest.mark.usefixtures("untimed")
class TestKindsOfModels:
    @pytest.mark.parametrize(
        ("name", "ratio"),
        [("digits_mobile", 0.6), ("digits_vit", 0.6), ("digits_keras", 0.5), ("digits_gru", 0.5)],
    )
    def test_the_projects_other_models(self, name, ratio, tmp_path):
        data = nets.MODELS / f"{nets.DATA[name]}.npz"
        options = replace(PLAIN, data=data, macs=ratio, time_limit=1.0)
        out = tmp_path / "out.onnx"
        report = pipeline.run(
            nets.MODELS / f"{name}.onnx", out, options, save_plan=tmp_path / "p.json"
        )
        assert report.ratios.macs <= ratio
        assert report.verified["max_rel_error"] <= TOLERANCE
        onnx.checker.check_model(onnx.load(out), full_check=True)
        assert pipeline.verify(nets.MODELS / f"{name}.onnx", out, tmp_path / "p.json", Options()).ok

    def test_class_numbers_as_output(self, tmp_path):
        """The perceptron of scikit-learn ends in ArgMax and a table of labels."""
        source = nets.MODELS / "digits_mlp.onnx"
        options = replace(PLAIN, data=nets.MODELS / "digits_features.npz")
        report = pipeline.run(source, tmp_path / "out.onnx", options)
        assert report.ratios.macs <= 0.5
        assert report.drop.metric == "agreement"
        x = np.load(nets.MODELS / "digits_features.npz")["input"]
        label = Session(tmp_path / "out.onnx").run({"input": x[:9]})["label"]
        assert label.shape == (9,)
        assert label.dtype == np.int64

    def test_only_integers_as_output(self, tmp_path):
        net = nets.Net()
        y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 16), net.weight(16)))
        scores = net.op("Gemm", y, net.weight(16, 4), net.weight(4))
        label = net.op("ArgMax", scores, axis=1, keepdims=0)
        model = net.model({"x": ("N", 8)}, label, types={label: TensorProto.INT64})
        report = small(model, tmp_path)
        assert report.ratios.macs <= 0.6
        assert 0.0 <= report.drop.value <= 1.0

    def test_sizes_of_the_output_that_depend_on_the_data(self, tmp_path):
        net = nets.Net()
        y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 16), net.weight(16)))
        y = net.op("Gemm", y, net.weight(16, 4), net.weight(4))
        first = net.op("Gather", y, net.const(np.asarray(0)), axis=1)
        positive = net.op("Greater", first, net.const(np.float32(0)))
        report = small(
            net.model({"x": ("N", 8)}, net.op("Compress", y, positive, axis=0)), tmp_path
        )
        assert report.ratios.macs <= 0.6

    def test_bodies_and_fixed_sizes(self, tmp_path):
        report = small(nets.branching(), tmp_path, macs=0.7)
        assert report.ratios.macs <= 0.7
        net = nets.Net()
        y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 16), net.weight(16)))
        model = net.model({"x": (1, 8)}, net.op("Gemm", y, net.weight(16, 4)))
        (tmp_path / "out.onnx").unlink()
        assert small(model, tmp_path).ratios.macs <= 0.6

    def test_external_data(self, tmp_path):
        source = tmp_path / "in.onnx"
        model = nets.mlp(16, 64, 32, 4)
        onnx.save(model, source, save_as_external_data=True, size_threshold=0, location="in.data")
        before = (tmp_path / "in.data").read_bytes()
        options = Options(macs=0.6, samples=16)
        report = pipeline.run(source, tmp_path / "out.onnx", options, save_plan=tmp_path / "p.json")
        assert report.ratios.macs <= 0.6
        Session(tmp_path / "out.onnx").run({"x": np.ones((2, 16), np.float32)})
        assert (tmp_path / "in.data").read_bytes() == before
        assert pipeline.verify(source, tmp_path / "out.onnx", tmp_path / "p.json", Options()).ok


class TestInspect:
    def test_digits(self):
        report = pipeline.inspect(RESNET, PLAIN)
        assert report.coverage.params >= 0.95
        assert report.coverage.macs >= 0.95
        assert all(g.verified for g in report.groups)

    def test_excluded_groups_are_not_listed(self):
        report = pipeline.inspect(RESNET, replace(PLAIN, exclude=("/6/*",)), verify=False)
        assert report.groups
        assert not any(g.name.startswith("/6/") for g in report.groups)
        assert all(g.verified is None for g in report.groups)

    def test_what_has_no_rule_says_why(self, monkeypatch):
        nets.forget_rule(monkeypatch, "LSTM")
        report = pipeline.inspect(
            nets.MODELS / "digits_lstm.onnx", Options(data=nets.MODELS / "digits_rows.npz")
        )
        assert report.groups == []
        assert any(f.op == "LSTM" for f in report.frozen)

    def test_a_missing_model(self, tmp_path):
        with pytest.raises(InputError, match=r"no\.onnx"):
            pipeline.inspect(tmp_path / "no.onnx", Options())


class TestBench:
    def test_one_and_two_models_share_their_feeds(self, untimed):
        one = pipeline.bench(RESNET, None, QUICK)
        assert (one.models, one.ratio) == ([str(RESNET)], None)
        two = pipeline.bench(RESNET, nets.MODELS / "digits_resnet_bn.onnx", QUICK)
        assert len(two.latency_ms) == 2
        assert two.ratio == 0.9

    def test_models_of_other_inputs_are_rejected(self, untimed):
        with pytest.raises(InputError, match="both must take the same"):
            pipeline.bench(RESNET, nets.MODELS / "digits_mlp.onnx", QUICK)

    def test_models_of_other_input_names_are_rejected(self, tmp_path):
        other = onnx.load(RESNET)
        (node,) = (n for n in other.graph.node if "input" in n.input)
        node.input[list(node.input).index("input")] = other.graph.input[0].name = "image"
        onnx.save(other, tmp_path / "other.onnx")
        with pytest.raises(InputError, match=r"different inputs \(input; image\)"):
            pipeline.bench(RESNET, tmp_path / "other.onnx", QUICK)

    def test_scalar_inputs_are_fed_as_arrays(self, tmp_path):
        net = nets.Net()
        y = net.op("Mul", net.op("Gemm", "x", net.weight(8, 4)), "scale")
        onnx.save(net.model({"x": ("N", 8), "scale": ()}, y), tmp_path / "m.onnx")
        twice = (tmp_path / "m.onnx", tmp_path / "m.onnx")
        options = replace(QUICK, data=None)
        assert pipeline.bench(*twice, options, trials=Trials(pairs=2, runs=1)).ratio > 0

    def test_a_batch_joins_samples(self, monkeypatch):
        seen = []

        def measure(models, feeds, **choices):
            seen.extend(feeds)
            return quick_bench(models, feeds, **choices)

        monkeypatch.setattr(benching, "measure", measure)
        pipeline.bench(RESNET, None, QUICK, trials=Trials(batch=5))
        assert [next(iter(feed.values())).shape[0] for feed in seen] == [5] * 4

    def test_a_batch_that_the_model_does_not_have(self, untimed, tmp_path):
        net = nets.mlp(4, 8, 2)
        net.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
        path = save(net, tmp_path)
        with pytest.raises(UsageError, match="--batch 3 cannot be had: the model fixes it at 2"):
            pipeline.bench(path, None, Options(), trials=Trials(batch=3))

    def test_a_table_can_be_carried_to_another_machine(self, untimed, tmp_path, monkeypatch):
        monkeypatch.setattr(pace, "operator_timer", lambda *_: lambda o: 10.0 * np.prod(o.widths))
        monkeypatch.setattr(correction, "race", lambda models, *_, **__: 10.0 * weights_of(models))
        path, table = save(nets.mlp(4, 64, 32, 2), tmp_path), tmp_path / "table.json"
        options = Options(cache=tmp_path, samples=8, recover=False, provider="CPUExecutionProvider")
        pipeline.bench(path, None, options, table=table)
        assert {sha for sha, _ in load_table(table).fits} == {load(path).sha256}
        asked = replace(options, latency=0.9, latency_table=table)
        report = pipeline.run(path, tmp_path / "out.onnx", asked)
        assert any("predicted from" in warning for warning in report.warnings)

    def test_a_provider_that_is_not_there(self):
        with pytest.raises(UsageError, match="no provider 'CUDAExecutionProvider' here; it has"):
            pipeline.bench(RESNET, None, replace(QUICK, provider="CUDAExecutionProvider"))
