"""The cut: a copy of the user's proto in which whole channels are gone and nothing else changed."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune.coupling.groups import Coupling
from onnxprune.coupling.keeps import Keeps, named, take
from onnxprune.coupling.relations import Axis
from onnxprune.coupling.rescale import Rescaled
from onnxprune.model.scopes import graphs_of, numbered_nodes
from onnxprune.model.sparse import fill
from onnxprune.model.tensors import from_array
from onnxprune.model.view import Edge, View
from onnxprune.rewrite.repairs import Site, UnrepresentableError, repair
from onnxprune.rewrite.shapes import Copy, Patch, ShapeRepair
from onnxprune.runtime.trace import Trace

__all__ = ["cut"]

Array = NDArray[np.generic]


def cut(view: View, coupling: Coupling, traces: Sequence[Trace], keeps: Keeps) -> onnx.ModelProto:
    """Remove positions from axes.

    Parameters
    ----------
    view : View
    coupling : Coupling
    traces : sequence of Trace
        Of the original at different sizes of its dynamic axes; the first one is what ``keeps``
        counts positions in.
    keeps : mapping of Axis to bool array
        What stays, for every axis that loses positions; closed under the coupling.

    Returns
    -------
    ModelProto
        A copy of ``view.model`` with sliced constants, mended attributes and shape constants, and
        no stale shape annotations. Equal to the original, byte for byte, when nothing is cut.

    Raises
    ------
    UnrepresentableError
        If an operator has no parameters that mean this cut.
    """
    for axis, mask in keeps.items():
        if not mask.any():
            msg = f"nothing would stay of {axis}"
            raise UnrepresentableError(msg)
    repaired = _repair(view, coupling, traces, keeps)
    model = onnx.ModelProto()
    model.CopyFrom(view.model)
    nodes = numbered_nodes(model)
    for index, attributes in repaired.attributes.items():
        for name, value in attributes.items():
            _set_attribute(nodes[index], name, value)
    edges = {**_sliced(view, keeps), **repaired.edges}
    for undone in coupling.collected.rescaled:
        if undone.axis in keeps:
            _rescale(view, nodes, edges, undone, keeps[undone.axis])
    for edge in repaired.dropped:
        nodes[edge.node].input[edge.slot] = ""
    writer = _Writer(view, model)
    writer.write(edges)
    writer.insert(repaired.copies)
    _annotate(view, model, keeps)
    return model


@dataclass(frozen=True, slots=True)
class _Repaired:
    attributes: Mapping[int, Mapping[str, object]]
    edges: Mapping[Edge, Array]
    copies: Mapping[Edge, Copy | Patch]
    dropped: Sequence[Edge]


def _repair(view: View, coupling: Coupling, traces: Sequence[Trace], keeps: Keeps) -> _Repaired:
    """Ask every node at the cut for its new parameters, then make computed shapes agree."""
    values = {axis.value for axis in keeps}
    derived = coupling.collected.derived
    numbers = {value for index in derived for value in view.by_index[index].outputs}
    known = coupling.collected.constants | numbers
    attributes: dict[int, Mapping[str, object]] = {}
    wanted: dict[Edge, list[Array]] = {}
    dropped: list[Edge] = []
    for node in view.nodes:
        if node.index in derived or values.isdisjoint((*node.inputs, *node.outputs)):
            continue
        sites = [Site(node, trace, keeps, view.opset, known) for trace in traces]
        for site in sites:
            repair(site)
        if any(site.attributes != sites[0].attributes for site in sites):
            sites[0].refuse("its attributes depend on a dynamic axis")
        if sites[0].attributes:
            attributes[node.index] = sites[0].attributes
        dropped += [Edge(node.index, slot) for slot in sites[0].dropped]
        for slot in sites[0].parameters:
            wanted[Edge(node.index, slot)] = [site.parameters[slot] for site in sites]
    shapes = ShapeRepair(view, derived, traces, keeps)
    shapes.settle(wanted)
    return _Repaired(attributes, shapes.edges, shapes.copies, dropped)


def _sliced(view: View, keeps: Keeps) -> dict[Edge, Array]:
    """Slice every constant that carries a cut axis, per slot that reads it."""
    by_value: dict[str, list[Axis]] = defaultdict(list)
    for axis, _ in named(keeps):
        if view.is_constant(axis.value):
            by_value[axis.value].append(axis)
    edges = {}
    for value, axes in by_value.items():
        array = view.constant(value)
        for axis in sorted(axes, key=lambda a: a.by < 0):  # blocks are counted on whole axes
            try:
                array = take(array, axis, keeps[axis])
            except ValueError as error:
                raise UnrepresentableError(str(error)) from error
        for edge in view.uses[value].edges:
            edges[edge] = array
    return edges


def _rescale(
    view: View,
    nodes: Sequence[onnx.NodeProto],
    edges: dict[Edge, Array],
    undone: Rescaled,
    keep: NDArray[np.bool_],
) -> None:
    """Let a mean over fewer positions have the effect that it had with zeros for the rest."""
    ratio = len(keep) / int(keep.sum())
    if undone.epsilon is not None:
        epsilon = view.by_index[undone.epsilon].attributes.get("epsilon", 1e-5)
        assert isinstance(epsilon, float)
        _set_attribute(nodes[undone.epsilon], "epsilon", epsilon * ratio)
    for edge, power in undone.powers.items():
        value = view.by_index[edge.node].inputs[edge.slot]
        array = edges.get(edge, view.constant(value))
        edges[edge] = (array * ratio**power).astype(array.dtype)


class _Writer:
    """Writes new constants: in place where every use agrees, beside the old one where not."""

    def __init__(self, view: View, model: onnx.ModelProto) -> None:
        self.view, self.model = view, model
        self.graphs = list(graphs_of(model.graph))
        self.nodes = numbered_nodes(model)
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.sparse: dict[str, onnx.SparseTensorProto] = {}
        self.constants: dict[str, onnx.NodeProto] = {}
        self.names: set[str] = set()
        for scope, graph in zip(view.scopes, self.graphs, strict=True):
            self.initializers.update((scope.names[t.name], t) for t in graph.initializer)
            self.sparse.update((scope.names[t.values.name], t) for t in graph.sparse_initializer)
            outputs = [(v, n) for n in graph.node for v in n.output if v]
            self.constants.update((scope.names[v], n) for v, n in outputs)
            self.names.update(t.name for t in (*graph.initializer, *graph.input))
            self.names.update(t.values.name for t in graph.sparse_initializer)
            self.names.update(v for v, _ in outputs)
        self.made: dict[tuple[str, bytes, tuple[int, ...]], str] = {}

    def write(self, edges: Mapping[Edge, Array]) -> None:
        by_original: dict[str, dict[Edge, Array]] = defaultdict(dict)
        for edge, array in edges.items():
            node = self.view.by_index[edge.node]
            new = edge.slot >= len(node.inputs)
            value = f"{node.name}_{edge.slot}" if new else node.inputs[edge.slot]
            by_original[self.view.original(value)][edge] = array
        for original, changed in by_original.items():
            if not self._in_place(original, changed):
                for edge, array in changed.items():
                    self._beside(original, edge, array)

    def insert(self, copies: Mapping[Edge, Copy | Patch]) -> None:
        """Put copies of shape nodes, or patches of what they give, in front of their readers."""
        placed: dict[int, list[onnx.NodeProto]] = defaultdict(list)
        for edge, copy in copies.items():
            reader = self.nodes[edge.node]
            value = reader.input[edge.slot]
            proto = self._patch(value, copy) if isinstance(copy, Patch) else self._copy(value, copy)
            reader.input[edge.slot] = proto.output[0]
            placed[edge.node].append(proto)
        for scope, graph in reversed(list(zip(self.view.scopes, self.graphs, strict=True))):
            nodes = list(graph.node)
            places = range(scope.first, scope.first + len(nodes))
            if not placed.keys().isdisjoint(places):
                del graph.node[:]
                for index, node in zip(places, nodes, strict=True):
                    graph.node.extend([*placed[index], node])

    def _copy(self, value: str, copy: Copy) -> onnx.NodeProto:
        proto = onnx.NodeProto()
        proto.CopyFrom(self.nodes[copy.node.index])
        name = self._fresh(f"{value}_cut")
        proto.name, proto.output[0] = name, name
        for slot, array in copy.replaced.items():
            proto.input[slot] = self._constant(f"{name}_{slot}", array)
        return proto

    def _patch(self, value: str, patch: Patch) -> onnx.NodeProto:
        name = self._fresh(f"{value}_cut")
        mask = self._constant(f"{name}_where", patch.mask)
        numbers = self._constant(f"{name}_numbers", patch.numbers)
        return helper.make_node("Where", [mask, numbers, value], [name], name=name)

    def _in_place(self, original: str, changed: Mapping[Edge, Array]) -> bool:
        uses = {e for use in self.view.uses.values() if use.original == original for e in use.edges}
        arrays = list(changed.values())
        same = all(np.array_equal(arrays[0], a) for a in arrays[1:])
        if not uses or uses != set(changed) or not same:
            return False
        if original in self.initializers:
            tensor = self.initializers[original]
            tensor.CopyFrom(from_array(arrays[0], tensor))
            return True
        if original in self.sparse:
            fill(self.sparse[original], arrays[0])
            return True
        node = self.constants[original]
        attribute = node.attribute[0]
        if attribute.name == "value":
            attribute.t.CopyFrom(from_array(arrays[0], attribute.t))
        elif attribute.name == "sparse_value":
            fill(attribute.sparse_tensor, arrays[0])
        else:
            _set_attribute(node, attribute.name, arrays[0].tolist())
        return True

    def _beside(self, original: str, edge: Edge, array: Array) -> None:
        """Give one slot a constant of its own."""
        inputs = self.nodes[edge.node].input
        inputs.extend([""] * (edge.slot + 1 - len(inputs)))
        inputs[edge.slot] = self._constant(original, array)

    def _constant(self, like: str, array: Array) -> str:
        """Add an initializer named after another value; equal ones are stored once.

        All go into the main graph: bodies read them from there.
        """
        key = (like, array.tobytes(), array.shape)
        if key not in self.made:
            self.made[key] = name = self._fresh(f"{like}_cut")
            tensor = numpy_helper.from_array(array, name)
            self.model.graph.initializer.append(tensor)
            if self.model.ir_version < 4:  # old models list every initializer as an input
                info = helper.make_tensor_value_info(name, tensor.data_type, array.shape)
                self.model.graph.input.append(info)
        return self.made[key]

    def _fresh(self, wish: str) -> str:
        """Return a name that nobody has yet."""
        name, count = wish, 1
        while name in self.names:
            count += 1
            name = f"{wish}{count}"
        self.names.add(name)
        return name


def _set_attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    """Set an attribute, or drop it if ``value`` is None."""
    for index, attribute in enumerate(node.attribute):
        if attribute.name == name:
            if value is None:
                del node.attribute[index]
                return
            doc = attribute.doc_string
            attribute.CopyFrom(helper.make_attribute(name, value))
            attribute.doc_string = doc
            return
    if value is not None:
        node.attribute.append(helper.make_attribute(name, value))


def _annotate(view: View, model: onnx.ModelProto, keeps: Keeps) -> None:
    """Bring shape annotations of cut values up to date."""
    sizes: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for axis, mask in ((a, m) for a, m in keeps.items() if a.by < 0):
        sizes[view.original(axis.value)][axis.axis] = (len(mask), int(mask.sum()))
    for scope, graph in zip(view.scopes, graphs_of(model.graph), strict=True):
        whole = {t.name: tuple(t.dims) for t in scope.graph.initializer}
        kept = {t.name for t in graph.initializer if tuple(t.dims) == whole.get(t.name)}
        for info in (*graph.value_info, *graph.input, *graph.output):
            value = scope.names.get(info.name)
            if value in sizes and info.name not in kept:
                _resize(info, sizes[value])


def _resize(info: onnx.ValueInfoProto, sizes: Mapping[int, tuple[int, int]]) -> None:
    dims = info.type.tensor_type.shape.dim
    for number, (before, after) in sizes.items():
        if number >= len(dims):
            continue
        if dims[number].dim_value == before:
            dims[number].dim_value = after
        else:  # a number of other data, or a symbol that others keep ("4*batch")
            dims[number].ClearField("value")
