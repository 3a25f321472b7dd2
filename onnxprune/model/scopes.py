"""The graphs of a model, bodies of control flow included: nodes numbered, names told apart."""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

__all__ = [
    "Scope",
    "bodies_of",
    "captured_values",
    "find_scopes",
    "graphs_of",
    "numbered_nodes",
    "values_read",
]


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """The main graph, or one body of a node.

    Attributes
    ----------
    graph : GraphProto
    prefix : str
        What its names are told apart by: "" for the main graph, else ``node/attribute/``.
    first : int
        Number of its first node; main graph first, every body behind the graph it lies in.
    owner : int
        Number of the node whose body it is, -1 for the main graph.
    attribute : str
        Attribute of the owner that holds it.
    nodes : tuple of str
        Names of its nodes, unique in the model.
    names : mapping of str to str
        What each value that its nodes may read is called in the whole model.
    """

    graph: onnx.GraphProto
    prefix: str
    first: int
    owner: int
    attribute: str
    nodes: tuple[str, ...]
    names: Mapping[str, str]


def bodies_of(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the bodies of a node with the names of their attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for number, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}.{number}", graph


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and all bodies in it, in the order that nodes are numbered in."""
    yield graph
    for node in graph.node:
        for _, body in bodies_of(node):
            yield from graphs_of(body)


def numbered_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """List the nodes of all graphs: the place of a node is its number."""
    return [node for graph in graphs_of(model.graph) for node in graph.node]


def captured_values(node: onnx.NodeProto) -> set[str]:
    """Return every value name that a node's bodies read; inner names do no harm."""
    found: set[str] = set()
    for _, body in bodies_of(node):
        found.update(output.name for output in body.output)
        for inner in body.node:
            found.update(values_read(inner))
    return found


def values_read(node: onnx.NodeProto) -> list[str]:
    """Return what a node reads: its inputs, then what its bodies capture."""
    return [*node.input, *sorted(captured_values(node))]


def find_scopes(model: onnx.ModelProto) -> tuple[Scope, ...]:
    """Tell the names of all graphs of a model apart, in the order of `graphs_of`."""
    walk = _Walk()
    walk.visit(model.graph, "", -1, "", ChainMap())
    return tuple(walk.found)


class _Walk:
    def __init__(self) -> None:
        self.found: list[Scope] = []
        self.count = 0
        self.values: set[str] = set()
        self.nodes: set[str] = set()

    def visit(
        self,
        graph: onnx.GraphProto,
        prefix: str,
        owner: int,
        attribute: str,
        outer: ChainMap[str, str],
    ) -> None:
        bound = [
            *(value.name for value in graph.input),
            *(tensor.name for tensor in graph.initializer),
            *(sparse.values.name for sparse in graph.sparse_initializer),
            *(value for node in graph.node for value in node.output if value),
        ]
        own = {name: _fresh(prefix + name, self.values) for name in dict.fromkeys(bound)}
        names = outer.new_child(own)
        nodes = tuple(
            _fresh(prefix + (node.name or f"{node.op_type}_{place}"), self.nodes, f"_{place}")
            for place, node in enumerate(graph.node)
        )
        first = self.count
        self.count += len(graph.node)
        self.found.append(Scope(graph, prefix, first, owner, attribute, nodes, names))
        for place, node in enumerate(graph.node):
            for where, body in bodies_of(node):
                self.visit(body, f"{nodes[place]}/{where}/", first + place, where, names)


def _fresh(wish: str, taken: set[str], mark: str = "'") -> str:
    """Return a name that nobody has yet: the wish, or the wish with a mark behind it."""
    while wish in taken:
        wish += mark
    taken.add(wish)
    return wish
