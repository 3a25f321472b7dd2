"""A cut that is wrong in any way is told from one that is right."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.coupling.keeps import keep_masks
from onnxprune.errors import InputError
from onnxprune.rewrite.verify import LOOSEST, TOLERANCE, Verifier, relative_error
from tests.coupling.nets import Net, look


def _mlp(norm=False):
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="a")
    if norm:
        x = net.op("LayerNormalization", x, net.weight(8), net.weight(8))
    x = net.op("Relu", net.linear(net.op("Sigmoid", x), 8, 6, name="b"))
    net.output(net.linear(x, 6, 3, name="out"))
    return look(net)


def _right(looked, removed=(0, 3)):
    channels = [(looked.group("a"), list(removed))]
    keeps = keep_masks(channels, looked.coupling.collected.sizes)
    return looked.cut(channels), keeps


def _weight(model, shape):
    return next(t for t in model.graph.initializer if tuple(t.dims) == shape)


@pytest.mark.parametrize("norm", [False, True])
def test_right_cut_is_proven(norm):
    looked = _mlp(norm)
    assert looked.group("a").exact is not norm
    assert looked.verifier.error(*_right(looked)) <= TOLERANCE


def test_weight_sliced_elsewhere_is_caught():
    looked = _mlp()
    model, keeps = _right(looked)
    whole = next(t for t in looked.model.graph.initializer if tuple(t.dims) == (8, 6))
    wrong = np.delete(numpy_helper.to_array(whole), [1, 2], axis=0)
    tensor = _weight(model, (6, 6))
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    assert looked.verifier.error(model, keeps) > 100 * TOLERANCE


def test_other_channels_than_said_are_caught():
    looked = _mlp()
    model, _ = _right(looked, (0, 3))
    _, keeps = _right(looked, (0, 4))
    assert looked.verifier.error(model, keeps) > 100 * TOLERANCE


def test_unchanged_model_is_no_cut():
    looked = _mlp()
    _, keeps = _right(looked)
    assert looked.verifier.error(looked.model, keeps) > 100 * TOLERANCE


def test_whole_model_equals_itself():
    looked = _mlp()
    assert looked.verifier.error(looked.model, {}) == 0.0


def test_model_that_does_not_run_is_infinitely_wrong():
    looked = _mlp()
    model, keeps = _right(looked)
    tensor = _weight(model, (6, 6))
    wrong = np.zeros((7, 6), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    assert looked.verifier.error(model, keeps) == float("inf")


def test_model_that_does_not_load_is_infinitely_wrong():
    looked = _mlp()
    model, keeps = _right(looked)
    model.graph.node[0].input[0] = "nowhere"
    assert looked.verifier.error(model, keeps) == float("inf")


def test_nan_is_infinitely_wrong():
    looked = _mlp()
    model, keeps = _right(looked)
    tensor = _weight(model, (6, 3))
    tensor.CopyFrom(numpy_helper.from_array(np.full((6, 3), np.nan, np.float32), tensor.name))
    assert looked.verifier.error(model, keeps) == float("inf")


def test_missing_output_is_infinitely_wrong():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="a")
    net.output(net.linear(x, 8, 3, name="first"), net.linear(x, 8, 2, name="second"))
    looked = look(net)
    model, keeps = _right(looked)
    assert looked.verifier.error(model, keeps) <= TOLERANCE
    second = model.graph.output.pop().name
    del model.graph.node[[n.name for n in model.graph.node].index(second)]
    assert looked.verifier.error(model, keeps) == float("inf")


def test_class_numbers_are_compared_before_they_jump():
    """Behind an ArgMax there is no distance: what it reads is compared."""
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="a")
    net.output(net.op("ArgMax", net.linear(x, 8, 3, name="out"), axis=1))
    looked = look(net)
    model, keeps = _right(looked)
    assert looked.verifier.error(model, keeps) <= TOLERANCE
    tensor = _weight(model, (6, 3))
    slightly = numpy_helper.to_array(tensor) * np.float32(1.001)  # the same classes win
    tensor.CopyFrom(numpy_helper.from_array(slightly, tensor.name))
    assert looked.verifier.error(model, keeps) > TOLERANCE


def test_model_that_answers_by_chance_is_refused():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="a")
    noise = net.op("RandomNormalLike", x)
    net.output(net.linear(net.op("Add", x, noise), 8, 3, name="out"))
    with pytest.raises(InputError, match="different outputs for the same input"):
        look(net)


def test_model_without_a_finite_output_is_refused():
    net = Net()
    x = net.op(
        "Add", net.linear(net.input("n", 5), 5, 8, name="a"), net.constant(np.float32("nan"))
    )
    net.output(net.linear(x, 8, 3, name="out"))
    with pytest.raises(InputError, match="no finite value"):
        look(net)


@pytest.mark.parametrize(
    ("noise", "error", "agrees"),
    [
        (0.0, 0.9 * TOLERANCE, True),
        (0.0, 1.1 * TOLERANCE, False),
        (4 * TOLERANCE, 3 * TOLERANCE, True),
        (4 * TOLERANCE, 5 * TOLERANCE, False),
        (1.0, 0.9 * LOOSEST, True),
        (1.0, 1.1 * LOOSEST, False),
        (1.0, float("inf"), False),
    ],
)
def test_cut_may_be_off_by_the_networks_own_rounding(monkeypatch, noise, error, agrees):
    monkeypatch.setattr(Verifier, "_noise", lambda *_: noise)
    verifier = _mlp().verifier
    told = verifier.objection(error, {})
    assert (told == "") is agrees
    assert ("as rounding alone" in told) is (not agrees and noise > LOOSEST and error < 1)
    beyond = agrees and error > TOLERANCE
    assert verifier.noisiest == (min(noise, LOOSEST) if beyond else 0.0)
    assert ("own fp32 rounding" in verifier.remark()) is beyond


def test_rounding_is_measured_by_running_the_reference_with_other_kernels():
    looked = _mlp(norm=True)
    model, keeps = _right(looked)
    tensor = _weight(model, (6, 3))
    slightly = numpy_helper.to_array(tensor) * np.float32(1.0005)
    tensor.CopyFrom(numpy_helper.from_array(slightly, tensor.name))
    error = looked.verifier.error(model, keeps)
    assert TOLERANCE < error < LOOSEST
    assert looked.verifier.objection(error, keeps) == f"differs from its reference by {error:.2g}"


_ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("found", "wanted", "error"),
    [
        ({"y": _ONES}, {"y": _ONES}, 0.0),
        ({"y": _ONES * 1.5}, {"y": _ONES * 2}, 0.25),
        ({"y": _ONES}, {"y": _ONES * 0}, 1.0),
        ({"y": _ONES}, {"z": _ONES}, float("inf")),
        ({"y": _ONES}, {"y": _ONES, "z": _ONES}, float("inf")),
        ({"y": _ONES[:1]}, {"y": _ONES}, float("inf")),
        ({"y": _ONES.astype(np.float64)}, {"y": _ONES}, float("inf")),
        ({"y": _ONES * np.nan}, {"y": _ONES}, float("inf")),
        ({"y": _ONES}, {"y": _ONES * np.inf}, float("inf")),
        ({"y": _ONES * -np.inf}, {"y": _ONES * np.inf}, float("inf")),
        ({"y": np.array([1, 2])}, {"y": np.array([1, 2])}, 0.0),
        ({"y": np.array([1, 3])}, {"y": np.array([1, 2])}, float("inf")),
        ({"y": np.array([True])}, {"y": np.array([False])}, float("inf")),
        ({"y": _ONES[:0]}, {"y": _ONES[:0]}, 0.0),
    ],
)
def test_relative_error(found, wanted, error):
    assert relative_error(found, wanted) == pytest.approx(error)


def test_gate_passes_over_infinities():
    """A removed channel that is infinite must be gone, not NaN: gates select, they do not scale."""
    net = Net()
    x = net.op("Log", net.op("Relu", net.linear(net.input("n", 5), 5, 8, name="a")))
    first = net.nodes[0].input[1]
    net.output(net.op("Relu", net.linear(x, 8, 3, name="out")))
    model = net.model()
    array = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == first))
    array = np.abs(array)
    array[:, 0] = 0  # Log(0) = -inf, on the removed channel only
    tensor = next(t for t in model.graph.initializer if t.name == first)
    tensor.CopyFrom(numpy_helper.from_array(array, first))
    positive = helper.make_node("Abs", ["x"], ["abs"], name="abs")
    model.graph.node.insert(0, positive)
    model.graph.node[1].input[0] = "abs"
    onnx.checker.check_model(model)
    looked = look(model)
    assert looked.verifier.error(*_right(looked, (0,))) <= TOLERANCE
