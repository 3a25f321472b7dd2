"""Exported networks with control flow: every group cut alone and all together, and proven."""

from pathlib import Path

import onnx
import pytest

from onnxprune import pipeline
from onnxprune.analysis import analyse
from onnxprune.inspection import inspect_groups
from onnxprune.model.tensors import iter_tensors
from onnxprune.model.view import build_view
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.rewrite.collapse import collapse
from onnxprune.rewrite.prove import prove
from onnxprune.rewrite.verify import TOLERANCE

HERE = Path(__file__).parent
# Sizes of groups, and the share of MACs that they cover.
NETS = {
    "torchscript_loop": ([12, 16], 1.0),
    "torchscript_voice": ([12, 12, 16], 0.6),  # its states are inputs and outputs
    "dynamo_cond": ([12, 16], 1.0),
    "dynamo_scan": ([12, 16], 1.0),
    "dynamo_while": ([16], 1.0),
    "onnxscript_branch": ([12, 16], 1.0),
    "onnxscript_functions": ([12, 16, 16, 16], 1.0),
    "onnxscript_loop": ([12, 16], 1.0),
    "tf2onnx_cond": ([16], 1.0),
    "tf2onnx_gru": ([12, 16], 1.0),
    "tf2onnx_lstm": ([12, 16], 1.0),
    "tf2onnx_rnn": ([12, 16], 1.0),
    "tf2onnx_while": ([16], 1.0),
}


def found_in(name):
    return analyse(HERE / f"{name}.onnx", Options(), Silent())


@pytest.mark.parametrize("name", NETS)
def test_every_group_can_be_cut(name):
    found = found_in(name)
    sizes, share = NETS[name]
    assert sorted(g.size for g in found.coupling.groups) == sizes
    report = inspect_groups(found, found.coupling.groups, verify=True, progress=Silent())
    assert all(info.verified for info in report.groups)
    assert report.coverage.macs >= share
    proven = prove(found, [(g, range(1, g.size, 2)) for g in found.coupling.groups])
    assert proven.error <= TOLERANCE
    assert not proven.guilty
    assert found.verifier.error(proven.model, {}) > 0.01, "the masks matter"
    written = collapse(found.expansion, proven.model).model
    onnx.checker.check_model(written, full_check=True)
    assert _floats(written) < _floats(found.model.proto)


def _floats(model):
    kinds = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    return sum(
        onnx.numpy_helper.to_array(t).size for t in iter_tensors(model) if t.data_type in kinds
    )


@pytest.mark.parametrize(
    ("name", "operator"),
    [
        ("torchscript_loop", "Loop"), ("torchscript_voice", "If"), ("dynamo_cond", "If"),
        ("dynamo_scan", "Scan"), ("dynamo_while", "Loop"),
        ("tf2onnx_cond", "If"), ("onnxscript_branch", "If"), ("onnxscript_loop", "Loop"),
    ],
)  # fmt: skip
def test_weights_that_bodies_read_are_cut(name, operator):
    """A product in a body shrinks, whether its weight lies in the body or outside."""
    found = found_in(name)
    removed = [(g, [0]) for g in found.coupling.groups]
    model = prove(found, removed).model
    inside = [
        n for n in found.view.nodes if n.owner >= 0 and n.op_type in ("MatMul", "Gemm", "Conv")
    ]
    assert {found.view.by_index[n.owner].op_type for n in inside} == {operator}
    after = build_view(model, HERE)
    weights = [(n.inputs[1], after.by_index[n.index].inputs[1]) for n in inside]
    shapes = [
        (found.view.constant(old).shape, after.constant(new).shape)
        for old, new in weights
        if found.view.is_constant(old)
    ]
    assert shapes
    assert all(new != old for old, new in shapes)


@pytest.mark.parametrize("name", ["tf2onnx_rnn", "tf2onnx_lstm", "tf2onnx_gru"])
def test_weights_that_go_round_as_states_are_cut(name):
    """tf2onnx hands weights from turn to turn like states that never change."""
    found = found_in(name)
    model = prove(found, [(g, [0]) for g in found.coupling.groups]).model
    loop = next(n for n in found.view.nodes if n.op_type == "Loop")
    after = build_view(model, HERE)
    pairs = zip(loop.inputs, after.by_index[loop.index].inputs, strict=True)
    weights = [(old, new) for old, new in pairs if found.view.is_constant(old)]
    shapes = [(found.view.constant(o).shape, after.constant(n).shape) for o, n in weights]
    matrices = [(old, new) for old, new in shapes if len(old) == 2]
    assert len(matrices) >= 2
    assert all(new != old for old, new in matrices)


def test_a_loop_costs_its_turns():
    """5 turns of 2 x 16 x 16, between 2 x 8 x 12, 2 x 12 x 16 and 2 x 16 x 4."""
    found = found_in("onnxscript_loop")
    batch = next(iter(found.shapes.values()))[0]
    assert found.costs.total.macs == batch * (8 * 12 + 12 * 16 + 5 * 16 * 16 + 16 * 4)


def test_the_branch_not_taken_costs_nothing():
    found = found_in("onnxscript_branch")
    batch = next(iter(found.shapes.values()))[0]
    taken = found.costs.total.macs / batch - (8 * 12 + 12 * 16 + 16 * 4)
    assert taken in (0, 16 * 16)


def test_folder_is_small_and_names_no_machine():
    files = sorted(HERE.glob("*.onnx"))
    assert [path.stem for path in files] == sorted(NETS)
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        content = path.read_bytes()
        for trace in (b"/home", b"/root", b"/work", b"/tmp", b"/usr/", b"site-packages", b".py"):
            assert trace not in content, (path.name, trace)


@pytest.mark.parametrize("name", ["onnxscript_functions", "torchscript_loop"])
def test_the_whole_way(name, tmp_path, untimed):
    """Run, apply and verify; what is written keeps the functions that the cut leaves alone."""
    source, plan = HERE / f"{name}.onnx", tmp_path / "plan.json"
    options = Options(params=0.7, recover=False)
    report = pipeline.run(source, tmp_path / "a.onnx", options, save_plan=plan)
    pipeline.apply(source, tmp_path / "b.onnx", plan, options)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    checked = pipeline.verify(source, tmp_path / "a.onnx", plan, options)
    assert checked.ok
    assert checked.same_bytes
    assert report.ratios.params <= 0.7
    assert report.after.bytes == (tmp_path / "a.onnx").stat().st_size
    written = onnx.load(tmp_path / "a.onnx")
    if name == "onnxscript_functions":
        assert [n.op_type for n in written.graph.node if n.op_type == "block"] == ["block"]
        assert {"block", "dense"} <= {f.name for f in written.functions}
    else:
        assert any(entry.value.startswith("/Loop/body/") for entry in report.removed)
