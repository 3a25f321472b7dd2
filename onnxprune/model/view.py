"""A thin index over a ModelProto: who makes a value, who uses it, what is constant."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from onnxprune.model.tensors import to_array

__all__ = ["Edge", "Node", "Use", "View", "build_view"]

Array = NDArray[np.generic]
_DEFAULT_DOMAINS = ("", "ai.onnx")
_CONSTANT_FIELDS = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


@dataclass(frozen=True, slots=True)
class Edge:
    """One input slot of one node."""

    node: int
    slot: int


@dataclass(frozen=True, slots=True)
class Use:
    """Where a value of the view lives in the file; ``edges`` are the slots that read it."""

    original: str
    edges: tuple[Edge, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator; ``inputs`` and ``outputs`` hold value names of the view, "" where absent.

    ``captured`` names the outer values that bodies of control flow read.
    """

    index: int
    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    captured: tuple[str, ...]
    attributes: Mapping[str, object]
    proto: onnx.NodeProto = field(repr=False)


@dataclass(frozen=True, eq=False)
class View:
    """The index of a model's main graph.

    A constant of rank <= 1 is one value *per use* (exporters share identical vectors between
    unrelated layers); a constant of higher rank is one value however often it is used.
    Constant nodes are constants, not nodes.

    Attributes
    ----------
    model : ModelProto
        The truth; never changed.
    base : Path
        Folder that external data is relative to.
    nodes : tuple of Node
        In the order of the file, Constant nodes left out.
    uses : mapping of value name to Use
        Of every constant.
    inputs, outputs : tuple of str
        Graph inputs that are not initializers, and graph outputs.
    """

    model: onnx.ModelProto
    base: Path
    opset: int
    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    uses: Mapping[str, Use]
    _tensors: Mapping[str, onnx.TensorProto | Array]

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
        """Map positions in the file's node list to nodes."""
        return {node.index: node for node in self.nodes}

    def original(self, value: str) -> str:
        """Return the name that a value has in the file."""
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
    tensors = dict(_constants(model.graph))
    edges: dict[str, list[Edge]] = defaultdict(list)
    for index, proto in enumerate(model.graph.node):
        for slot, value in enumerate(proto.input):
            if value in tensors:
                edges[value].append(Edge(index, slot))
    names = _split_uses(tensors, edges)
    opset = max((o.version for o in model.opset_import if o.domain in _DEFAULT_DOMAINS), default=1)
    nodes = tuple(_nodes(model.graph, tensors, names))
    uses: dict[str, Use] = {}
    grouped: dict[str, list[Edge]] = defaultdict(list)
    for edge, value in names.items():
        grouped[value].append(edge)
    for value, found in grouped.items():
        slot = model.graph.node[found[0].node].input[found[0].slot]
        uses[value] = Use(slot, tuple(found))
    for value in tensors.keys() - edges.keys():  # read by bodies or by nobody
        uses[value] = Use(value, ())
    return View(
        model=model,
        base=base,
        opset=opset,
        nodes=nodes,
        uses=uses,
        _tensors=tensors,
        inputs=tuple(i.name for i in model.graph.input if i.name not in tensors),
        outputs=tuple(o.name for o in model.graph.output),
    )


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto | Array]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in _DEFAULT_DOMAINS and node.attribute:
            attribute = node.attribute[0]
            if attribute.name == "value":
                yield node.output[0], attribute.t
            elif attribute.name in _CONSTANT_FIELDS:
                dtype = _CONSTANT_FIELDS[attribute.name]
                yield node.output[0], np.asarray(helper.get_attribute_value(attribute), dtype)


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


def _nodes(
    graph: onnx.GraphProto,
    tensors: Mapping[str, onnx.TensorProto | Array],
    names: Mapping[Edge, str],
) -> Iterator[Node]:
    seen: set[str] = set()
    for index, proto in enumerate(graph.node):
        if proto.output and proto.output[0] in tensors:
            continue
        name = proto.name or f"{proto.op_type}_{index}"
        if name in seen:
            name = f"{name}_{index}"
        seen.add(name)
        inputs = tuple(names.get(Edge(index, s), v) for s, v in enumerate(proto.input))
        attributes = {
            a.name: helper.get_attribute_value(a)
            for a in proto.attribute
            if a.type not in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
        }
        domain = "" if proto.domain in _DEFAULT_DOMAINS else proto.domain
        yield Node(
            index,
            name,
            proto.op_type,
            domain,
            inputs,
            tuple(proto.output),
            tuple(sorted(_captured(proto))),
            attributes,
            proto,
        )


def _captured(node: onnx.NodeProto) -> set[str]:
    """Outer values read inside a node's bodies."""
    free: set[str] = set()
    for attribute in node.attribute:
        bodies = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else attribute.graphs
        for body in bodies:
            free |= _free_values(body)
    return free


def _free_values(graph: onnx.GraphProto) -> set[str]:
    bound = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    free: set[str] = set()
    for node in graph.node:
        free |= {v for v in node.input if v and v not in bound}
        free |= _captured(node) - bound
        bound |= set(node.output)
    return free | {o.name for o in graph.output if o.name not in bound}
