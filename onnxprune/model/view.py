"""A thin index over a ModelProto: who makes a value, who uses it, what is constant."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxprune.model.domains import opset_of, short
from onnxprune.model.scopes import Scope, find_scopes
from onnxprune.model.sparse import dense
from onnxprune.model.tensors import to_array
from onnxprune.model.upcast import upcast

__all__ = ["Body", "Edge", "Node", "Use", "View", "build_view"]

Array = NDArray[np.generic]
_CONSTANT_FIELDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True, slots=True)
class Edge:
    """One input slot of one node, of whatever graph."""

    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class Use:
    """Where a value of the view lives in the file; ``edges`` are the slots that read it."""

    original: str
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """What a body of control flow takes and gives, in value names of the view."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator; ``inputs`` and ``outputs`` hold value names of the view, "" where absent.

    ``bodies`` maps attributes to the bodies they hold; ``owner`` is the number of the node in
    whose body this one lies, -1 in the main graph.
    """

    index: int
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object]
    proto: onnx.NodeProto = field(repr=False)
    bodies: Mapping[str, Body] = field(default_factory=dict)
    owner: int = -1


@dataclass(frozen=True, eq=False)
class View:
    """The index of a model, bodies of control flow included.

    A value inside a body is called ``node/attribute/value``; bodies read outer values by the
    names that these have outside. A constant of rank <= 1 is one value *per use* (exporters share
    identical vectors between unrelated layers); a constant of higher rank is one value however
    often it is used.
    Constant nodes are constants, not nodes.

    Attributes
    ----------
    model : ModelProto
        The truth; never changed.
    base : Path
        Folder that external data is relative to.
    nodes : tuple of Node
        In the order of the file, bodies after the main graph; Constant nodes left out.
    scopes : tuple of Scope
        The main graph and all bodies.
    uses : mapping of value name to Use
        Of every constant.
    inputs, outputs : tuple of str
        Graph inputs that are not initializers, and graph outputs.
    opset : int
        Of the standard's operators.
    """

    model: onnx.ModelProto
    base: Path
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    scopes: tuple[Scope, ...]
    uses: Mapping[str, Use]
    _tensors: Mapping[str, onnx.TensorProto | Array]

    @cached_property
    def real(self) -> onnx.ModelProto:
        """The fp32 clone, which cuts are proven and measured on; see `upcast`."""
        return upcast(self.model)

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return {}

    def is_constant(self, value: str) -> bool:
        """Say whether a value is an initializer or made by a Constant node."""
        return value in self.uses

    def constant(self, value: str) -> Array:
        """Return a constant's array; memory-mapped where the file keeps it outside."""
        original = self.uses[value].original
        if original not in self._arrays:
            tensor = self._tensors[original]
            array = to_array(tensor, self.base) if isinstance(tensor, onnx.TensorProto) else tensor
            self._arrays[original] = array
        return self._arrays[original]

    def fixed(self, value: str) -> Array | None:
        """Return what a value always is; None where it is computed.

        Exporters write equal vectors once, and hand them to the other readers through Identity.
        """
        while value not in self.uses:
            node = self.producers.get(value)
            if node is None or node.op_type != "Identity":
                return None
            value = node.inputs[0]
        return self.constant(value)

    def depends(self, value: str, source: str) -> bool:
        """Say whether a value is computed from another one (or is it)."""
        waiting, seen = [value], set()
        while waiting:
            name = waiting.pop()
            if name == source:
                return True
            if name not in seen and name in self.producers:
                seen.add(name)
                node = self.producers[name]
                waiting.extend(node.inputs)
                waiting.extend(v for body in node.bodies.values() for v in body.outputs)
        return False

    @cached_property
    def producers(self) -> dict[str, Node]:
        """Map every computed value to the node that makes it."""
        return {value: node for node in self.nodes for value in node.outputs if value}

    @cached_property
    def consumers(self) -> dict[str, tuple[Edge, ...]]:
        """Map every value to the slots that read it."""
        found: dict[str, list[Edge]] = defaultdict(list)
        for node in self.nodes:
            for slot, value in enumerate(node.inputs):
                if value:
                    found[value].append(Edge(node.index, slot))
        return {value: tuple(edges) for value, edges in found.items()}

    @cached_property
    def by_index(self) -> dict[int, Node]:
        """Map the numbers of nodes to nodes; in the main graph they are places in the file."""
        return {node.index: node for node in self.nodes}

    @cached_property
    def inner(self) -> frozenset[str]:
        """Values of bodies: only their nodes can read them, and no run can show them."""
        found = {value for node in self.nodes if node.owner >= 0 for value in node.outputs}
        bodies = (body for node in self.nodes for body in node.bodies.values())
        return frozenset(found.union(*(body.inputs for body in bodies)) - {""})

    def original(self, value: str) -> str:
        """Return the name that a value has in the file; ``node/attribute/value`` in bodies."""
        return self.uses[value].original if value in self.uses else value


def build_view(model: onnx.ModelProto, base: Path) -> View:
    """Index a model.

    Parameters
    ----------
    model : ModelProto
        External data need not be loaded.
    base : Path
        Folder that external data is relative to.

    Returns
    -------
    View
    """
    scopes = find_scopes(model)
    tensors = {name: tensor for scope in scopes for name, tensor in _constants(scope, base)}
    edges: dict[str, list[Edge]] = defaultdict(list)
    for scope in scopes:
        for index, proto in enumerate(scope.graph.node, scope.first):
            for slot, name in enumerate(proto.input):
                if (value := scope.names.get(name, name)) in tensors:
                    edges[value].append(Edge(index, slot))
    names = _split_uses(tensors, edges)
    return View(
        model=model,
        base=base,
        opset=opset_of(model),
        nodes=tuple(_nodes(scopes, tensors, names)),
        scopes=scopes,
        uses=dict(_uses(tensors, edges, names)),
        _tensors=tensors,
        inputs=tuple(i.name for i in model.graph.input if i.name not in tensors),
        outputs=tuple(o.name for o in model.graph.output),
    )


def _constants(scope: Scope, base: Path) -> Iterator[tuple[str, onnx.TensorProto | Array]]:
    for tensor in scope.graph.initializer:
        yield scope.names[tensor.name], tensor
    for sparse in scope.graph.sparse_initializer:
        yield scope.names[sparse.values.name], dense(sparse, base)
    for node in scope.graph.node:
        if node.op_type == "Constant" and not short(node.domain) and node.attribute:
            value, attribute = scope.names[node.output[0]], node.attribute[0]
            if attribute.name == "value":
                yield value, attribute.t
            elif attribute.name == "sparse_value":
                yield value, dense(attribute.sparse_tensor, base)
            elif attribute.name in _CONSTANT_FIELDS:
                dtype = _CONSTANT_FIELDS[attribute.name]
                yield value, np.asarray(helper.get_attribute_value(attribute), dtype)


def _split_uses(
    tensors: Mapping[str, onnx.TensorProto | Array], edges: Mapping[str, list[Edge]]
) -> dict[Edge, str]:
    """Name the value that each constant's slot reads: one name per use for rank <= 1."""
    names = {}
    for value, slots in edges.items():
        tensor = tensors[value]
        rank = len(tensor.dims) if isinstance(tensor, onnx.TensorProto) else tensor.ndim
        for count, edge in enumerate(slots):
            names[edge] = value if rank > 1 or count == 0 else f"{value}@{edge.node}.{edge.slot}"
    return names


def _uses(
    tensors: Iterable[str], edges: Mapping[str, list[Edge]], names: Mapping[Edge, str]
) -> Iterator[tuple[str, Use]]:
    for original in tensors:
        grouped: dict[str, list[Edge]] = {original: []}
        for edge in edges.get(original, ()):
            grouped.setdefault(names[edge], []).append(edge)
        for value, found in grouped.items():
            yield value, Use(original, tuple(found))


def _nodes(
    scopes: tuple[Scope, ...],
    tensors: Mapping[str, onnx.TensorProto | Array],
    names: Mapping[Edge, str],
) -> Iterator[Node]:
    bodies: dict[int, dict[str, Body]] = defaultdict(dict)
    for scope in scopes:
        bodies[scope.owner][scope.attribute] = Body(
            tuple(scope.names[i.name] for i in scope.graph.input),
            tuple(scope.names.get(o.name, o.name) for o in scope.graph.output),
        )
    for scope in scopes:
        for place, proto in enumerate(scope.graph.node):
            index = scope.first + place
            outputs = tuple(scope.names[v] if v else "" for v in proto.output)
            if outputs and outputs[0] in tensors:
                continue
            inputs = (scope.names.get(v, v) for v in proto.input)
            yield Node(
                index,
                scope.nodes[place],
                proto.op_type,
                short(proto.domain),
                tuple(names.get(Edge(index, slot), value) for slot, value in enumerate(inputs)),
                outputs,
                _attributes(proto),
                proto,
                bodies.get(index, {}),
                scope.owner,
            )


def _attributes(proto: onnx.NodeProto) -> dict[str, object]:
    graphs = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    return {a.name: helper.get_attribute_value(a) for a in proto.attribute if a.type not in graphs}
