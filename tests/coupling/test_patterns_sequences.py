"""Tensors that are split into a sequence, as torch's exporter without optimization writes it."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.runtime.session import Session
from tests.coupling.nets import Net, cuts_hold, feeds, look


def _net(split, parts, *, axis=1, keepdims=1):
    """Parts of 12 filters, each with a reader of its own."""
    net = Net()
    x = net.op("Relu", net.conv(net.input("n", 3, 4, 4), 3, 12, name="in"))
    sizes = () if split is None else (net.constant(np.array(split), name="sizes"),)
    sequence = net.op("SplitToSequence", x, *sizes, axis=axis, keepdims=keepdims, name="parts")
    for number, size in parts:
        part = net.op("SequenceAt", sequence, net.constant(np.array(number)))
        net.output(net.conv(part, size, 2, name=f"out{number}"))
    return net


@pytest.mark.parametrize(
    ("split", "parts"),
    [
        (6, [(0, 6), (1, 6)]),
        (5, [(1, 5), (2, 2), (0, 5)]),
        ([4, 8], [(0, 4), (1, 8)]),
        ([4, 6, 2], [(1, 6), (0, 4), (2, 2)]),
    ],
    ids=str,
)
def test_parts_lose_channels_of_their_own(split, parts):
    looked = cuts_hold(_net(split, parts))
    assert sorted(g.size for g in looked.coupling.groups) == sorted(size for _, size in parts)


def _sizes(model):
    found = {t.name: numpy_helper.to_array(t).tolist() for t in model.graph.initializer}
    return found["sizes"]


def test_one_size_stays_one_where_it_can():
    looked = look(_net(6, [(0, 6), (1, 6)]))
    first, second = sorted(looked.coupling.groups, key=lambda g: g.members[0].positions.min())
    assert _sizes(looked.cut([(first, [0, 1]), (second, [3, 4])])) == 4
    assert _sizes(looked.cut([(first, [0, 1])])) == [4, 6]


def test_a_part_that_nobody_reads_stays_in_its_place():
    looked = cuts_hold(_net([4, 4, 4], [(2, 4), (0, 4)]))
    assert sorted(g.size for g in looked.coupling.groups) == [4, 4]


def test_parts_along_another_axis():
    looked = cuts_hold(_net(2, [(0, 12), (1, 12)], axis=2))
    assert {g.size for g in looked.coupling.groups} == {12}


@pytest.mark.parametrize("name", ["by a computed number", "twice", "from the end", "as a whole"])
def test_what_else_reads_a_sequence_freezes_it(name):
    net = _net(6, [(0, 6)])
    number = net.constant(np.array({"twice": 0, "from the end": -1}.get(name, 1)))
    if name == "by a computed number":
        number = net.op("Cast", net.op("Squeeze", net.op("ReduceMax", "x")), to=TensorProto.INT64)
        number = net.op("Min", net.op("Abs", number), net.constant(np.array(1)))
    if name == "as a whole":
        last = net.op("ConcatFromSequence", "parts", axis=1)
    else:
        last = net.op("SequenceAt", "parts", number)
    net.output(net.op("Tanh", last))
    looked = look(net)
    assert looked.coupling.groups == ()
    assert "sequence" in looked.why("relu4", 1) or "sequence" in looked.why("in", 1)


def test_a_sequence_that_the_model_gives_out_is_frozen():
    model = _net(6, [(0, 6), (1, 6)]).model()
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output.append(onnx.ValueInfoProto(name="parts", type=kind))
    assert len(Session(model).run(feeds(model)[0])["parts"]) == 2
    looked = look(model)
    assert looked.coupling.groups == ()
    assert "sequence" in looked.why("in", 1)


def test_single_places_without_their_axis_are_frozen():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 4, name="in")
    sequence = net.op("SplitToSequence", x, axis=1, keepdims=0)
    parts = [net.op("SequenceAt", sequence, net.constant(np.array(k))) for k in range(4)]
    net.output(net.op("Sum", *parts))
    assert look(net).coupling.groups == ()
