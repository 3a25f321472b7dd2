import pytest
from onnx import TensorProto, helper

from onnxprune.runtime.downstream import downstream, entering


@pytest.fixture
def graph():
    """x -> a -> b -> c, with x beside it as d; e = c + d, f = w + w, g = e * f."""
    make = helper.make_node
    value = helper.make_tensor_value_info
    nodes = [
        make("Relu", ["x"], ["a"]),
        make("Exp", ["a"], ["b"]),
        make("Neg", ["b"], ["c"]),
        make("Abs", ["x"], ["d"]),
        make("Add", ["c", "d"], ["e"]),
        make("Add", ["w", "w"], ["f"]),
        make("Mul", ["e", "f"], ["g"]),
    ]
    ends = [[value(name, TensorProto.FLOAT, [2])] for name in "xg"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    return helper.make_graph(nodes, "g", *ends, [weight])


def test_a_change_goes_down_and_no_other_way(graph):
    nodes, reached = downstream(graph, lambda number, node: number == 1)
    assert [node.op_type for node in nodes] == ["Exp", "Neg", "Add", "Mul"]
    assert reached == {"b", "c", "e", "g"}


def test_a_change_may_begin_at_values(graph):
    nodes, reached = downstream(graph, lambda number, node: False, ["b"])
    assert [node.op_type for node in nodes] == ["Neg", "Add", "Mul"]
    assert reached == {"b", "c", "e", "g"}
    assert downstream(graph, lambda number, node: False) == ([], set())


def test_what_enters_is_neither_made_inside_nor_constant(graph):
    assert entering(graph, *downstream(graph, lambda number, node: number == 1)) == ("a", "d")
    assert entering(graph, *downstream(graph, lambda number, node: number == 0)) == ("x", "d")


def test_what_bodies_capture_enters_too(graph):
    body = helper.make_graph(
        [helper.make_node("Add", ["a", "w"], ["inner"])],
        "body",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [2])],
    )
    branch = helper.make_node("If", ["b"], ["h"], then_branch=body, else_branch=body)
    graph.node.append(branch)
    nodes, reached = downstream(graph, lambda number, node: number == 7)
    assert set(entering(graph, nodes, reached)) == {"a", "b"}, "not what is made inside"
    nodes, reached = downstream(graph, lambda number, node: number == 0)
    assert nodes[-1] == branch
    assert "h" in reached
