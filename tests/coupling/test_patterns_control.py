"""Networks with control flow: states, captured weights, branches, bodies in bodies."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune.coupling.keeps import keep_masks
from onnxprune.rewrite.verify import TOLERANCE
from tests.coupling.nets import Net, cuts_hold, half, look

_KINDS = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "d": TensorProto.BOOL}


class Body(Net):
    """A body under construction; what it makes has other names than what lies outside."""

    def __init__(self, seed=0):
        super().__init__(seed=seed)
        self.count = 100

    def graph(self, inputs, outputs, *, own=True):
        """Close the body; with ``own`` its weights live in it, else the caller takes them out."""
        infos = [
            helper.make_tensor_value_info(
                name, _KINDS.get(name[-1:], TensorProto.FLOAT), [] if name[-1:] in _KINDS else None
            )
            for name in (*inputs, *outputs)
        ]
        split = len(inputs)
        weights = self.initializers if own else []
        return helper.make_graph(self.nodes, "body", infos[:split], infos[split:], weights)


def weights_of(model):
    """Sizes of all weights, those of bodies included."""
    found = {t.name: list(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        for attribute in node.attribute:
            for tensor in attribute.g.initializer:
                found[f"{node.name}/{attribute.name}/{tensor.name}"] = list(tensor.dims)
    return found


def cell_in_loop(*, captured):
    """h = tanh(x U + h V + b) for five turns, x and h 6 and 8 wide; then a reader of h."""
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 4), 4, 6, name="in"), name="x1")
    first = net.linear(net.input("n", 4, name="s"), 4, 8, name="start")
    u, v = body.weight(6, 8, name="u"), body.weight(8, 8, name="v")
    total = body.op("Add", body.op("MatMul", x, u), body.op("MatMul", "h", v, name="again"))
    after = body.op("Tanh", body.op("Add", total, body.weight(8, name="b")), name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", after, after], own=not captured)
    if captured:
        net.initializers.extend(body.initializers)
    last, steps = net.op(
        "Loop",
        net.constant(5),
        net.constant(np.array(True)),
        first,
        name="loop",
        outs=2,
        body=graph,
    )
    net.output(net.linear(last, 8, 3, name="out"), net.linear(steps, 8, 2, name="each"))
    return net


@pytest.mark.parametrize("captured", [True, False])
def test_loop_state_and_its_weights(captured):
    looked = cuts_hold(cell_in_loop(captured=captured))
    assert looked.found == {("in", "neuron", 6), ("start", "stream", 8)}
    state = looked.group("start")
    sizes = weights_of(looked.cut([(state, [1, 6])]))
    where = "" if captured else "loop/body/"
    assert {name: sizes[where + name] for name in "uvb"} == {"u": [6, 6], "v": [6, 6], "b": [6]}
    assert ("loop/body/h", 1) in {(m.axis.value, m.axis.axis) for m in state.members}


def test_state_that_the_user_gives_is_frozen():
    net, body = Net(), Body(seed=1)
    start = net.input("n", 8, name="s")
    body.op("Tanh", body.op("MatMul", "h", body.weight(8, 8)), name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(5), "", start, name="loop", body=graph)
    net.output(net.linear(y, 8, 3, name="out"))
    looked = look(net)
    assert not looked.found
    assert looked.why("loop/body/h", 1) == "graph input"


def test_scan_over_time():
    """A cell that scans (t, n, 5); its state starts from zeros."""
    net, body = Net(), Body(seed=1)
    x = net.linear(net.input("t", "n", 5), 5, 6, name="in")
    n = net.op("Gather", net.op("Shape", "x"), net.constant([1]), axis=0)
    zeros = net.op("ConstantOfShape", net.op("Concat", n, net.constant([8]), axis=0), name="zero")
    total = body.op(
        "Add", body.linear("s", 6, 8, name="u"), body.linear("h", 8, 8, name="v"), name="sum"
    )
    body.op("Tanh", total, name="h1")
    body.linear("h1", 8, 4, name="step")
    graph = body.graph(["h", "s"], ["h1", "step"])
    last, steps = net.op("Scan", zeros, x, name="scan", outs=2, body=graph, num_scan_inputs=1)
    net.output(net.linear(last, 8, 3, name="out"), net.linear(steps, 4, 2, name="each"))
    looked = cuts_hold(net)
    assert {(g.name, g.size) for g in looked.coupling.groups} == {
        ("in", 6),
        ("scan/body/u", 8),
        ("scan/body/step", 4),
    }
    assert looked.why("x", 0) == "graph input"


def test_axis_that_is_walked_along_stays():
    """Scanning over what a layer makes: its neurons are turns."""
    net, body = Net(), Body(seed=1)
    x = net.linear(net.input("n", 5), 5, 6, name="in")
    body.op("Add", "h", "s", name="h1")
    graph = body.graph(["h", "s"], ["h1"])
    n = net.op("Shape", "x", end=1)
    zeros = net.op("ConstantOfShape", n)
    y = net.op("Scan", zeros, x, body=graph, num_scan_inputs=1, scan_input_axes=[1], name="scan")
    net.output(y)
    looked = look(net)
    assert not looked.found
    assert looked.why("in", 1) == "Scan cannot be cut along this axis"


def _branch(net, y, *ops, own=()):
    body = Net(seed=len(ops))
    body.nodes, body.initializers = list(ops), list(own)
    return helper.make_graph(
        body.nodes, "b", [], [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)], own
    )


def _array(name, *shape):
    rng = np.random.default_rng(len(name))
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)


@pytest.mark.parametrize("taken", [True, False])
def test_branches_with_weights_of_their_own(taken):
    """Two models in one, as speech nets hold one per sampling rate; hidden widths differ."""
    net = Net()
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    branches = {
        f"{which}_branch": _branch(
            net,
            "y",
            helper.make_node("MatMul", [x, "a"], ["p"], name="one"),
            helper.make_node("Relu", ["p"], ["q"]),
            helper.make_node("MatMul", ["q", "b"], ["y"], name="two"),
            own=[_array("a", 6, width), _array("b", width, 4)],
        )
        for which, width in (("then", 8), ("else", 6))
    }
    y = net.op("If", net.constant(np.array(taken)), name="rate", **branches)
    net.output(net.linear(y, 4, 3, name="out"))
    looked = cuts_hold(net)
    assert {(g.name, g.size) for g in looked.coupling.groups} == {
        ("in", 6),
        ("rate/then_branch/one", 8),
        ("rate/else_branch/one", 6),
        ("rate/else_branch/two", 4),
    }


def test_branches_of_different_widths_stay():
    net = Net()
    x = net.linear(net.input("n", 5), 5, 6, name="in")
    wide = _branch(net, "y", helper.make_node("MatMul", [x, "w"], ["y"]), own=[_array("w", 6, 6)])
    narrow = _branch(net, "y", helper.make_node("MatMul", [x, "w"], ["y"]), own=[_array("w", 6, 1)])
    flag = net.constant(np.array(True))
    y = net.op("If", flag, name="if", then_branch=wide, else_branch=narrow)
    net.output(net.linear(net.op("Add", y, net.weight(6)), 6, 3, name="out"))
    looked = cuts_hold(net)
    assert looked.found == {("in", "neuron", 6)}
    assert looked.why("if/then_branch/w", 1) == "If: its branches differ in it"


def test_width_that_decides_how_often_to_loop_stays():
    """The number of turns is read from a width: a cut would change it."""
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    turns = net.op("Squeeze", net.op("Shape", x, start=1), name="turns")
    body.op("Add", "h", x, name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", turns, "", x, name="loop", body=graph)
    net.output(net.linear(y, 6, 3, name="out"))
    looked = cuts_hold(net)
    model = looked.cut([(looked.group("in"), [0, 5])])
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    trips = next(t for t in model.graph.initializer if t.name == loop.input[0])
    assert numpy_helper.to_array(trips) == 6, "six turns, as before the cut"


def test_state_that_grows_stays():
    """A cache: every turn appends what the layer made; only its width can go."""
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 1, 5), 5, 6, name="in"), name="r")
    body.op("Concat", "h", x, axis=1, name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(3), "", x, name="loop", body=graph)
    net.output(net.linear(y, 6, 3, name="out"))
    looked = cuts_hold(net)
    assert looked.found == {("in", "neuron", 6)}
    assert "from turn to turn" in looked.why("loop/body/h1", 1)


def test_slice_by_the_turn_stays():
    """Row i of a table in turn i: which rows are read is known at run time only."""
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 4, name="in"), name="r")
    row = body.op("Gather", body.weight(4, 4, name="table"), "i", axis=0)
    body.op("Add", "h", row, name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(3), "", x, name="loop", body=graph)
    net.output(net.linear(y, 4, 3, name="out"))
    looked = cuts_hold(net)
    assert looked.found == {("in", "stream", 4)}
    assert "chooses among these positions" in looked.why("loop/body/table", 0)


def test_captured_in_two_roles():
    """An outer op sums over the rows of a weight, the body over its columns."""
    net, body = Net(), Body(seed=1)
    w = net.weight(6, 6, name="w")
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    outer = net.op("Tanh", net.op("MatMul", x, w), name="o")
    body.op("Relu", body.op("MatMul", "h", body.op("Transpose", w, perm=[1, 0])), name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(2), "", outer, name="loop", body=graph)
    net.output(net.linear(y, 6, 3, name="out"))
    looked = cuts_hold(net)
    assert len(looked.coupling.groups) == 1, "rows and columns of w stand and fall together"
    sizes = weights_of(looked.cut([(looked.coupling.groups[0], [2])]))
    assert sizes["w"] == [5, 5]


def test_if_inside_a_loop():
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    v = net.weight(6, 6, name="v")
    odd = body.op("Equal", body.op("Mod", "i", body.constant(2)), body.constant(1), name="odd")
    branches = {
        "then_branch": _branch(net, "p", helper.make_node("MatMul", ["h", v], ["p"], name="m")),
        "else_branch": _branch(net, "q", helper.make_node("Tanh", ["h"], ["q"])),
    }
    body.op("If", odd, name="if", **branches)
    body.nodes[-1].output[0] = "h1"
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(4), "", x, name="loop", body=graph)
    net.output(net.linear(y, 6, 3, name="out"))
    looked = cuts_hold(net)
    (group,) = looked.coupling.groups
    assert weights_of(looked.cut([(group, [0])]))["v"] == [5, 5]
    assert ("loop/body/if/then_branch/p", 1) in {(m.axis.value, m.axis.axis) for m in group.members}


def test_sequences_are_frozen():
    net = Net()
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    parts = net.op("SequenceConstruct", x, x, name="parts")
    y = net.op("ConcatFromSequence", parts, axis=1, name="joined")
    net.output(net.linear(y, 12, 3, name="out"))
    looked = look(net)
    assert not looked.found
    assert "Sequence" in looked.why("in", 1)


def test_loop_with_a_sequence_as_state_is_frozen():
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    body.op("SequenceInsert", "h", x, name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    for info in (graph.input[2], graph.output[1]):
        info.type.CopyFrom(kind)
    empty = net.op("SequenceEmpty")
    seq = net.op("Loop", net.constant(2), "", empty, name="loop", body=graph)
    y = net.op("ConcatFromSequence", seq, axis=1)
    net.output(net.linear(y, 12, 3, name="out"))
    looked = look(net)
    assert not looked.found
    assert "Sequence" in looked.why("in", 1)


def test_shapes_computed_in_a_body():
    """(n, 6) to (n, 2, 3) and back by sizes that the body reads itself."""
    net, body = Net(), Body(seed=1)
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    shape = body.op("Shape", "h")
    n = body.op("Gather", shape, body.constant([0]), axis=0)
    width = body.op("Gather", shape, body.constant([1]), axis=0)
    three = body.op("Reshape", "h", body.op("Concat", n, body.constant([1]), width, axis=0))
    product = body.op("MatMul", three, body.weight(6, 6, name="v"))
    body.op("Reshape", product, body.op("Concat", n, body.constant([6]), axis=0), name="h1")
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", "h1"])
    y = net.op("Loop", net.constant(2), "", x, name="loop", body=graph)
    net.output(net.linear(y, 6, 3, name="out"))
    looked = cuts_hold(net)
    assert {g.size for g in looked.coupling.groups} == {6}
    assert onnx.checker.check_model(looked.cut([(looked.coupling.groups[0], [1])])) is None


@pytest.mark.parametrize("taken", [True, False])
def test_the_branch_that_no_data_take_is_proven_too(taken):
    """A weight of the other branch spoilt on purpose must not pass."""
    looked = look(_captured_in_both(taken))
    (group,) = looked.coupling.groups
    removed = [(group, [1, 2])]
    model = looked.cut(removed)
    keeps = keep_masks(removed, looked.coupling.collected.sizes)
    assert looked.verifier.error(model, keeps) <= TOLERANCE
    for name in ("a", "b"):
        spoilt = onnx.ModelProto()
        spoilt.CopyFrom(model)
        tensor = next(t for t in spoilt.graph.initializer if t.name == name)
        array = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(array[::-1].copy(), name))
        assert looked.verifier.error(spoilt, keeps) > TOLERANCE


def _captured_in_both(taken):
    net = Net()
    x = net.op("Relu", net.linear(net.input("n", 5), 5, 6, name="in"), name="r")
    branches = {
        f"{which}_branch": _branch(net, "y", helper.make_node(op, [x, weight], ["y"]))
        for which, op, weight in (("then", "Add", "a"), ("else", "Mul", "b"))
    }
    net.weight(6, name="a"), net.weight(6, name="b")
    y = net.op("If", net.constant(np.array(taken)), name="if", **branches)
    net.output(net.linear(y, 6, 3, name="out"))
    return net


@given(
    widths=st.lists(st.integers(2, 5), min_size=1, max_size=3),
    turns=st.integers(1, 3),
    nested=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=8, deadline=None)
def test_any_chain_of_layers_in_a_loop(widths, turns, nested, seed):
    """Layers of any widths from the state back to it, some of them inside an If."""
    net, body = Net(), Body(seed)
    state = widths[0] + 1
    start = net.op("Relu", net.linear(net.input("n", 3), 3, state, name="in"), name="r")
    value, size = "h", state
    for width in [*widths, state]:
        value, size = body.op("Tanh", body.linear(value, size, width)), width
    if nested:
        flag = body.op("Greater", "i", body.constant(0))
        branches = {
            "then_branch": _branch(net, "p", helper.make_node("Add", [value, "h"], ["p"])),
            "else_branch": _branch(net, "q", helper.make_node("Relu", [value], ["q"])),
        }
        value = body.op("If", flag, **branches)
    body.op("Identity", "c", name="d")
    graph = body.graph(["i", "c", "h"], ["d", value])
    y = net.op("Loop", net.constant(turns), "", start, name="loop", body=graph)
    net.output(net.linear(y, state, 3, name="out"))
    looked = look(net)
    assert sorted(g.size for g in looked.coupling.groups) == sorted([state, *widths])
    assert looked.error(half(looked.coupling.groups, seed)) <= TOLERANCE
