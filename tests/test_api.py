"""The Python interface: models and data in memory, options by name, errors in one line."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from onnx import TensorProto, helper

import onnxprune
from onnxprune import api, pipeline
from onnxprune.cli import app
from onnxprune.documents import validate
from onnxprune.report.json import to_json
from tests import nets

MLP = nets.MODELS / "digits_mlp.onnx"
ARRAYS = dict(np.load(nets.MODELS / "digits_features_heldout.npz"))
X, LABELS = ARRAYS["input"][:64], ARRAYS["labels"][:64]
QUICK = {"macs": 0.6, "recover": False}
COMMANDS = typer.main.get_command(app).commands
OPTIONS = {
    "run": (api.prune, api.Pruning),
    "inspect": (api.inspect, api.Inspecting),
    "sensitivity": (api.sensitivity, api.Measuring),
    "apply": (api.apply, api.Applying),
    "verify": (api.verify, api.Inputs),
    "bench": (api.bench, api.Benching),
}
# What the command line alone needs: files to read and write, and what is printed.
PLACES = {"source", "target", "json", "quiet", "save_plan", "dry_run", "force", "no_verify", "help"}
PLACES |= {"first", "second", "report"}


@pytest.fixture
def model():
    return onnx.load(MLP)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_are_those_of_the_command_line(command):
    function, options = OPTIONS[command]
    named = set(options.__annotations__) | set(function.__annotations__)
    named -= {"model", "pruned", "first", "second", "verify", "progress", "options", "return"}
    assert named == {p.name for p in COMMANDS[command].params} - PLACES


@pytest.mark.usefixtures("untimed")
class TestPrune:
    def test_a_model_in_memory_is_cut_as_its_file_is(self, model, tmp_path):
        before = model.SerializeToString()
        held = onnxprune.prune(model, {"input": X}, **QUICK)
        np.savez(tmp_path / "x.npz", input=X)
        filed = onnxprune.prune(str(MLP), tmp_path / "x.npz", **QUICK)
        assert held.model == filed.model
        assert held.report.ratios.macs <= 0.6
        assert model.SerializeToString() == before
        validate(to_json(held.report), "onnxprune-report/1", "report")
        assert held.report.options["data"] == "(in memory)"

    def test_forms_of_data(self, model):
        whole = onnxprune.prune(model, X, **QUICK)
        assert onnxprune.prune(model, {"input": X}, **QUICK).model == whole.model
        feeds = ({"input": row[None]} for row in X)
        assert 0.4 < onnxprune.prune(model, feeds, **QUICK).report.ratios.macs <= 0.6

    def test_endless_feeds_are_asked_for_no_more_than_needed(self, model):
        given = []

        def feeds():
            while True:
                given.append(len(given))
                yield {"input": X[given[-1] % len(X)][None]}

        onnxprune.prune(model, feeds(), samples=8, **QUICK)
        assert len(given) == 8

    def test_labels_are_an_array_or_a_key(self, model):
        drops = [
            onnxprune.prune(model, {"input": X, "labels": LABELS}, labels=labels, **QUICK)
            for labels in (LABELS, "labels")
        ]
        assert [d.report.drop.metric for d in drops] == ["accuracy"] * 2
        assert drops[0].report.drop == drops[1].report.drop

    def test_save_apply_and_verify(self, model, tmp_path):
        made = onnxprune.prune(MLP, X, **QUICK)
        made.save(tmp_path / "out.onnx")
        made.plan.save(tmp_path / "plan.json")
        assert onnx.load(tmp_path / "out.onnx") == made.model
        again = onnxprune.apply(MLP, tmp_path / "plan.json", X)
        assert again.model == made.model
        assert onnxprune.verify(MLP, made.model, made.plan, X).ok
        assert not onnxprune.verify(MLP, MLP, made.plan, X).ok
        with pytest.raises(onnxprune.UsageError, match="exists"):
            made.save(tmp_path / "out.onnx")
        made.save(tmp_path / "out.onnx", force=True)

    def test_what_cannot_be_had_says_the_nearest(self, model):
        with pytest.raises(onnxprune.BudgetError) as caught:
            onnxprune.prune(model, X, macs=0.01)
        assert 0.01 < caught.value.nearest["macs"] < 0.5


def test_inspect_and_sensitivity(model):
    assert [g.channels for g in onnxprune.inspect(model).groups] == [
        g.channels for g in pipeline.inspect(MLP, api.Options()).groups
    ]
    ranked = onnxprune.sensitivity(model, X, method="gradient", exclude="no such")
    assert {g.method for g in ranked.groups} == {"gradient"}
    assert ranked.source == "<model in memory>"


def test_bench(model):
    report = onnxprune.bench(model, MLP, X, batch=4, pairs=2, runs=2, warm_up=1)
    assert tuple(report.models) == ("<model in memory>", str(MLP))
    assert report.ratio > 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mac": 0.5}, "UsageError", "prune has no option 'mac'; did you mean 'macs'"),
        ({"batch": 5}, "UsageError", "prune has no option 'batch'"),
        ({"macs": "0.5"}, "UsageError", "--macs 0.5 is not between 0 and 1"),
        ({"macs": 1.5}, "UsageError", "--macs 1.5 is not between 0 and 1"),
        ({"confidence": 95}, "UsageError", "--confidence 95"),
        ({"max_drop": -1}, "UsageError", "--max-drop -1 is no drop of at least 0"),
        ({"max_drop": float("inf")}, "UsageError", "--max-drop inf is no drop of at least 0"),
        ({"samples": 0}, "UsageError", "--samples 0"),
        ({"samples": 2.5}, "UsageError", "--samples 2.5 is not a whole number"),
        ({"multiple_of": 0}, "UsageError", "--multiple-of 0"),
        ({"method": "guess"}, "UsageError", "--method guess is not known"),
        ({"dim": {"n": 3}}, "UsageError", "no input has a dimension named 'n'"),
        ({"data": 5}, "InputError", "data is int"),
        ({"data": [X]}, "InputError", "feed 0 of data is ndarray"),
        ({"data": []}, "InputError", "data gave no feeds"),
        ({"data": {"input": X[:, :5]}}, "InputError", "data: 'input' has size 5 on axis 1"),
        ({"data": {"wrong": X}}, "InputError", "data has no data for input 'input'"),
        ({"data": X, "labels": LABELS[:5]}, "InputError", "holds 5 labels"),
        ({"data": "no.npz"}, "InputError", "no.npz does not exist"),
        ({"model": "no.onnx"}, "InputError", "there is no such file"),
        ({"model": b"bytes"}, "InputError", "a model is a path or an onnx.ModelProto, not bytes"),
        ({"model": onnx.ModelProto()}, "InputError", "holds no graph"),
    ],
    ids=str,
)
def test_what_cannot_be_used(options, error, message):
    given = {"model": MLP, "macs": 0.5, **options}
    with pytest.raises(getattr(onnxprune, error)) as caught:
        onnxprune.prune(given.pop("model"), **given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_in_memory_must_hold_its_data(tmp_path):
    whole = onnx.load(nets.MODELS / "digits_mobile.onnx")
    onnx.save(whole, tmp_path / "in.onnx", save_as_external_data=True, size_threshold=0)
    hollow = onnx.load(tmp_path / "in.onnx", load_external_data=False)
    with pytest.raises(onnxprune.InputError, match="give the path of the model's file"):
        onnxprune.inspect(hollow)
    assert onnxprune.inspect(tmp_path / "in.onnx", verify=False).groups


def test_an_array_needs_a_model_with_one_input():
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "two",
        [value(name, TensorProto.FLOAT, ["n", 4]) for name in "ab"],
        [value("y", TensorProto.FLOAT, ["n", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(onnxprune.InputError, match="the model has 'a', 'b'; give a dict of them"):
        onnxprune.inspect(model, np.ones((3, 4), np.float32))


def test_names_do_not_depend_on_what_was_imported_before():
    script = (
        "import onnxprune.bench.table, onnxprune.sensitivity.values, sys, onnxprune\n"
        "print([callable(getattr(onnxprune, name)) for name in onnxprune.__all__])\n"
    )
    root = Path(onnxprune.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
    )
    assert done.stdout.strip() == str([True] * len(onnxprune.__all__))
    with pytest.raises(AttributeError, match="no attribute 'prun'"):
        _ = onnxprune.prun
