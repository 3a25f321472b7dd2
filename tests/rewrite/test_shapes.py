"""Shapes computed in the graph: what is cut becomes constant, everything else stays computed."""

import numpy as np
import pytest
from onnx import numpy_helper

from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.rewrite.verify import TOLERANCE
from onnxprune.runtime.session import Session
from tests.coupling.nets import Net, look


def _number(net, x, axis):
    """One size of a value, as a list of one number."""
    size = net.op("Gather", net.op("Shape", x), net.constant(axis), axis=0)
    return net.op("Unsqueeze", size, net.constant([0]))


def _cut(looked, name, channels=(0, 1)):
    removed = [(looked.group(name), list(channels))]
    assert looked.error(removed) <= TOLERANCE
    return looked.cut(removed)


def _new(looked, model):
    """Constants that the cut added."""
    known = {t.name for t in looked.model.graph.initializer}
    return {
        t.name: numpy_helper.to_array(t).tolist()
        for t in model.graph.initializer
        if t.name not in known
    }


def _inputs(model, name):
    return list(next(n for n in model.graph.node if n.name == name).input)


def _runs_at(model, **shapes):
    """Run at sizes that no trace has seen."""
    feed = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return {name: array.shape for name, array in Session(model).run(feed).items()}


def test_sizes_that_follow_the_cut_are_left_alone():
    """All numbers come from the Shape of what is cut: nothing has to change."""
    net = Net()
    x = net.conv(net.input("n", 3, "t", "t"), 3, 6, name="c")
    sizes = [_number(net, x, axis) for axis in range(2)]
    x = net.op("Reshape", x, net.op("Concat", *sizes, net.constant([-1]), axis=0), name="flat")
    net.output(net.linear(net.op("Transpose", x, perm=[0, 2, 1]), 6, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "c")
    assert _new(looked, model) == {}
    assert _inputs(model, "flat") == _inputs(looked.model, "flat")
    assert _runs_at(model, x=(5, 3, 9, 9)) == {"out": (5, 81, 3)}


def test_constant_part_of_a_computed_shape_is_cut_in_place():
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 12, name="a")
    sizes = [_number(net, x, axis) for axis in range(2)]
    width = net.constant([12, 1], "width")
    shape = net.op("Concat", *sizes, width, axis=0, name="shape")
    x = net.op("Squeeze", net.op("Reshape", x, shape, name="r"), net.constant([3]))
    net.output(net.linear(x, 12, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "a")
    assert _runs_at(model, x=(5, 9, 5)) == {"out": (5, 9, 3)}


def test_size_of_another_value_becomes_constant_where_it_is_read():
    """The width is read from a value that is not cut; batch and length stay dynamic."""
    net = Net()
    x = net.input("n", "t", 8)
    h = net.linear(x, 8, 8, name="a")
    sizes = [_number(net, x, axis) for axis in range(3)]
    h = net.op("Reshape", h, net.op("Concat", *sizes, axis=0, name="shape"), name="r")
    net.output(net.linear(net.op("Relu", h), 8, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "a")
    assert _runs_at(model, x=(5, 9, 8)) == {"out": (5, 9, 3)}
    assert [6] in [np.ravel(v).tolist()[-1:] for v in _new(looked, model).values()]


def test_all_sizes_fixed_becomes_one_constant():
    net = Net()
    x = net.input(2, 4, 8)
    h = net.linear(x, 8, 8, name="a")
    h = net.op("Reshape", h, net.op("Shape", x, name="shape"), name="r")
    net.output(net.linear(h, 8, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "a")
    assert list(_new(looked, model).values()) == [[2, 4, 6]]


def test_one_shape_for_a_cut_and_a_whole_value():
    net = Net()
    x = net.input("n", "t", 8)
    a, b = net.linear(x, 8, 8, name="a"), net.linear(x, 8, 8, name="b")
    sizes = [_number(net, x, axis) for axis in range(3)]
    shape = net.op("Concat", *sizes, axis=0, name="shape")
    for name in (a, b):
        h = net.op("Reshape", name, shape, name=f"r{name}")
        net.output(net.linear(net.op("Relu", h), 8, 3))
    looked = look(net)
    model = _cut(looked, "a")
    assert _inputs(model, "rb") == ["b", "shape"]
    assert list(_new(looked, model).values()) == [[0, 0, 6]]
    assert len(_runs_at(model, x=(5, 9, 8))) == 2


def test_new_constants_are_written_in_the_order_of_their_readers():
    """A constant that computed shapes share has six successors: numbered the same in every run."""
    net = Net()
    x, width, names = net.input("n", 8), net.constant([8], "width"), "abcdef"
    for name in names:
        shape = net.op("Concat", _number(net, x, 0), width, axis=0)
        h = net.op("Reshape", net.linear(x, 8, 8, name=name), shape)
        net.output(net.linear(net.op("Relu", h), 8, 3))
    looked = look(net)
    gone = [(looked.group(name), list(range(1 + i))) for i, name in enumerate(names)]
    assert looked.error(gone) <= TOLERANCE
    assert list(_new(looked, looked.cut(gone)).values()) == [[0, n] for n in (7, 6, 5, 4, 3, 2)]


def test_number_that_reaches_float_arithmetic_keeps_its_value():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 16, name="a")
    root = net.op("Sqrt", net.op("Cast", _number(net, x, 1), to=1))
    net.output(net.linear(net.op("Div", x, root, name="scaled"), 16, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "a", range(7))
    (value,) = _new(looked, model).values()
    assert value == pytest.approx([4.0])


def test_dynamic_number_in_float_arithmetic_stays_dynamic():
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 8, name="a")
    length = net.op("Cast", _number(net, x, 1), to=1)
    net.output(net.linear(net.op("Div", x, length, name="scaled"), 8, 3, name="out"))
    looked = look(net)
    model = _cut(looked, "a")
    assert _new(looked, model) == {}
    assert _inputs(model, "scaled") == _inputs(looked.model, "scaled")


def test_number_that_nothing_can_say_is_refused():
    """t + width, both in one number: neither a constant nor what it was."""
    net = Net()
    x = net.linear(net.input("n", "t", 5), 5, 8, name="a")
    both = net.op("Add", _number(net, x, 1), _number(net, x, 2))
    size = net.op("Cast", both, to=1)
    net.output(net.linear(net.op("Div", x, size), 8, 3, name="out"))
    looked = look(net)
    with pytest.raises(UnrepresentableError, match=r"computed|a size that is computed"):
        looked.cut([(looked.group("a"), [0])])


def test_static_number_among_dynamic_ones_of_one_shape_is_patched():
    """Zeros made in the shape of one half are added to the other half, which is cut otherwise."""
    net = Net()
    x = net.conv(net.input("n", 3, "t", "t"), 3, 8, name="c")
    first, second = net.op("Split", x, net.constant([4, 4]), axis=1, outs=2)
    zeros = net.op("ConstantOfShape", net.op("Shape", first), name="zeros")
    y = net.conv(net.op("Add", zeros, second), 4, 4, name="d")
    net.output(net.conv(net.op("Concat", first, y, axis=1), 8, 3, name="out"))
    looked = look(net)
    for group in looked.coupling.groups:
        assert looked.error([(group, [0])]) <= TOLERANCE
    model = looked.cut([(looked.group("c"), [0])])
    assert _runs_at(model, x=(5, 3, 9, 7))["out"] == (5, 3, 9, 7)
    assert [n.op_type for n in model.graph.node].count("Where") == 1
