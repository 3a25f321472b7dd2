"""Functions written out: names, attributes, defaults, bodies, and what cannot be written out."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onnxprune.model.functions import expand
from onnxprune.runtime.session import Session

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]


def function(name, inputs, outputs, *nodes, opsets=_OPSETS, **more):
    return helper.make_function("my", name, inputs, outputs, list(nodes), opsets, **more)


def call(op, inputs, outputs, **attributes):
    return helper.make_node(op, inputs, outputs, domain="my", **attributes)


def referring(op, inputs, outputs, attribute, to):
    """A node whose float attribute is given by the caller."""
    node = helper.make_node(op, inputs, outputs)
    kind = onnx.AttributeProto.FLOAT
    node.attribute.append(onnx.AttributeProto(name=attribute, ref_attr_name=to, type=kind))
    return node


def model_of(nodes, functions, opsets=_OPSETS, initializers=()):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 3]) for n in "xy"]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], list(initializers))
    return helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=9)


def by_onnxruntime(model, feed):
    return Session(model).run(feed)["y"]


def by_reference(model, feed):
    return ReferenceEvaluator(model).run(None, feed)[0]


def same(model, judges=(by_onnxruntime, by_reference)):
    """Expand, and compare under judges; return the expansion."""
    expansion = expand(model)
    feed = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
    for run in judges:
        np.testing.assert_array_equal(run(expansion.model, feed), run(model, feed))
    onnx.checker.check_model(expansion.model, full_check=True)
    return expansion


def test_without_functions_nothing_is_copied():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [])
    expansion = expand(model)
    assert expansion.model is model
    assert expansion.calls == ()


def test_inner_values_are_named_after_the_call():
    inner = function(
        "twice", ["a"], ["b"],
        helper.make_node("Relu", ["a"], ["t"], name="first"),
        helper.make_node("Add", ["t", "t"], ["b"]),
    )  # fmt: skip
    nodes = [
        call("twice", ["x"], ["m"], name="one"),
        call("twice", ["m"], ["y"]),
    ]
    flat = same(model_of(nodes, [inner])).model.graph.node
    assert [n.output[0] for n in flat] == ["one/t", "m", "y/t", "y"]
    assert [n.name for n in flat] == ["one/first", "", "y/first", ""]


def test_attributes_of_the_caller_and_defaults():
    leaky = referring("LeakyRelu", ["a"], ["t"], "alpha", "slope")
    scaled = referring("Elu", ["t"], ["b"], "alpha", "size")
    inner = function(
        "act", ["a"], ["b"], leaky, scaled,
        attributes=["slope"], attribute_protos=[helper.make_attribute("size", 3.0)],
    )  # fmt: skip
    nodes = [call("act", ["x"], ["m"], slope=0.25), call("act", ["m"], ["y"], slope=0.5, size=0.5)]
    flat = same(model_of(nodes, [inner]), (by_onnxruntime,)).model.graph.node
    assert [n.attribute[0].f for n in flat] == [0.25, 3.0, 0.5, 0.5]
    assert not any(a.ref_attr_name for n in flat for a in n.attribute)


def test_absent_inputs_unused_outputs_and_inputs_handed_through():
    inner = function(
        "many", ["a", "low"], ["b", "unused", "a"],
        helper.make_node("Clip", ["a", "low"], ["b"]),
        helper.make_node("Neg", ["a"], ["unused"]),
    )  # fmt: skip
    nodes = [
        call("many", ["x"], ["m", "", "same"], name="c"),
        helper.make_node("Add", ["m", "same"], ["y"]),
    ]
    expanded = expand(model_of(nodes, [inner])).model
    x = np.ones((2, 3), np.float32)  # the standard allows such calls, neither judge runs them
    np.testing.assert_array_equal(by_onnxruntime(expanded, {"x": x}), x + x)
    flat = expanded.graph.node
    assert [(n.op_type, [*n.input], [*n.output]) for n in flat] == [
        ("Identity", ["x"], ["same"]),
        ("Clip", ["x", ""], ["m"]),
        ("Neg", ["x"], ["c/unused"]),
        ("Add", ["m", "same"], ["y"]),
    ]


def test_functions_in_functions_and_in_bodies():
    relu = function("relu", ["a"], ["b"], helper.make_node("Relu", ["a"], ["b"]))
    value = helper.make_tensor_value_info
    branch = helper.make_graph(
        [call("relu", ["a"], ["t"], name="r"), helper.make_node("Neg", ["t"], ["o"])],
        "b", [], [value("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    flag = helper.make_node(
        "Constant", [], ["flag"], value=helper.make_tensor("v", TensorProto.BOOL, [], [1])
    )
    either = helper.make_node("If", ["flag"], ["b"], then_branch=branch, else_branch=branch)
    outer = function("outer", ["a"], ["b"], flag, either)
    expansion = same(model_of([call("outer", ["x"], ["y"], name="o")], [relu, outer]))
    assert not expansion.model.functions
    assert [n.op_type for n in expansion.model.graph.node] == ["Constant", "If"]
    body = expansion.model.graph.node[1].attribute[0].g
    assert [(n.op_type, *n.input, *n.output) for n in body.node] == [
        ("Relu", "x", "o/t"),
        ("Neg", "o/t", "o/o"),
    ]


def test_a_function_of_another_opset_stays_a_call():
    old = function(
        "old",
        ["a"],
        ["b"],
        helper.make_node("Relu", ["a"], ["b"]),
        opsets=[helper.make_opsetid("", 13)],
    )
    model = model_of([call("old", ["x"], ["y"])], [old])
    expansion = expand(model)
    assert [n.op_type for n in expansion.model.graph.node] == ["old"]
    assert [f.name for f in expansion.model.functions] == ["old"]


def test_names_that_look_like_those_of_a_call_stay_apart():
    inner = function(
        "twice",
        ["a"],
        ["b"],
        helper.make_node("Relu", ["a"], ["t"]),
        helper.make_node("Add", ["t", "t"], ["b"]),
    )
    nodes = [helper.make_node("Neg", ["x"], ["one/t"]), call("twice", ["one/t"], ["y"], name="one")]
    flat = same(model_of(nodes, [inner])).model.graph.node
    assert len({n.output[0] for n in flat}) == 3


@pytest.mark.parametrize("depth", [3])
def test_expanding_twice_changes_nothing(depth):
    functions = [function("f0", ["a"], ["b"], helper.make_node("Relu", ["a"], ["b"]))]
    functions += [
        function(
            f"f{i}", ["a"], ["b"], call(f"f{i - 1}", ["a"], ["t"]), call(f"f{i - 1}", ["t"], ["b"])
        )
        for i in range(1, depth + 1)
    ]
    expansion = same(model_of([call(f"f{depth}", ["x"], ["y"])], functions))
    assert len(expansion.model.graph.node) == 2**depth
    assert expand(expansion.model).model is expansion.model
