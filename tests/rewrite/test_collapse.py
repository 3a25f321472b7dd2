"""Functions after a cut: kept where untouched, changed where all calls agree, else written out."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.coupling import couple
from onnxprune.coupling.keeps import keep_masks
from onnxprune.model.diff import field_diff
from onnxprune.model.functions import expand
from onnxprune.model.view import build_view
from onnxprune.rewrite.collapse import collapse
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.verify import TOLERANCE, Verifier, relative_error
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import trace

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]


def _array(*shape):
    rng = np.random.default_rng(sum(shape))
    return (rng.standard_normal(shape) / 2).astype(np.float32)


def _function(name, inputs, *nodes):
    return helper.make_function("my", name, inputs, ["y"], list(nodes), _OPSETS)


def _constant(name, value):
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))


# A layer with given weights: whatever is cut, the function says the same.
_DENSE = _function(
    "dense", ["x", "w"],
    helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
    helper.make_node("Relu", ["p"], ["y"]),
)  # fmt: skip
# One with a weight of its own, from 6 to 6.
_OWN = _function(
    "own", ["x"],
    _constant("w", _array(6, 6)),
    helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
    helper.make_node("Tanh", ["p"], ["y"]),
)  # fmt: skip
_NESTED = _function(
    "nested", ["x", "w"],
    helper.make_node("dense", ["x", "w"], ["d"], domain="my"),
    helper.make_node("own", ["d"], ["y"], domain="my"),
)  # fmt: skip


def _model(nodes, functions, **weights):
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 4]) for n in "xy"]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, functions=functions, opset_imports=_OPSETS, ir_version=9)


def _call(op, *inputs, out, name=""):
    return helper.make_node(op, list(inputs), [out], domain="my", name=name)


class Cut:
    """A model with functions under a cut of named groups."""

    def __init__(self, model):
        self.model = model
        self.expansion = expand(model)
        self.view = build_view(self.expansion.model, Path())
        self.feeds = [
            {"x": np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)}
            for n in (2, 3)
        ]
        self.traces = [trace(self.view, feed) for feed in self.feeds]
        self.coupling = couple(self.view, self.traces[0])
        self.groups = {g.name: g for g in self.coupling.groups}

    def collapse(self, removed=None):
        """Cut, prove, and put the functions back; nothing may be lost on either way."""
        keeps = keep_masks(
            [(self.groups[name], channels) for name, channels in (removed or {}).items()],
            self.coupling.collected.sizes,
        )
        flat = cut(self.view, self.coupling, self.traces, keeps)
        verifier = Verifier(self.view, self.traces[0], self.coupling, self.feeds)
        assert not keeps or verifier.error(flat, keeps) <= TOLERANCE
        collapsed = collapse(self.expansion, flat)
        onnx.checker.check_model(collapsed.model, full_check=True)
        assert field_diff(expand(collapsed.model).model, flat) == []
        for feed in self.feeds:
            found, wanted = (Session(m).run(feed) for m in (collapsed.model, flat))
            assert relative_error(found, wanted) <= TOLERANCE
        return collapsed


def _ops(model):
    return [node.op_type for node in model.graph.node]


@pytest.fixture
def given():
    """Two calls of a function whose weights are given, 4 -> 6 -> 8 -> 4."""
    nodes = [
        _call("dense", "x", "w", out="a", name="one"),
        _call("dense", "a", "v", out="b", name="two"),
        helper.make_node("MatMul", ["b", "u"], ["y"]),
    ]
    return Cut(_model(nodes, [_DENSE], w=_array(4, 6), v=_array(6, 8), u=_array(8, 4)))


def test_an_empty_cut_gives_back_the_file(given):
    collapsed = given.collapse()
    assert collapsed.inlined == ()
    assert field_diff(collapsed.model, given.model) == []


def test_functions_of_given_weights_are_kept(given):
    collapsed = given.collapse({"one/product": [0, 2], "two/product": [1, 5, 7]})
    assert collapsed.inlined == ()
    assert _ops(collapsed.model) == ["dense", "dense", "MatMul"]
    assert [*collapsed.model.functions] == [*given.model.functions]
    assert {t.name: [*t.dims] for t in collapsed.model.graph.initializer} == {
        "w": [4, 4],
        "v": [4, 5],
        "u": [5, 4],
    }


def _stacked():
    """Two calls of a function with its own weight: its width is one and the same throughout."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        _call("own", "a", out="b", name="one"),
        _call("own", "b", out="c", name="two"),
        helper.make_node("MatMul", ["c", "u"], ["y"]),
    ]
    return Cut(_model(nodes, [_OWN], w=_array(4, 6), u=_array(6, 4)))


def test_a_function_that_all_calls_cut_alike_is_changed_itself():
    found = Cut(_model(
        [helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
         helper.make_node("Add", ["a", "k"], ["r"]),
         _call("own", "r", out="b", name="one"),
         helper.make_node("MatMul", ["b", "u"], ["y"])],
        [_OWN], w=_array(4, 6), k=_array(6), u=_array(6, 4),
    ))  # fmt: skip
    collapsed = found.collapse({"first": [0, 1], "one/product": [3]})
    assert collapsed.inlined == ()
    assert _ops(collapsed.model) == ["MatMul", "Add", "own", "MatMul"]
    (changed,) = collapsed.model.functions
    assert [*changed.node[0].attribute[0].t.dims] == [4, 5]


def test_calls_that_are_cut_differently_are_written_out():
    found = _stacked()
    collapsed = found.collapse({"one/product": [0, 4]})
    assert collapsed.inlined == ("own",)
    assert _ops(collapsed.model) == [
        "MatMul", "Constant", "MatMul", "Tanh", "Constant", "MatMul", "Tanh", "MatMul",
    ]  # fmt: skip
    assert not collapsed.model.functions, "nobody calls it any more"


def test_one_call_is_written_out_the_other_stays():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        _call("own", "a", out="b", name="one"),
        helper.make_node("MatMul", ["b", "m"], ["c"]),
        helper.make_node("MatMul", ["x", "w"], ["d"]),
        _call("own", "d", out="e", name="two"),
        helper.make_node("MatMul", ["e", "u"], ["f"]),
        helper.make_node("Add", ["c", "f"], ["y"]),
    ]
    found = Cut(_model(nodes, [_OWN], w=_array(4, 6), m=_array(6, 4), u=_array(6, 4)))
    collapsed = found.collapse({"one/product": [0, 4]})
    assert collapsed.inlined == ("own",)
    assert _ops(collapsed.model) == [
        "MatMul", "Constant", "MatMul", "Tanh", "MatMul", "MatMul", "own", "MatMul", "Add",
    ]  # fmt: skip
    assert [f.name for f in collapsed.model.functions] == ["own"]


def test_a_function_is_written_out_around_a_call_that_stays():
    """Only the inner function with its own weight is cut, and differently between two calls."""
    nodes = [
        _call("nested", "x", "w", out="a", name="one"),
        _call("nested", "x", "v", out="b", name="two"),
        helper.make_node("Mul", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "u"], ["y"]),
    ]
    weights = {"w": _array(4, 6), "v": _array(4, 6), "u": _array(6, 4)}
    found = Cut(_model(nodes, [_DENSE, _OWN, _NESTED], **weights))
    inner = next(name for name in found.groups if name.startswith("one/"))
    collapsed = found.collapse({inner: [1]})
    assert set(collapsed.inlined) == {"nested", "own"}
    assert _ops(collapsed.model) == [
        "dense", "Constant", "MatMul", "Tanh", "nested", "Mul", "MatMul",
    ]  # fmt: skip
    assert {f.name for f in collapsed.model.functions} == {"dense", "own", "nested"}
