"""The last float tensors before outputs that jump."""

import numpy as np
from onnx import TensorProto, helper

from onnxprune.model.frontier import float_frontier
from onnxprune.model.view import build_view
from onnxprune.runtime.trace import trace
from tests import nets

INTS = TensorProto.INT64


def frontier(net, folder, *outputs, **types):
    model = net.model({"x": (2, 8)}, *outputs, types=types)
    view = build_view(model, folder)
    return float_frontier(view, trace(view, {"x": np.ones((2, 8), np.float32)}))


def test_float_outputs_are_their_own_frontier(tmp_path):
    net = nets.Net()
    a, b = net.op("Relu", "x"), net.op("Neg", "x")
    assert frontier(net, tmp_path, b, a) == (b, a)


def test_class_numbers_lead_back_to_the_scores(tmp_path):
    net = nets.Net()
    scores = net.op("Gemm", "x", net.weight(8, 4))
    top = net.op("ArgMax", scores, axis=1, keepdims=0)
    label = net.op("Gather", net.const(np.arange(4) + 7), top)
    assert frontier(net, tmp_path, label, **{label: INTS}) == (scores,)


def test_label_and_probabilities_of_one_tensor_are_named_once(tmp_path):
    net = nets.Net()
    scores = net.op("Softmax", net.op("Gemm", "x", net.weight(8, 4)))
    top = net.op("ArgMax", scores, axis=1)
    assert frontier(net, tmp_path, top, scores, **{top: INTS}) == (scores,)


def test_values_and_indices_of_topk(tmp_path):
    net = nets.Net()
    scores = net.op("Gemm", "x", net.weight(8, 4))
    best, which = net.ops(2, "TopK", scores, net.const(np.array([2])))
    assert frontier(net, tmp_path, which, **{which: INTS}) == (scores,)
    assert frontier(net, tmp_path, best) == (scores,)


def test_two_tensors_meet_in_one_answer(tmp_path):
    net = nets.Net()
    a, b = net.op("Relu", "x"), net.op("Neg", "x")
    found = frontier(net, tmp_path, net.op("Greater", a, b), v2=TensorProto.BOOL)
    assert found == (a, b)


def test_inputs_and_constants_are_no_answers(tmp_path):
    net = nets.Net()
    y = net.op("Greater", "x", net.const(np.float32(0)))
    assert frontier(net, tmp_path, y, **{y: TensorProto.BOOL}) == ()


def test_maps_and_sequences_lead_back_to_tensors(tmp_path):
    net = nets.Net()
    scores = net.op("Softmax", net.op("Gemm", "x", net.weight(8, 3)))
    zipped = net.op("ZipMap", scores, domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2])
    model = net.model({"x": (2, 8)}, zipped)
    kind = helper.make_map_type_proto(INTS, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(kind))
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    view = build_view(model, tmp_path)
    assert float_frontier(view, trace(view, {"x": np.ones((2, 8), np.float32)})) == (scores,)


def test_half_precision_is_float(tmp_path):
    net = nets.Net()
    y = net.op("Cast", "x", to=TensorProto.FLOAT16)
    assert frontier(net, tmp_path, y, **{y: TensorProto.FLOAT16}) == (y,)


def test_the_digits_perceptron_is_judged_by_its_probabilities():
    found = nets.digits("digits_mlp")
    assert found.view.outputs == ("label", "probabilities")
    names = float_frontier(found.view, found.traces[0])
    assert "label" not in names
    assert all(found.traces[0].shapes[n][1] == 10 for n in names)


def boxes(net):
    """Scores and boxes of 6 anchors each, and what NonMaxSuppression keeps of them."""
    shape = net.const(np.array([0, 1, -1]))
    scores = net.op("Reshape", net.op("Gemm", "x", net.weight(8, 6)), shape)
    places = net.op("Gemm", "x", net.weight(8, 24))
    places = net.op("Reshape", places, net.const(np.array([0, 6, 4])))
    kept = net.op("NonMaxSuppression", places, scores, net.const(np.array([3])))
    return scores, places, kept


def test_boxes_behind_non_max_suppression_lead_back_to_all_of_them(tmp_path):
    net = nets.Net()
    scores, places, kept = boxes(net)
    which = net.op("Gather", kept, net.const(np.array([0, 2])), axis=1)
    chosen = net.op("GatherND", places, which)
    larger = net.op("Mul", chosen, net.const(np.float32(320)))
    assert set(frontier(net, tmp_path, larger)) == {places, scores}


def test_the_best_rows_by_topk_lead_back_to_all_rows(tmp_path):
    net = nets.Net()
    rows = net.op("Reshape", net.op("Gemm", "x", net.weight(8, 24)), net.const([0, 6, 4]))
    scores = net.op("ReduceMax", rows, axes=[2], keepdims=0)
    _, which = net.ops(2, "TopK", scores, net.const(np.array([2])))
    best = net.op("GatherElements", scores, which, axis=1)
    assert frontier(net, tmp_path, best) == (scores,)


def test_rows_picked_by_a_condition_lead_back_to_all_rows(tmp_path):
    net = nets.Net()
    rows = net.op("Gemm", "x", net.weight(8, 4))
    first = net.op("Gather", rows, net.const(np.asarray(0)), axis=1)
    positive = net.op("Greater", first, net.const(np.float32(0)))
    picked = net.op("Compress", rows, positive, axis=0)
    assert set(frontier(net, tmp_path, picked)) == {rows, first}


def test_weights_behind_a_choice_are_measured(tmp_path):
    """A second stage on chosen rows: going back past its weights would let them be cut unseen."""
    net = nets.Net()
    rows = net.op("Gemm", "x", net.weight(8, 4))
    _, which = net.ops(2, "TopK", rows, net.const(np.array([2])))
    chosen = net.op("Cast", which, to=TensorProto.FLOAT)
    second = net.op("MatMul", chosen, net.weight(2, 3))
    assert frontier(net, tmp_path, net.op("Relu", second)) == (second,)


def test_a_router_whose_rows_come_back_in_place_is_its_own_answer(tmp_path):
    """Gates of the two best of four experts, put back where they belong, weigh all experts."""
    net = nets.Net()
    gates = net.op("Gemm", "x", net.weight(8, 4))
    best, which = net.ops(2, "TopK", gates, net.const(np.array([2])))
    zeros = net.op("Mul", gates, net.const(np.float32(0)))
    sparse = net.op("ScatterElements", zeros, which, best, axis=1)
    mixed = net.op("Mul", sparse, gates)
    assert frontier(net, tmp_path, mixed) == (mixed,)


def test_the_best_one_alone_stays_where_it_is(tmp_path):
    net = nets.Net()
    scores = net.op("Gemm", "x", net.weight(8, 4))
    best, _ = net.ops(2, "TopK", scores, net.const(np.array([1])))
    assert frontier(net, tmp_path, best) == (best,)
