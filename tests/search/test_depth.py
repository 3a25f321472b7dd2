"""Whole branches go where they do little, and only there; the plan can be repeated and checked."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from onnxprune import pipeline
from onnxprune.data.splits import split_samples
from onnxprune.errors import BudgetError, InputError
from onnxprune.options import Options
from onnxprune.plan import Plan
from onnxprune.search import depth
from onnxprune.selection.budget import Budget
from tests import nets
from tests.clock import stop

FIRST, IDLE = "Conv_7", "Conv_9"  # of a branch that does next to nothing in the model below
PICTURES = np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)
CHOICES = {"macs": 0.6, "data": {"x": PICTURES}}
pytestmark = pytest.mark.usefixtures("untimed")


def idle_model():
    """Two residual blocks, of which the second does next to nothing."""
    net = nets.Net(1)

    def conv(x, size, channels, scale=1.0):
        weight = net.rng.standard_normal((channels, size, 3, 3)).astype(np.float32)
        return net.op("Conv", x, net.const(np.float32(scale) * weight), pads=[1] * 4)

    total = net.op("Relu", conv("x", 3, 8))
    for scale in (0.1, 0.001):
        inner = net.op("Relu", conv(total, 8, 6))
        total = net.op("Relu", net.op("Add", total, conv(inner, 6, 8, scale)))
    flat = net.op("Flatten", net.op("GlobalAveragePool", total))
    hidden = net.op("Relu", net.linear(flat, 8, 8))
    return net.model(nets.IMAGES, net.linear(hidden, 8, 4))


def with_function(model):
    """Make the idle branch the call of a function."""
    inner = [n for n in model.graph.node if n.name in {FIRST, "Relu_8", IDLE}]
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
    plan = folder / "plan.json"
    with pytest.MonkeyPatch.context() as patch:
        stop(patch)
        report = pipeline.run(
            folder / "in.onnx",
            folder / "out.onnx",
            Options(**CHOICES),
            save_plan=plan,
            pareto=folder / "front",
        )
    return folder, report


def test_an_idle_branch_goes(idle):
    folder, report = idle
    assert IDLE in report.removed_nodes
    assert report.ratios.macs <= 0.6
    widths = {group.name: group.after for group in report.groups}
    assert widths[FIRST] == 0
    assert not {n.name for n in onnx.load(folder / "out.onnx").graph.node} & {*report.removed_nodes}
    assert any("branches gone" in warning for warning in report.warnings)


def test_it_is_repeated_and_checked(idle):
    folder, report = idle
    again = pipeline.apply(
        folder / "in.onnx",
        folder / "again.onnx",
        folder / "plan.json",
        Options(data={"x": PICTURES}),
    )
    assert (folder / "again.onnx").read_bytes() == (folder / "out.onnx").read_bytes()
    assert again.removed_nodes == report.removed_nodes
    checked = pipeline.verify(
        folder / "in.onnx", folder / "out.onnx", folder / "plan.json", Options()
    )
    assert checked.ok
    other = pipeline.verify(folder / "in.onnx", folder / "in.onnx", folder / "plan.json", Options())
    assert not other.ok


def test_the_front_has_points_without_it(idle):
    folder, report = idle
    points = json.loads((folder / "front" / "front.json").read_text())["points"]
    assert any(abs(point["macs"] - report.ratios.macs) < 1e-9 for point in points)
    shorter = 0
    for point in points:
        plan = folder / "front" / point["plan"]
        made = pipeline.replay(folder / "in.onnx", plan, Options(data={"x": PICTURES})).report
        assert made.ratios.macs == pytest.approx(point["macs"])
        shorter += IDLE in made.removed_nodes
    assert shorter > 1
    assert shorter < len(points)


@pytest.mark.parametrize("changed", [with_function, in_half_precision])
def test_it_goes_from_functions_and_other_types(changed):
    model = changed(idle_model())
    result = pipeline.prune(model, Options(**CHOICES))
    assert any(name.endswith(IDLE) for name in result.report.removed_nodes)
    assert pipeline.verify(model, result.model, result.plan, Options()).ok


def test_it_goes_where_widths_alone_are_not_enough():
    few = {**CHOICES, "exclude": ("Conv_0", "Conv_2"), "macs": 0.6}
    with pytest.raises(BudgetError, match=r"the nearest is macs 0\.629"):
        pipeline.prune(idle_model(), Options(**few, branches=False))
    result = pipeline.prune(idle_model(), Options(**few))
    assert result.report.ratios.macs <= 0.6
    assert IDLE in result.report.removed_nodes


def test_a_ratio_that_branches_do_not_reach_either():
    few = {**CHOICES, "exclude": ("Conv_0", "Conv_2"), "macs": 0.3}
    with pytest.raises(BudgetError, match=r"the nearest is macs 0\.555"):
        pipeline.prune(idle_model(), Options(**few))


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        ((), {"Add_5", "Add_10"}),
        ((IDLE,), {"Add_5"}),
        (("Conv_?",), set()),
        (("op:Relu",), set()),
        (("op:MatMul",), {"Add_5", "Add_10"}),
    ],
)
def test_what_is_excluded_keeps_its_branch(patterns, left, tmp_path):
    found = nets.look(idle_model(), tmp_path)
    options = Options(exclude=patterns)
    workshop = SimpleNamespace(found=found, splits=split_samples(16, 0), options=options)
    ranked = depth._ranked(workshop, Budget({"macs": 0.5}, found.costs.total))
    names = {found.view.producers[one.branch.total].name for one in ranked}
    assert names == left


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


def test_a_branch_may_take_all_groups_with_it(tmp_path):
    net = nets.Net(1)
    inner = net.linear(net.op("Relu", net.linear("x", 16, 64)), 64, 16)
    total = net.op("Add", "x", net.op("Mul", inner, net.const(np.float32(0.001))))
    onnx.save(net.model({"x": ("N", 16)}, net.linear(total, 16, 10)), tmp_path / "in.onnx")
    rows = np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)
    report = pipeline.run(
        tmp_path / "in.onnx", tmp_path / "out.onnx", Options(macs=0.1, data={"x": rows})
    )
    assert [group.after for group in report.groups] == [0]
    left = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "Relu" not in left
