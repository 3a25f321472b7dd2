"""What nodes read, bodies included."""

from onnx import TensorProto, helper

from onnxprune.model.scopes import captured_values, values_read


def test_captured_values_reach_into_bodies_of_bodies():
    value = helper.make_tensor_value_info("a", TensorProto.FLOAT, None)
    inner = helper.make_graph([helper.make_node("Neg", ["deep"], ["a"])], "inner", [], [value])
    middle = helper.make_node("If", ["flag"], ["a"], then_branch=inner, else_branch=inner)
    body = helper.make_graph([middle], "outer", [], [value])
    node = helper.make_node("If", ["top"], ["y"], then_branch=body, else_branch=body)
    assert {"flag", "deep"} <= captured_values(node)
    assert "top" not in captured_values(node)
    assert captured_values(helper.make_node("Relu", ["x"], ["y"])) == set()
    assert values_read(node) == ["top", *sorted(captured_values(node))]
