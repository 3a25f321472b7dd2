"""Whole branches go where they do little, and only there; the plan can be repeated and checked."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxprune import pipeline
from onnxprune.data.splits import split_samples
from onnxprune.errors import BudgetError, InputError
from onnxprune.layers.branches import dead_nodes, find_branches, stand_ins, without
from onnxprune.options import Options
from onnxprune.plan import Plan
from onnxprune.search import depth
from tests import nets

IDLE = "/2/second/second.0/Conv"  # its branch does next to nothing in the model below
DATA = nets.MODELS / "digits_images.npz"
CHOICES = {"macs": 0.75, "samples": 64, "data": DATA, "time_limit": 10.0}


def idle_model():
    model = onnx.load(nets.MODELS / "digits_resnet.onnx")
    node = next(n for n in model.graph.node if n.name == IDLE)
    weight = next(t for t in model.graph.initializer if t.name == node.input[1])
    small = numpy_helper.to_array(weight) * np.float32(0.01)
    weight.CopyFrom(numpy_helper.from_array(small, weight.name))
    return model


def with_function(model):
    """Make the idle branch the call of a function."""
    inner = [n for n in model.graph.node if n.name in {"/2/first/first.0/Conv", "/2/Relu", IDLE}]
    made = {name for node in inner for name in node.output}
    read = list(dict.fromkeys(v for n in inner for v in n.input if v not in made))
    given = [helper.make_opsetid("", model.opset_import[0].version)]
    function = helper.make_function("own", "Branch", read, inner[-1].output, inner, given)
    call = helper.make_node("Branch", read, inner[-1].output, name="call", domain="own")
    nodes = [call if n.name == inner[0].name else n for n in model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(n for n in nodes if n not in inner)
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def in_half_precision(model):
    return convert_float_to_float16(model, keep_io_types=True)


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    """A network with an idle branch, and what becomes of it."""
    folder = tmp_path_factory.mktemp("idle")
    onnx.save(idle_model(), folder / "in.onnx")
    report = pipeline.run(
        folder / "in.onnx", folder / "out.onnx", Options(**CHOICES), save_plan=folder / "plan.json"
    )
    return folder, report


def test_an_idle_branch_goes(idle):
    folder, report = idle
    assert IDLE in report.removed_nodes
    assert report.ratios.macs <= 0.75
    widths = {group.name: group.after for group in report.groups}
    assert widths["/2/first/first.0/Conv"] == 0
    assert not {n.name for n in onnx.load(folder / "out.onnx").graph.node} & {*report.removed_nodes}
    assert any("branches gone" in warning for warning in report.warnings)


def test_it_is_repeated_and_checked(idle):
    folder, report = idle
    again = pipeline.apply(
        folder / "in.onnx", folder / "again.onnx", folder / "plan.json", Options(data=DATA)
    )
    assert (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()
    assert again.removed_nodes == report.removed_nodes
    checked = pipeline.verify(
        folder / "in.onnx", folder / "out.onnx", folder / "plan.json", Options()
    )
    assert checked.ok
    other = pipeline.verify(folder / "in.onnx", folder / "in.onnx", folder / "plan.json", Options())
    assert not other.ok


@pytest.mark.parametrize("changed", [with_function, in_half_precision])
def test_it_goes_from_functions_and_other_types(changed):
    model = changed(idle_model())
    result = pipeline.prune(model, Options(**CHOICES))
    assert any(name.endswith(IDLE) for name in result.report.removed_nodes)
    assert pipeline.verify(model, result.model, result.plan, Options()).ok


def test_it_goes_where_widths_alone_are_not_enough():
    few = {**CHOICES, "exclude": ("/0*", "/3*", "/5*"), "macs": 0.48}
    with pytest.raises(BudgetError, match=r"the nearest is macs 0\.498"):
        pipeline.prune(idle_model(), Options(**few, branches=False))
    result = pipeline.prune(idle_model(), Options(**few))
    assert result.report.ratios.macs <= 0.48
    assert IDLE in result.report.removed_nodes


def test_a_ratio_that_branches_do_not_reach_either():
    few = {**CHOICES, "exclude": ("/0*", "/3*", "/5*"), "macs": 0.3}
    with pytest.raises(BudgetError, match=r"the nearest is macs 0\.471"):
        pipeline.prune(idle_model(), Options(**few))


def test_what_is_excluded_keeps_its_branch():
    found = nets.digits("digits_resnet", samples=8)
    branches = find_branches(found.view, found.traces[0], found.coupling)
    feeds = list(found.samples.feeds(range(8), 8))
    first, *_ = stand_ins(found.view, branches, feeds)
    dead = dead_nodes(found.view, without(found.view.model, [first]))
    assert depth._kept(dead, (IDLE,))
    assert depth._kept(dead, ("/2/first/*",))
    assert depth._kept(dead, ("op:Relu",))
    assert not depth._kept(dead, ("/3/*", "op:Gemm"))


@pytest.mark.parametrize("choices", [{"branches": False}, {"recover": False}])
def test_branches_stay_on_request(choices):
    workshop = SimpleNamespace(
        found=SimpleNamespace(samples=SimpleNamespace(synthetic=False)),
        splits=split_samples(64, 0),
        options=Options(**choices),
    )
    assert depth.spared(workshop, None, None) == []


def test_a_plan_of_branches_that_are_not_there(idle):
    folder, _ = idle
    content = json.loads((folder / "plan.json").read_text())
    content["branches"][0]["branch"]["value"] = "nowhere"
    with pytest.raises(InputError, match="nowhere ends in no sum"):
        pipeline.replay(folder / "in.onnx", Plan(content), Options())
