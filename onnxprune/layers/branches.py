"""Residual branches: what is computed from a value and added to it again.

Such a branch can go as a whole. What stays of it is a constant: what it added on average.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from onnxprune.coupling.groups import Coupling
from onnxprune.model.scopes import values_read
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Node, View
from onnxprune.runtime.session import Feeds, Session, keep_outputs, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Branch", "StandIn", "dead_nodes", "find_branches", "stand_ins", "without"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch and the sum that it ends in.

    Attributes
    ----------
    total : str
        The sum.
    value : str
        What the branch adds to it.
    axis : int
        Of the channels.
    rank : int
    """

    total: str
    value: str
    axis: int
    rank: int


@dataclass(frozen=True, slots=True, eq=False)
class StandIn:
    """A branch that goes, and what its sum receives instead.

    Attributes
    ----------
    branch : Branch
    held : float array, shape (channels,)
    """

    branch: Branch
    held: Array


def find_branches(view: View, trace: Trace, coupling: Coupling) -> list[Branch]:
    """Find the residual branches of a model, in the order of the graph.

    Parameters
    ----------
    view, trace, coupling
        Of the model.

    Returns
    -------
    list of Branch
        Of the main graph; both addends have the sum's shape.
    """
    known = {m.axis.value: m.axis.axis for g in coupling.groups for m in g.members}
    kind = _kinds(view.model)
    return [
        found
        for node in view.nodes
        for found in _branches(view, trace, known, node)
        if kind(found.value)
    ]


def _branches(view: View, trace: Trace, axes: dict[str, int], node: Node) -> Iterator[Branch]:
    if node.op_type != "Add" or node.owner >= 0 or node.inputs[0] == node.inputs[1]:
        return
    total = node.outputs[0]
    shapes = {trace.shapes.get(name) for name in (*node.inputs, total)}
    if len(shapes) != 1 or None in shapes or any(view.is_constant(v) for v in node.inputs):
        return
    rank = len(trace.shapes[total])
    if rank < 2 or trace.dtypes[total].kind != "f":
        return
    for value, skip in (node.inputs, node.inputs[::-1]):
        own = len(view.consumers.get(value, ())) == 1 and value not in view.outputs
        if own and view.depends(value, skip):
            yield Branch(total, value, axes.get(total, 1 if rank > 3 else rank - 1), rank)
            return


def stand_ins(view: View, branches: Sequence[Branch], feeds: Sequence[Feeds]) -> list[StandIn]:
    """Average what branches add, over samples and positions.

    Parameters
    ----------
    view : View
    branches : sequence of Branch
    feeds : sequence of Feeds

    Returns
    -------
    list of StandIn
    """
    names = [branch.value for branch in branches]
    session = Session(with_outputs(view.real, names))
    sums: list[Array] = [np.zeros(1) for _ in branches]
    counts = np.zeros(len(branches))
    for feed in feeds:
        found = session.run(feed, names)
        for number, branch in enumerate(branches):
            rows = np.moveaxis(found[branch.value], branch.axis, -1)
            rows = rows.reshape(-1, rows.shape[-1])
            sums[number] = sums[number] + rows.sum(axis=0, dtype=np.float64)
            counts[number] += len(rows)
    return [StandIn(b, s / n) for b, s, n in zip(branches, sums, counts, strict=True)]


def without(model: onnx.ModelProto, gone: Sequence[StandIn]) -> onnx.ModelProto:
    """Copy a model without some branches, and without what only they read.

    Parameters
    ----------
    model : ModelProto
    gone : sequence of StandIn

    Returns
    -------
    ModelProto
    """
    shorter = onnx.ModelProto()
    shorter.CopyFrom(model)
    graph = shorter.graph
    before, kind = _read(graph), _kinds(model)
    sums = {output: node for node in graph.node for output in node.output}
    for one in gone:
        node = sums[one.branch.total]
        name = f"{one.branch.value}_mean"
        node.input[list(node.input).index(one.branch.value)] = name
        shape = [len(one.held), *[1] * (one.branch.rank - 1 - one.branch.axis)]
        dtype = helper.tensor_dtype_to_np_dtype(kind(one.branch.value))
        held = one.held.astype(dtype).reshape(shape)
        graph.initializer.append(numpy_helper.from_array(held, name))
    keep_outputs(shorter, [output.name for output in graph.output])
    unread = before - _read(graph)
    kept = [t for t in graph.initializer if t.name not in unread]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    return shorter


def _kinds(model: onnx.ModelProto) -> Callable[[str], int]:
    """Return how to look up the element type of a computed value; 0 where nobody knows it."""
    if upcast(model) is model:
        return lambda _: TensorProto.FLOAT
    inferred = shape_inference.infer_shapes(model).graph.value_info
    types = {value.name: value.type.tensor_type.elem_type for value in inferred}
    return lambda name: types.get(name, 0)


def _read(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in values_read(node)}


def dead_nodes(view: View, shorter: onnx.ModelProto) -> list[Node]:
    """Return the nodes of the main graph that a shorter model no longer has."""
    left = {output for node in shorter.graph.node for output in node.output}
    return [n for n in view.nodes if n.owner < 0 and not left.intersection(n.outputs)]
