"""Ways to write a graph that must not matter: where weights live, how shapes are computed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.rewrite.repairs import UnrepresentableError
from tests.coupling.nets import Net, cuts_hold, look


def _mlp(net, weight, size=6):
    """Two layers, the first of which reads ``weight``: (5, size)."""
    x = net.op("Relu", net.op("MatMul", net.input("n", 5), weight, name="a"))
    net.output(net.linear(x, size, 3, name="out"))
    return net


def _constant_node(net, array, name):
    net.nodes.append(
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array, name))
    )
    return name


def _array(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


_WAYS = {
    "Constant": lambda net: _constant_node(net, _array(5, 6), "w"),
    "Identity": lambda net: net.op("Identity", net.weight(5, 6)),
    "Transpose": lambda net: net.op("Transpose", net.weight(6, 5), perm=[1, 0]),
    "Reshape": lambda net: net.reshape(net.weight(30), 5, 6),
    "Cast": lambda net: net.op("Cast", net.constant(_array(5, 6).astype(np.float64)), to=1),
    "Concat": lambda net: net.op("Concat", net.weight(5, 2), net.weight(5, 4), axis=1),
    "Slice": lambda net: net.op(
        "Slice", net.weight(5, 9), net.constant([2]), net.constant([8]), net.constant([1])
    ),
    "Mul": lambda net: net.op("Mul", net.weight(5, 6), net.weight(6)),
    "chain": lambda net: net.op(
        "Transpose", net.reshape(net.op("Identity", net.weight(30)), 6, 5), perm=[1, 0]
    ),
}


@pytest.mark.parametrize("way", _WAYS)
def test_weight_behind(way):
    net = Net()
    looked = cuts_hold(_mlp(net, _WAYS[way](net)))
    assert {s for *_, s in looked.found} == ({2, 4} if way == "Concat" else {6})


def test_convolution_with_constant_nodes():
    net = Net()
    weight, bias = (
        _constant_node(net, _array(*s), n) for s, n in (((6, 3, 3, 3), "w"), ((6,), "b"))
    )
    x = net.op("Conv", net.input("n", 3, 5, 5), weight, bias, name="c")
    net.output(net.conv(x, 6, 2))
    looked = cuts_hold(net)
    assert looked.found == {("c", "filter", 6)}


def test_one_vector_in_two_layers_is_two():
    net = Net()
    shared = net.weight(6, name="shared")
    x = net.op("Add", net.linear(net.input("n", 5), 5, 6, name="a"), shared)
    x = net.op("Add", net.linear(net.op("Relu", x), 6, 6, name="b"), shared)
    net.output(net.linear(x, 6, 3, name="out"))
    looked = cuts_hold(net)
    assert {(n, s) for n, _, s in looked.found} == {("a", 6), ("b", 6)}
    only_a = looked.cut([(looked.group("a"), [0, 1])])
    sizes = {t.name: tuple(t.dims) for t in only_a.graph.initializer}
    assert sizes["shared"] == (6,)
    assert sizes["shared_cut"] == (4,)


def test_one_matrix_in_two_layers_is_one():
    net = Net()
    shared = net.weight(6, 6, 1, 1, name="shared")
    x = net.conv(net.input("n", 3, 4, 4), 3, 6, name="in")
    for _ in range(2):
        x = net.op("Relu", net.op("Conv", x, shared))
    net.output(net.conv(x, 6, 2))
    looked = cuts_hold(net)
    assert {s for *_, s in looked.found} == {6}
    assert len(looked.found) == 1


def test_initializer_that_is_an_input_too():
    net = Net()
    model = _mlp(net, net.weight(5, 6, name="w")).model(ir_version=3)
    for tensor in model.graph.initializer:
        info = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        model.graph.input.append(info)
    looked = cuts_hold(model)
    assert looked.found == {("a", "neuron", 6)}
    cut = looked.cut([(looked.group("a"), [1, 2])])
    assert cut.ir_version == 3
    sizes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in cut.graph.input}
    assert sizes["w"] == [5, 4]


def test_initializer_that_is_an_output_too():
    net = Net()
    model = _mlp(net, net.weight(5, 6, name="w")).model()
    model.graph.output.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (5, 6)))
    looked = look(model)
    assert not looked.found
    assert looked.why("w", 1) == "graph output"


def test_unused_initializer_stays():
    net = Net()
    net.weight(6, 6, name="unused")
    looked = cuts_hold(_mlp(net, net.weight(5, 6)))
    cut = looked.cut([(looked.group("a"), [0])])
    assert [list(t.dims) for t in cut.graph.initializer if t.name == "unused"] == [[6, 6]]


def _captured(weight):
    """A model whose If reads an outer weight in one of its bodies."""
    net = Net()
    x = net.op("Relu", net.op("MatMul", net.input("n", 5), net.weight(5, 6), name="a"), name="r")
    bodies = {
        f"{which}_branch": helper.make_graph(
            [helper.make_node(op, ["r", weight], [f"{which}_y"])],
            which,
            [],
            [helper.make_tensor_value_info(f"{which}_y", TensorProto.FLOAT, ["n", 6])],
        )
        for which, op in (("then", "Mul"), ("else", "Add"))
    }
    y = net.op("If", net.constant(np.array(True)), name="if", **bodies)
    net.weight(6, name="outer")
    net.output(net.linear(y, 6, 3, name="out"))
    net.output(net.linear(net.op("Relu", net.linear(x, 6, 4, name="b")), 4, 3, name="other"))
    return net


def test_weights_that_bodies_read():
    looked = cuts_hold(_captured("outer"))
    assert looked.found == {("a", "neuron", 6), ("b", "neuron", 4)}
    model = looked.cut([(looked.group("a"), [0, 3])])
    kept = {t.name: list(t.dims) for t in model.graph.initializer}
    assert kept["outer"] == [4], "both branches read it: it is cut in place"


def _numbers_from(net, x, *axes):
    shape = net.op("Shape", x)
    return [
        net.op("Unsqueeze", net.op("Gather", shape, net.constant(a), axis=0), net.constant([0]))
        for a in axes
    ]


@pytest.mark.parametrize("inferred", [True, False])
def test_shape_computed_in_the_graph(inferred):
    """(n, c, h, w) to (n, c, h * w) with all sizes read from a Shape."""
    net = Net()
    x = net.conv(net.input("n", 3, "t", "t"), 3, 6, name="c")
    n, c, h, w = _numbers_from(net, x, 0, 1, 2, 3)
    last = net.constant([-1]) if inferred else net.op("Mul", h, w)
    flat = net.op("Reshape", x, net.op("Concat", n, c, last, axis=0))
    tokens = net.op("Transpose", flat, perm=[0, 2, 1])
    net.output(net.linear(tokens, 6, 3, name="out"))
    assert cuts_hold(net).found == {("c", "filter", 6)}


def test_heads_from_computed_shapes():
    """Head sizes are divided out of a Shape, and the scale is the root of one."""
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 16, name="embed")

    def heads(value):
        n, t = _numbers_from(net, value, 0, 1)
        (width,) = _numbers_from(net, value, 2)
        dim = net.op("Div", width, net.constant([4]))
        shape = net.op("Concat", n, t, net.constant([4]), dim, axis=0)
        return net.op("Transpose", net.op("Reshape", value, shape), perm=[0, 2, 1, 3])

    q, k, v = (heads(net.linear(x, 16, 24, name=name)) for name in "qkv")
    (dim,) = _numbers_from(net, q, 3)
    root = net.op("Sqrt", net.op("Cast", dim, to=1))
    scores = net.op("Div", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2])), root)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    back = net.op("Transpose", mixed, perm=[0, 2, 1, 3])
    n, t = _numbers_from(net, back, 0, 1)
    y = net.op("Reshape", back, net.op("Concat", n, t, net.constant([24]), axis=0))
    net.output(net.linear(net.linear(y, 24, 16, name="o"), 16, 3, name="out"))
    looked = cuts_hold(net)
    kinds = sorted((kind, size) for _, kind, size in looked.found)
    assert [k for k in kinds if k[0].startswith("head")] == [
        ("head", 4),
        ("head_dim", 24),
        ("head_dim", 24),
    ]


def test_product_of_batch_and_heads():
    """(n, t, h * d) to (n * h, t, d), where n * h is a product in the graph."""
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 12, name="embed")

    def fold(value):
        n, t = _numbers_from(net, value, 0, 1)
        four = net.reshape(value, 0, 0, 3, 4)
        turned = net.op("Transpose", four, perm=[0, 2, 1, 3])
        both = net.op("Mul", n, net.constant([3]))
        return net.op("Reshape", turned, net.op("Concat", both, t, net.constant([4]), axis=0))

    q, k, v = (fold(net.linear(x, 12, 12, name=name)) for name in "qkv")
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    mixed = net.op("MatMul", scores, v)
    n, t = _numbers_from(net, x, 0, 1)
    four = net.op(
        "Reshape", mixed, net.op("Concat", n, net.constant([3]), t, net.constant([4]), axis=0)
    )
    y = net.reshape(net.op("Transpose", four, perm=[0, 2, 1, 3]), 0, 0, 12)
    net.output(net.linear(y, 12, 3, name="out"))
    looked = cuts_hold(net)
    assert ("head", 3) in {(kind, size) for _, kind, size in looked.found}


def test_number_from_a_cut_axis_keeps_its_value():
    """A mean written as a sum over a Shape: the divisor is not a size to follow the cut."""
    net = Net()
    x = net.linear(net.input("n", 5), 5, 8, name="a")
    (size,) = _numbers_from(net, x, 1)
    y = net.op("Div", x, net.op("Sqrt", net.op("Cast", size, to=1)))
    net.output(net.linear(y, 8, 3, name="out"))
    looked = cuts_hold(net)
    cut = looked.cut([(looked.group("a"), [0, 1, 2])])
    known = {t.name for t in looked.model.graph.initializer}
    new = [numpy_helper.to_array(t) for t in cut.graph.initializer if t.name not in known]
    assert [v.tolist() for v in new] == [pytest.approx([np.sqrt(8)])]


def test_dynamic_gather_keeps_its_indices():
    """Indices that depend on an input must stay computed."""
    net = Net()
    ids = net.input("t", name="ids", kind=TensorProto.FLOAT)
    numbers = net.op("Cast", net.op("Abs", net.op("Sign", ids)), to=7)
    x = net.op("Gather", net.weight(5, 8, name="table"), numbers, name="embed")
    net.output(net.linear(x, 8, 3, name="out"))
    looked = cuts_hold(net)
    cut = looked.cut([(looked.group("embed"), [0])])
    assert next(n for n in cut.graph.node if n.op_type == "Gather").input[1] == numbers


def test_group_is_never_emptied():
    net = Net()
    looked = look(_mlp(net, net.weight(5, 6)))
    with pytest.raises(UnrepresentableError, match="nothing would stay of"):
        looked.cut([(looked.group("a"), range(6))])


def test_old_opset_with_unsqueeze_attributes():
    """Shape arithmetic of opset 11 keeps its axes in attributes."""
    net = Net(11)
    x = net.conv(net.input("n", 3, 4, 4), 3, 6, name="c")
    n = net.op("Unsqueeze", net.op("Gather", net.op("Shape", x), net.constant(0)), axes=[0])
    flat = net.op("Reshape", x, net.op("Concat", n, net.constant([96]), axis=0))
    net.output(net.linear(flat, 96, 3, name="out"))
    assert cuts_hold(net).found == {("c", "filter", 6)}


def test_names_and_checker_survive():
    net = Net()
    model = _mlp(net, net.weight(5, 6)).model()
    looked = look(model)
    cut = looked.cut([(looked.group("a"), [3])])
    assert [n.name for n in cut.graph.node] == [n.name for n in model.graph.node]
    onnx.checker.check_model(cut, full_check=True)
