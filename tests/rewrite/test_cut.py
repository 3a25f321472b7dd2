"""The cut changes what it must and nothing else."""

import numpy as np
import onnx
import pytest
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from onnxprune.coupling.keeps import keep_masks
from onnxprune.coupling.relations import Axis
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from tests.coupling.nets import Net, half, look


def _differences(a, b, path=""):
    """Yield the paths of all fields in which two messages differ."""
    for field in a.DESCRIPTOR.fields:
        here = f"{path}.{field.name}" if path else field.name
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.is_repeated:
            if len(x) != len(y):
                yield f"{here}#"
            for i, (p, q) in enumerate(zip(x, y, strict=False)):
                if isinstance(p, Message):
                    yield from _differences(p, q, f"{here}[{getattr(p, 'name', '') or i}]")
                elif p != q:
                    yield f"{here}[{i}]"
        elif isinstance(x, Message):
            if a.HasField(field.name) != b.HasField(field.name):
                yield here
            elif a.HasField(field.name):
                yield from _differences(x, y, here)
        elif x != y:
            yield here


def _decorated():
    """A model with everything in it that a careless writer would lose."""
    net = Net()
    shared = net.weight(8, name="shared")
    w = net.weight(8, 3, 3, 3, name="w")
    x = net.op("Conv", net.input("n", 3, 6, 6), w, shared, name="c", kernel_shape=[3, 3])
    x = net.op("Mul", x, net.reshape(shared, 8, 1, 1, name="scale"), name="m")
    x = net.conv(net.op("Relu", x, name="r"), 8, 8, 3, group=2, name="g")
    a, b = net.op("Split", x, net.constant([4, 4]), axis=1, outs=2, name="s")
    x = net.op("Concat", b, a, axis=1, name="cat")
    x = net.reshape(x, 0, 128, name="flat")
    net.output(net.op("Gemm", x, net.weight(128, 3), net.weight(3), name="out"))
    net.weight(4, name="unused")
    model = net.model()
    model.producer_name, model.producer_version, model.domain = "tool", "1.2", "org.example"
    model.doc_string, model.model_version = "a model", 7
    model.metadata_props.add(key="author", value="someone")
    model.graph.doc_string = "a graph"
    model.graph.node[0].doc_string = "a node"
    model.graph.node[0].attribute[0].doc_string = "an attribute"
    model.graph.initializer[0].doc_string = "a tensor"
    for name, shape in (("c", ["n", 8, 4, 4]), ("r", ["n", 8, 4, 4]), ("flat", ["n", 128])):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        info.doc_string = f"about {name}"
        model.graph.value_info.append(info)
    model.functions.append(
        helper.make_function(
            "org.example", "F", ["i"], ["o"], [helper.make_node("Relu", ["i"], ["o"])], []
        )
    )
    model.functions[0].opset_import.append(helper.make_opsetid("", 17))
    return model


def _bytes(model):
    return model.SerializeToString(deterministic=True)


def one(group):
    """A group without its first channel, or the first of each block."""
    return group, group.balanced(range(group.size))[: group.step].tolist()


def test_nothing_cut_is_nothing_changed():
    model = _decorated()
    looked = look(model)
    result = cut(looked.view, looked.coupling, looked.traces, {})
    assert result is not model
    assert _bytes(result) == _bytes(model)


def test_the_input_model_is_never_changed():
    model = _decorated()
    before = _bytes(model)
    looked = look(model)
    looked.cut(half(looked.coupling.groups))
    assert _bytes(model) == before


def test_only_what_carries_the_channels_changes():
    model = _decorated()
    looked = look(model)
    result = looked.cut([one(g) for g in looked.coupling.groups if "c" in g.nodes])
    changed = set(_differences(model, result))
    assert changed
    allowed = (
        "graph.initializer[",
        "graph.node[g].attribute",
        "graph.value_info[c].type",
        "graph.value_info[r].type",
        "graph.value_info[flat].type",
    )
    assert {path for path in changed if not path.startswith(allowed)} == set()
    fields = {path.rsplit(".", 1)[-1] for path in changed if path.startswith(allowed[0])}
    assert fields <= {"dims[0]", "dims[1]", "raw_data"}


def test_annotations_follow_the_cut():
    looked = look(_decorated())
    result = looked.cut([one(looked.coupling.groups[0])])
    shapes = {
        i.name: [d.dim_value or d.dim_param for d in i.type.tensor_type.shape.dim]
        for i in result.graph.value_info
    }
    kept = 8 - looked.coupling.groups[0].step
    assert shapes["c"] == ["n", kept, 4, 4]
    assert [i.doc_string for i in result.graph.value_info] == ["about c", "about r", "about flat"]
    onnx.checker.check_model(result, full_check=True)


def test_stale_annotation_is_not_made_worse():
    model = _decorated()
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_value = 99
    looked = look(model)
    result = looked.cut([one(looked.coupling.groups[0])])
    assert not result.graph.value_info[0].type.tensor_type.shape.dim[1].HasField("dim_value")


def test_symbol_of_a_cut_axis_goes_as_other_values_may_keep_it():
    """Onnxruntime lets values whose shapes share their symbols share a buffer."""
    model = _decorated()
    model.graph.value_info[0].type.tensor_type.shape.dim[1].dim_param = "2*n"
    looked = look(model)
    result = looked.cut([one(looked.coupling.groups[0])])
    dims = result.graph.value_info[0].type.tensor_type.shape.dim
    assert [d.WhichOneof("value") for d in dims] == ["dim_param", None, "dim_value", "dim_value"]


def _two_layers_with_one_bias(ir_version=8):
    net = Net()
    bias = net.weight(6, name="bias")
    x = net.op("Gemm", net.input("n", 5), net.weight(5, 6), bias, name="a")
    x = net.op("Gemm", net.op("Relu", x), net.weight(6, 6), bias, name="b")
    net.output(net.linear(net.op("Relu", x), 6, 3, name="out"))
    return net.model(ir_version)


def _dims(model):
    return {t.name: tuple(t.dims) for t in model.graph.initializer}


def test_shared_vector_is_cut_beside_the_old_one():
    looked = look(_two_layers_with_one_bias())
    result = looked.cut([(looked.group("a"), [1, 2])])
    assert _dims(result)["bias"] == (6,)
    assert _dims(result)["bias_cut"] == (4,)
    inputs = {n.name: list(n.input) for n in result.graph.node}
    assert inputs["a"][2] == "bias_cut"
    assert inputs["b"][2] == "bias"


def test_shared_vector_is_cut_in_place_where_all_uses_agree():
    looked = look(_two_layers_with_one_bias())
    result = looked.cut([(looked.group("a"), [1, 2]), (looked.group("b"), [1, 2])])
    assert _dims(result)["bias"] == (4,)
    assert _dims(result).keys() == _dims(looked.model).keys()


def test_new_names_avoid_taken_ones():
    model = _two_layers_with_one_bias()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "bias_cut"))
    result = (looked := look(model)).cut([(looked.group("a"), [1])])
    assert _dims(result)["bias_cut"] == (2,)
    assert _dims(result)["bias_cut2"] == (5,)


def test_initializers_among_the_inputs_of_an_old_model_agree():
    model = _two_layers_with_one_bias(ir_version=3)
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    looked = look(model)
    result = looked.cut([(looked.group("a"), [1, 2])])
    declared = {
        i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in result.graph.input
    }
    del declared["x"]
    assert declared == _dims(result)
    onnx.checker.check_model(result, full_check=True)


def test_constant_nodes_are_cut_in_place():
    net = Net()
    array = net.rng.standard_normal((5, 6)).astype(np.float32)
    net.nodes.append(
        helper.make_node("Constant", [], ["w"], "w", value=numpy_helper.from_array(array, "t"))
    )
    net.nodes.append(helper.make_node("Constant", [], ["b"], "b", value_floats=[1.0] * 6))
    x = net.op("Add", net.op("MatMul", net.input("n", 5), "w", name="a"), "b")
    net.output(net.linear(x, 6, 3, name="out"))
    looked = look(net)
    result = looked.cut([(looked.group("a"), [0, 5])])
    attributes = {n.name: n.attribute[0] for n in result.graph.node if n.op_type == "Constant"}
    np.testing.assert_array_equal(numpy_helper.to_array(attributes["w"].t), array[:, 1:5])
    assert attributes["w"].t.name == "t"
    assert list(attributes["b"].floats) == [1.0] * 4


def test_kept_weights_are_the_old_ones():
    looked = look(_decorated())
    group = looked.coupling.groups[0]
    keeps = keep_masks([one(group)], looked.coupling.collected.sizes)
    result = looked.cut([one(group)])
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer}
        for m in (looked.model, result)
    )
    expected = before["w"]
    for axis in (0, 1):
        if Axis("w", axis) in keeps:
            expected = np.compress(keeps[Axis("w", axis)], expected, axis=axis)
    np.testing.assert_array_equal(after["w"], expected)


def test_half_precision_stays_half_precision():
    net = Net()
    table = net.constant(net.rng.standard_normal((5, 6)).astype(np.float16), "w")
    x = net.op("MatMul", net.op("Cast", net.input("n", 5), to=TensorProto.FLOAT16), table, name="a")
    back = net.constant(net.rng.standard_normal((6, 3)).astype(np.float16))
    net.output(net.op("Cast", net.op("MatMul", x, back), to=TensorProto.FLOAT))
    looked = look(net)
    result = looked.cut([(looked.group("a"), [0])])
    assert {t.data_type for t in result.graph.initializer} == {TensorProto.FLOAT16}


def test_nothing_left_is_refused():
    looked = look(_two_layers_with_one_bias())
    with pytest.raises(UnrepresentableError, match="nothing would stay of"):
        looked.cut([(looked.group("a"), range(6))])
