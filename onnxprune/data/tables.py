"""How many rows has the table that an integer input points into: a vocabulary, positions, types."""

from collections.abc import Iterator, Mapping

import onnx

from onnxprune.data.specs import InputSpec

__all__ = ["table_rows"]

# Operators through which a value arrives unchanged, if perhaps moved, from input 0 (Concat: any).
_MOVING = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
_PICKING = frozenset({"Gather", "GatherElements", "GatherND", "Slice", "Split"})
_PASSING = _MOVING | _PICKING | {"Cast", "Concat", "Identity"}
_SAME_SHAPE = frozenset({"Cast", "DequantizeLinear", "Identity", "QuantizeLinear"})
# Slots (index, table) by operator; Gather's table has its rows on the axis attribute, others on 0.
_INDEXED = {
    "Gather": ((1, 0),),
    "GatherND": ((1, 0),),
    "EmbedLayerNormalization": ((0, 2), (1, 4), (7, 3)),
}


def table_rows(model: onnx.ModelProto, specs: tuple[InputSpec, ...]) -> dict[str, int]:
    """Return the rows of the smallest constant table that each integer input indexes.

    Values are followed through casts and movement into lookups, bodies of If, Loop and Scan
    included; inputs that reach no constant table are absent.
    """
    nodes = list(_nodes(model.graph))
    shapes = dict(_constant_shapes(model.graph, nodes))
    found: dict[str, int] = {}
    for spec in specs:
        if spec.dtype.kind not in "iu":
            continue
        rows = list(_rows_reached(spec.name, nodes, shapes))
        if rows:
            found[spec.name] = min(rows)
    return found


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _nodes(body)


def _constant_shapes(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    known: dict[str, tuple[int, ...]] = {}
    for tensor in _initializers(graph):
        known[tensor.name] = tuple(tensor.dims)
    for node in nodes:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            known[node.output[0]] = tuple(node.attribute[0].t.dims)
        elif node.op_type in _SAME_SHAPE and node.input[0] in known:
            known[node.output[0]] = known[node.input[0]]
    yield from known.items()


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _initializers(body)


def _rows_reached(
    name: str, nodes: list[onnx.NodeProto], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[int]:
    reached = {name}
    for node in nodes:  # in topological order, bodies right after their node
        for index, source in _INDEXED.get(node.op_type, ()):
            if len(node.input) > max(index, source) and node.input[index] in reached:
                shape = shapes.get(node.input[source], ())
                axis = _axis(node) if node.op_type == "Gather" else 0
                if -len(shape) <= axis < len(shape) and shape[axis] > 0:
                    yield shape[axis]
        sources = node.input if node.op_type == "Concat" else node.input[:1]
        if node.op_type in _PASSING and not reached.isdisjoint(sources):
            reached |= set(node.output)


def _axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 0)
