"""Bodies looked into: shapes of the first turn, what varies, how often they are entered."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.model.view import build_view
from onnxprune.runtime.trace import agree, trace

_INT, _BOOL, _FLOAT = TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT


def _value(name, kind=_FLOAT, shape=None):
    return helper.make_tensor_value_info(name, kind, shape)


def _model(*nodes, outputs=("y",)):
    graph = helper.make_graph(
        list(nodes), "g", [_value("x", _FLOAT, ["n", 3])], [_value(o) for o in outputs]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _loop(*nodes, state="x", turns="m"):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), *nodes],
        "b",
        [_value("i", _INT, []), _value("c", _BOOL, []), _value("h")],
        [_value("d", _BOOL, []), _value("t")],
    )
    return helper.make_node("Loop", [turns, "", state], ["y"], name="loop", body=body)


def _count(number):
    tensor = helper.make_tensor("m", _INT, [], [number])
    return helper.make_node("Constant", [], ["m"], value=tensor)


def traced(model, n=2):
    view = build_view(model, Path())
    return view, trace(view, {"x": np.ones((n, 3), np.float32)})


@pytest.mark.parametrize("turns", [0, 1, 4])
def test_turns_of_a_loop_are_counted_and_its_values_seen(turns):
    view, seen = traced(_model(_count(turns), _loop(helper.make_node("Relu", ["h"], ["t"]))))
    (loop,) = (node for node in view.nodes if node.op_type == "Loop")
    assert seen.turns[loop.index] == {"body": turns}
    assert seen.shapes["loop/body/h"] == seen.shapes["loop/body/t"] == (2, 3)
    assert not seen.varying


def test_a_loop_that_ends_by_itself():
    """h doubles until it passes 10: 1, 2, 4, 8, 16."""
    body = [
        helper.make_node("Add", ["h", "h"], ["t"]),
        helper.make_node("ReduceMax", ["t"], ["top"], keepdims=0),
        helper.make_node("Less", ["top", "ten"], ["d"]),
    ]
    loop = _loop(*body, turns="")
    del loop.attribute[0].g.node[0]
    ten = helper.make_node("Constant", [], ["ten"], value_float=10.0)
    view, seen = traced(_model(ten, loop))
    (node,) = (node for node in view.nodes if node.op_type == "Loop")
    assert seen.turns[node.index] == {"body": 4}
    assert "loop/body/top" in seen.shapes
    assert "loop/body/top" not in seen.values, "another number in every turn"


def test_axes_that_grow_are_told():
    grow = helper.make_node("Concat", ["h", "x"], ["t"], axis=0)
    _, seen = traced(_model(_count(3), _loop(grow)))
    assert seen.varying == {("loop/body/h", 0), ("loop/body/t", 0)}
    assert seen.shapes["loop/body/t"] == (4, 3)


def _branches(then, other):
    flag = helper.make_node("Constant", [], ["flag"], value=helper.make_tensor("f", _BOOL, [], [1]))
    bodies = {
        f"{which}_branch": helper.make_graph([node], which, [], [_value(node.output[0])])
        for which, node in (("then", then), ("else", other))
    }
    return _model(flag, helper.make_node("If", ["flag"], ["y"], name="if", **bodies))


def test_the_branch_not_taken_is_seen_but_not_counted():
    relu, neg = (helper.make_node(op, ["x"], ["r"]) for op in ("Relu", "Neg"))
    view, seen = traced(_branches(relu, neg))
    (node,) = (node for node in view.nodes if node.op_type == "If")
    assert seen.turns[node.index] == {"then_branch": 1, "else_branch": 0}
    assert seen.shapes["if/else_branch/r"] == (2, 3)


def test_a_branch_that_does_not_fit_the_data_stays_unseen():
    relu = helper.make_node("Relu", ["x"], ["r"])
    square = helper.make_node("MatMul", ["x", "x"], ["r"])  # fits three rows only
    _, seen = traced(_branches(relu, square))
    assert "if/then_branch/r" in seen.shapes
    assert "if/else_branch/r" not in seen.shapes


def test_traces_agree_on_what_all_have_seen():
    grow = helper.make_node("Concat", ["h", "x"], ["t"], axis=0)
    model = _model(_count(3), _loop(grow))
    first, second = (traced(model, n)[1] for n in (2, 3))
    partial = type(first)(
        {k: s for k, s in second.shapes.items() if k != "loop/body/t"}, second.dtypes, second.values
    )
    both = agree([first, partial])
    assert both[0].shapes.keys() == both[1].shapes.keys() == first.shapes.keys() - {"loop/body/t"}
    assert both[1].varying == first.varying
