"""The index of a model: who makes, who reads, what is constant, under which name."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxprune.errors import InputError
from onnxprune.model.scopes import numbered_nodes
from onnxprune.model.view import Edge, build_view
from tests import nets


def view_of(net, *outputs, inputs=None):
    return build_view(net.model(inputs or {"x": ("N", 4)}, *outputs), Path())


def test_producers_and_consumers():
    net = nets.Net()
    a = net.op("Relu", "x")
    y = net.op("Add", a, a)
    view = view_of(net, y)
    assert view.producers[a].op_type == "Relu"
    assert "x" not in view.producers
    assert view.consumers[a] == (Edge(1, 0), Edge(1, 1))
    assert y not in view.consumers
    assert (view.inputs, view.outputs, view.opset) == (("x",), (y,), 17)


def test_vectors_are_one_value_per_use_matrices_are_shared():
    net = nets.Net()
    vector, matrix = net.weight(4), net.weight(4, 4)
    a = net.op("Gemm", "x", matrix, vector)
    y = net.op("Gemm", a, matrix, vector)
    view = view_of(net, y)
    assert [n.inputs for n in view.nodes] == [
        ("x", matrix, vector),
        (a, matrix, f"{vector}@1.2"),
    ]
    assert view.original(f"{vector}@1.2") == vector
    assert view.original(a) == a
    assert view.uses[matrix].edges == (Edge(0, 1), Edge(1, 1))
    assert view.uses[f"{vector}@1.2"].edges == (Edge(1, 2),)
    np.testing.assert_array_equal(view.constant(f"{vector}@1.2"), view.constant(vector))


def test_a_vector_twice_in_one_node_is_two_values():
    net = nets.Net()
    vector = net.weight(4)
    y = net.op("Where", net.op("Greater", "x", vector), vector, vector)
    values = {i for n in view_of(net, y).nodes for i in n.inputs if i.startswith(vector)}
    assert values == {vector, f"{vector}@1.1", f"{vector}@1.2"}


@pytest.mark.parametrize(
    ("attribute", "wanted"),
    [
        ({"value": onnx.numpy_helper.from_array(np.ones((2, 2), np.float16))}, np.ones((2, 2))),
        ({"value_float": 2.5}, 2.5),
        ({"value_floats": [1.0, 2.0]}, [1, 2]),
        ({"value_int": 7}, 7),
        ({"value_ints": [1, 2]}, [1, 2]),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_constant_nodes_are_constants(attribute, wanted):
    net = nets.Net()
    c = net.op("Constant", **attribute)
    view = view_of(net, net.op("Relu", "x"))
    assert view.is_constant(c)
    np.testing.assert_array_equal(view.constant(c), wanted)
    assert [n.op_type for n in view.nodes] == ["Relu"]
    assert view.nodes[0].index == 1, "positions are those of the file"


def test_initializers_listed_as_inputs_are_no_inputs():
    net = nets.Net()
    w = net.weight(4, 4)
    y = net.op("MatMul", "x", w)
    view = view_of(net, y, inputs={"x": ("N", 4), w: (4, 4)})
    assert view.inputs == ("x",)
    assert view.is_constant(w)


def test_bodies_read_outer_values_by_their_outer_names():
    view = build_view(nets.branching(), Path())
    branch = next(node for node in view.nodes if node.op_type == "If")
    inner = [node for node in view.nodes if node.owner == branch.index]
    assert [node.inputs for node in inner] == [("v4",), ("v4",)]
    assert [node.outputs for node in inner] == [
        (f"{branch.name}/else_branch/else",),
        (f"{branch.name}/then_branch/then",),
    ]
    assert set(view.consumers["v4"]) == {Edge(node.index, 0) for node in inner}
    assert branch.bodies["else_branch"].outputs == inner[0].outputs
    assert view.inner == {value for node in inner for value in node.outputs}
    assert set(branch.attributes) == set(), "bodies are no attributes"


def _two_branches(net, *nodes):
    """An If whose branches are the same graph, names and all."""
    value = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    body = helper.make_graph(list(nodes), "b", [], [value])
    return net.op("If", net.const(np.asarray(True)), then_branch=body, else_branch=body)


def test_vectors_that_bodies_share_are_one_value_per_use():
    net = nets.Net()
    w = net.weight(4)
    view = view_of(net, _two_branches(net, helper.make_node("Add", ["x", w], ["a"])))
    assert [use.edges for use in view.uses.values() if use.original == w] == [
        (Edge(1, 1),),
        (Edge(2, 1),),
    ]


def test_equal_names_in_two_bodies_are_two_values():
    net = nets.Net()
    inner = [
        helper.make_node("Constant", [], ["k"], value_floats=[1.0, 2.0, 3.0, 4.0]),
        helper.make_node("Neg", ["x"], ["own"], name="n"),
        helper.make_node("Add", ["own", "k"], ["a"], name="n"),
    ]
    view = view_of(net, _two_branches(net, *inner))
    name = view.nodes[0].name
    assert [node.name for node in view.nodes[1:]] == [
        f"{name}/{which}_branch/{node}" for which in ("else", "then") for node in ("n", "n_2")
    ]
    assert [node.inputs for node in view.nodes if node.op_type == "Add"] == [
        (f"{name}/{which}_branch/own", f"{name}/{which}_branch/k") for which in ("else", "then")
    ]
    assert [node.index for node in view.nodes] == [0, 2, 3, 5, 6]
    assert [numbered_nodes(view.model)[n.index].op_type for n in view.nodes] == [
        n.op_type for n in view.nodes
    ]


def test_a_name_that_looks_like_one_of_a_body_stays_its_own():
    net = nets.Net()
    net.op("Relu", "x")
    net.nodes[0].output[0] = "branch/then_branch/a"
    y = _two_branches(net, helper.make_node("Neg", ["branch/then_branch/a"], ["a"]))
    net.nodes[-1].name = "branch"
    view = view_of(net, y)
    inner = [node for node in view.nodes if node.owner >= 0]
    assert [n.inputs for n in inner] == [("branch/then_branch/a",)] * 2
    assert [n.outputs for n in inner] == [("branch/else_branch/a",), ("branch/then_branch/a'",)]


def test_nameless_and_equally_named_nodes_get_names_of_their_own():
    net = nets.Net()
    y = net.op("Relu", net.op("Neg", net.op("Relu", "x")))
    for node, name in zip(net.nodes, ("a", "", "a"), strict=True):
        node.name = name
    assert [n.name for n in view_of(net, y).nodes] == ["a", "Neg_1", "a_2"]


def test_absent_inputs_are_empty_and_the_default_domain_has_one_name():
    net = nets.Net()
    y = net.op("Clip", "x", "", net.const(np.float32(1)))
    net.nodes[0].domain = "ai.onnx"
    view = view_of(net, y)
    assert view.nodes[0].inputs == ("x", "", "c0")
    assert view.nodes[0].domain == ""
    assert "" not in view.consumers


def test_external_data_is_read_from_the_models_folder(tmp_path):
    model = nets.mlp(8, 3)
    wanted = onnx.numpy_helper.to_array(model.graph.initializer[0])
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    loose = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    np.testing.assert_array_equal(build_view(loose, tmp_path).constant("w0"), wanted)
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match="w0"):
        build_view(loose, tmp_path / "elsewhere").constant("w0")


def test_attributes_are_plain_values():
    net = nets.Net()
    y = net.op("Transpose", "x", perm=[1, 0])
    assert view_of(net, y).nodes[0].attributes == {"perm": [1, 0]}
