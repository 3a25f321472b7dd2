"""Which metric judges which output."""

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.errors import UsageError
from onnxprune.model.frontier import float_frontier
from onnxprune.model.view import build_view
from onnxprune.quality.automatic import class_axis, guess
from onnxprune.quality.choice import choose_measures, user_function
from onnxprune.runtime.trace import trace
from tests import nets


def looked(net, folder, *outputs, types=None):
    """Build and run: (view, trace, frontier)."""
    view = build_view(net.model({"x": (2, 8)}, *outputs, types=types), folder)
    seen = trace(view, {"x": np.ones((2, 8), np.float32)})
    return view, seen, float_frontier(view, seen)


def shaped(net, shape, name, last="Identity", **attributes):
    """Add an output of a shape (behind the samples) and a name."""
    y = net.op("Gemm", "x", net.weight(8, int(np.prod(shape))))
    y = net.op("Reshape", y, net.const(np.array([-1, *shape])))
    net.op(last, y, **attributes)
    net.nodes[-1].output[0] = name
    return name


def guessed(folder, name, shape=(10,), last="Identity", **attributes):
    net = nets.Net()
    shaped(net, shape, name, last, **attributes)
    view, seen, _ = looked(net, folder, name)
    return guess(view, seen, name)


@pytest.mark.parametrize(
    "name",
    [
        "logits", "output", "output_0", "scores", "class_probs", "predictions", "dense_2",
        "1459", "y", "Identity:0", "Identity_1:0", "StatefulPartitionedCall:0", "model/Softmax",
    ],
)  # fmt: skip
def test_names_that_say_classes(name, tmp_path):
    assert guessed(tmp_path, name) == "agreement"


@pytest.mark.parametrize(
    "name",
    ["embedding", "last_hidden_state", "pooler_output", "image_features", "boxes", "mask", "z"],
)
def test_names_that_do_not(name, tmp_path):
    assert guessed(tmp_path, name) == "relative_l2"


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
def test_softmax_needs_no_name(last, tmp_path):
    assert guessed(tmp_path, "z", last=last) == "agreement"


@pytest.mark.parametrize("last", ["Relu", "Tanh", "LpNormalization"])
def test_features_with_a_name_that_says_nothing(last, tmp_path):
    assert guessed(tmp_path, "250", last=last) == "relative_l2"
    assert guessed(tmp_path, "logits", last=last) == "agreement"


@pytest.mark.parametrize(
    ("first", "metric"), [("Identity", "relative_l2"), ("Exp", "agreement")], ids=str
)
def test_features_over_their_norm_and_softmax_written_out(first, metric, tmp_path):
    net = nets.Net()
    y = net.op(first, net.op("Gemm", "x", net.weight(8, 10)))
    how = "ReduceSum" if first == "Exp" else "ReduceL2"
    axes = [net.const(np.array([1]))] if first == "Exp" else []
    net.op("Div", y, net.op(how, y, *axes, **({} if axes else {"axes": [1]})))
    net.nodes[-1].output[0] = output = "output"
    view, seen, _ = looked(net, tmp_path, output)
    assert guess(view, seen, output) == metric


@pytest.mark.parametrize("shape", [(5, 10), (1,), (3, 4, 4), (4, 4)])
def test_other_ranks_and_single_scores_are_no_classes(shape, tmp_path):
    assert guessed(tmp_path, "logits", shape) == "relative_l2"


def test_masks_by_name_or_softmax_over_pixels(tmp_path):
    assert guessed(tmp_path, "mask", (1, 4, 4)) == "mean_iou"
    assert guessed(tmp_path, "z", (3, 4, 4), "Softmax", axis=1) == "mean_iou"
    assert guessed(tmp_path, "image", (3, 4, 4)) == "relative_l2"


def test_dense_classes_before_argmax_on_the_last_axis(tmp_path):
    net = nets.Net()
    y = shaped(net, (4, 4, 3), "z")
    classes = net.op("ArgMax", y, axis=-1)
    view, seen, found = looked(net, tmp_path, classes, types={classes: TensorProto.INT64})
    assert found == ("z",)
    assert guess(view, seen, "z") == "mean_iou"
    assert class_axis(view, seen, "z") == 3
    (measure,) = choose_measures(view, seen, found, (), labels=False)
    assert (measure.metric, measure.axis, measure.weight) == ("mean_iou", -1, 1.0)


@pytest.fixture
def two(tmp_path):
    """A model with class scores and boxes."""
    net = nets.Net()
    names = [shaped(net, (10,), "scores"), shaped(net, (6, 4), "boxes")]
    return looked(net, tmp_path, *names)


def metrics(measures):
    return {m.output: (m.metric, round(m.weight, 3)) for m in measures}


def test_outputs_are_guessed_one_by_one_and_count_alike(two):
    found = metrics(choose_measures(*two, (), labels=False))
    assert found == {"scores": ("agreement", 0.5), "boxes": ("relative_l2", 0.5)}


def test_one_metric_for_all_or_by_output_with_weights(two):
    assert metrics(choose_measures(*two, ("cosine",), labels=False)) == {
        "scores": ("cosine", 0.5),
        "boxes": ("cosine", 0.5),
    }
    assert metrics(choose_measures(*two, ("boxes=cosine*3",), labels=False)) == {
        "scores": ("agreement", 0.25),
        "boxes": ("cosine", 0.75),
    }
    assert metrics(choose_measures(*two, ("kl", "boxes=relative_l2*0"), labels=False)) == {
        "scores": ("kl", 1.0)
    }


def test_labels_judge_the_class_scores_alone(two):
    assert metrics(choose_measures(*two, (), labels=True)) == {"scores": ("accuracy", 1.0)}


@pytest.mark.parametrize(
    ("entries", "labels", "message"),
    [
        (("agrement",), False, "'agrement' is no metric.*agreement"),
        (("box=kl",), False, "'box' is not measured.*'boxes'"),
        (("kl", "cosine"), False, "two metrics for all"),
        (("boxes=kl", "boxes=cosine"), False, "a metric already"),
        (("kl*-1",), False, "weight '-1'"),
        (("kl*much",), False, "weight 'much'"),
        (("kl*0",), False, "weight of 0"),
        (("accuracy",), False, "needs --labels"),
        (("kl",), True, "no use"),
    ],
)
def test_what_cannot_be_meant(two, entries, labels, message):
    with pytest.raises(UsageError, match=message):
        choose_measures(*two, entries, labels=labels)


def test_labels_for_two_heads_need_to_be_told_which(tmp_path):
    net = nets.Net()
    names = [shaped(net, (10,), "score_a"), shaped(net, (4,), "score_b")]
    found = looked(net, tmp_path, *names)
    with pytest.raises(UsageError, match="2 outputs look like class scores"):
        choose_measures(*found, (), labels=True)
    chosen = choose_measures(*found, ("score_a=accuracy", "score_b=kl*0"), labels=True)
    assert metrics(chosen) == {"score_a": ("accuracy", 1.0)}


def test_a_function_judges_alone():
    assert user_function(("mine.py:loss",)) == "mine.py:loss"
    assert user_function(("kl",)) is None
    with pytest.raises(UsageError, match="no other"):
        user_function(("mine.py:loss", "kl"))


def test_the_projects_models_have_classes():
    for name in nets.DATA:
        found = nets.digits(name)
        trace_ = found.traces[0]
        chosen = choose_measures(
            found.view, trace_, float_frontier(found.view, trace_), (), labels=False
        )
        assert [m.metric for m in chosen] == ["agreement"], name
