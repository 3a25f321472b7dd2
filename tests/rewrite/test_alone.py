"""Groups cut alone are proven where they are, and as strictly as by running the whole model."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.inspection import half
from onnxprune.rewrite import alone, prove
from onnxprune.rewrite.alone import objections
from onnxprune.runtime.session import RunFailedError
from tests import nets
from tests.rewrite.test_prove import _Suspicious

MAKERS = [nets.residual, nets.concat, nets.heads, nets.normed, nets.fused, nets.resized,
          nets.averaged, nets.branching, nets.dead_end]  # fmt: skip
NEVER = "the whole model was run"


def halves(found):
    return [(group, half(group)) for group in found.coupling.groups]


@pytest.fixture
def nothing_else(monkeypatch):
    """Let nothing pass that is not proven in its place."""
    monkeypatch.setattr(alone, "attempt", lambda *_: (1.0, NEVER))


def spoil(monkeypatch, name, change):
    """Have every cut change a constant that it should leave alone."""
    real = prove.cut

    def cut(*given):
        model = real(*given)
        tensor = next(t for t in model.graph.initializer if t.name == name)
        array = change(numpy_helper.to_array(tensor))
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        return model

    monkeypatch.setattr(prove, "cut", cut)
    monkeypatch.setattr(alone, "cut", cut)


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_judged_as_the_whole_model_is(make, tmp_path):
    found = nets.look(make(), tmp_path)
    wanted = [prove.attempt(found, [one])[1] for one in halves(found)]
    assert list(objections(found, halves(found))) == wanted


@pytest.mark.parametrize("make", MAKERS[:-2])  # without bodies, and without what nobody reads
def test_the_whole_model_is_not_run(make, tmp_path, nothing_else):
    found = nets.look(make(), tmp_path)
    assert list(objections(found, halves(found))) == [""] * len(found.coupling.groups)


@pytest.mark.parametrize("name", ["digits_mobile", "digits_vit", "digits_lstm"])
def test_real_networks(name, nothing_else):
    found = nets.digits(name)
    assert not any(objections(found, halves(found)))


def test_little_room_changes_nothing(tmp_path, monkeypatch, nothing_else):
    monkeypatch.setattr(alone, "_ROOM", 0.0)
    found = nets.look(nets.residual(), tmp_path)
    assert list(objections(found, halves(found))) == ["", ""]


def test_values_that_the_original_does_not_give_leave_it_to_the_whole_model(tmp_path, monkeypatch):
    found = nets.look(nets.residual(), tmp_path)

    def refuse(*_):
        raise RunFailedError

    monkeypatch.setattr(alone, "with_outputs", refuse)
    assert list(objections(found, halves(found))) == ["", ""]
    monkeypatch.setattr(alone, "attempt", lambda *_: (1.0, NEVER))
    assert NEVER in objections(found, halves(found))


def test_a_part_is_small(tmp_path):
    """Of a tower, the layer that makes a group and the one that reads it."""
    found = nets.look(nets.mlp(8, 6, 5, 7, 4, 3), tmp_path)
    proof = alone._Proof(found)
    part = proof.part(halves(found)[1])
    assert [n.op_type for n in part.cut.graph.node] == ["Gemm", "Relu", "Gemm"]
    assert {t.name for t in part.masked.graph.initializer} >= {"w2", "w4"}
    assert not {t.name for t in part.masked.graph.initializer} & {"w0", "w6", "w8"}


@pytest.mark.parametrize("name", ["w0", "w2", "w4", "w6", "w8"])
def test_a_cut_that_changes_anything_else_is_found(name, tmp_path, monkeypatch):
    found = nets.look(nets.mlp(8, 6, 5, 7, 4, 3), tmp_path)
    spoil(monkeypatch, name, lambda array: array * np.float32(1.01))
    reasons = list(objections(found, halves(found)))
    assert len(reasons) == 4
    assert all(reason.startswith("differs from its reference by") for reason in reasons)


def test_so_is_one_that_changes_a_node_or_forgets_one(tmp_path, monkeypatch):
    found = nets.look(nets.residual(), tmp_path)
    real = prove.cut

    def change(*given):
        model = real(*given)
        gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
        gemm.attribute.append(onnx.helper.make_attribute("alpha", 2.0))
        return model

    for module in (prove, alone):
        monkeypatch.setattr(module, "cut", change)
    assert all("differs" in reason for reason in objections(found, halves(found)))

    def forget(*given):
        model = real(*given)
        last = next(n for n in reversed(model.graph.node) if n.op_type == "Relu")
        gone = last.output[0]
        model.graph.node.remove(last)
        for node in model.graph.node:
            node.input[:] = [last.input[0] if v == gone else v for v in node.input]
        return model

    for module in (prove, alone):
        monkeypatch.setattr(module, "cut", forget)
    assert all("differs" in reason for reason in objections(found, halves(found)))


def test_what_the_part_does_not_show_decides_nothing(tmp_path, monkeypatch):
    """Where the part differs, the whole model has the last word, and gives the reason."""
    found = nets.look(nets.mlp(8, 6, 5, 3), tmp_path)
    monkeypatch.setattr(alone, "relative_error", lambda *_: 2 * alone._CLOSE)
    assert list(objections(found, halves(found))) == ["", ""]
    found.__dict__["verifier"] = _Doubting(found.verifier, "w0")
    assert list(objections(found, halves(found))) == ["differs from its reference by 0.5", ""]


class _Doubting(_Suspicious):
    @property
    def masked(self):
        return self.verifier.masked
