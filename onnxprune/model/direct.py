"""States of stacked recurrent layers, read where they are made.

Exporters gather the last states of all layers in one Concat, from which ``hidden[-1]`` takes those
of one layer. The Concat asks for layers of one width, for the sake of numbers that nobody reads.
"""

from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxprune.model.view import Node, View, build_view

__all__ = ["read_directly"]

_RECURRENT = ("GRU", "LSTM", "RNN")
_Take = tuple[Node, str, NDArray[np.int64]]


def read_directly(model: onnx.ModelProto, base: Path) -> onnx.ModelProto:
    """Let each Gather of one layer's last states read that layer, if the Concat has no other use.

    Parameters
    ----------
    model : ModelProto
        Not changed.
    base : Path
        Folder that external data is relative to.

    Returns
    -------
    ModelProto
        Computes the same outputs, without such a Concat; the model itself where there is none.
    """
    if sum(node.op_type in _RECURRENT for node in model.graph.node) < 2:
        return model
    view = build_view(model, base)
    found = {node.index: takes for node in view.nodes if (takes := _takes(view, node))}
    if not found:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for take, part, index in (take for takes in found.values() for take in takes):
        name = f"{take.outputs[0]}/index"
        copy.graph.initializer.append(numpy_helper.from_array(index, name))
        copy.graph.node[take.index].input[:] = [part, name]
    for number in sorted(found, reverse=True):
        del copy.graph.node[number]
    return copy


def _takes(view: View, join: Node) -> list[_Take]:
    """Return what reads one layer each of a Concat of states; nothing if anything reads more."""
    if join.op_type != "Concat" or join.attributes["axis"] != 0 or join.owner != -1:
        return []
    (joined,) = join.outputs
    sizes = [_directions(view, value) for value in join.inputs]
    edges = view.consumers.get(joined, ())
    if joined in view.outputs or not all(sizes) or len(sizes) < 2:
        return []
    borders = list(pairwise(accumulate(sizes, initial=0)))
    takes = []
    for node in (view.by_index[edge.node] for edge in edges):
        index = _index(view, node)
        if index is None:
            return []
        index = np.where(index < 0, index + sum(sizes), index)
        within = [k for k, (a, b) in enumerate(borders) if ((a <= index) & (index < b)).all()]
        if not within:
            return []
        takes.append((node, join.inputs[within[0]], index - borders[within[0]][0]))
    return takes


def _directions(view: View, state: str) -> int:
    """How many directions a last state of a recurrent layer has; 0 for other values."""
    maker = view.producers.get(state)
    if maker is None or maker.op_type not in _RECURRENT or state not in maker.outputs[1:]:
        return 0
    return 2 if maker.attributes.get("direction") == b"bidirectional" else 1


def _index(view: View, node: Node) -> NDArray[np.int64] | None:
    """Return what a Gather takes of the first axis; None where that, or the reader, is another."""
    takes = node.op_type == "Gather" and node.attributes.get("axis", 0) == 0 and node.owner == -1
    if not takes or not view.is_constant(node.inputs[1]):
        return None
    return view.constant(node.inputs[1]).astype(np.int64)
