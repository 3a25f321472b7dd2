"""Shapes computed in the graph, made right: cut sizes become constants, others stay dynamic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Edge, Node, View
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.single import single
from onnxprune.runtime.trace import Trace

__all__ = ["Copy", "Patch", "ShapeRepair"]

Array = NDArray[np.generic]
_PASSES = 3  # mending one reader of a shared number may undo another; it then gets its own
# They keep the flat order of elements, so one element can be followed through them.
_SAME_ORDER = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy of a Concat with some of its inputs replaced by constants."""

    node: Node
    replaced: Mapping[int, Array]


@dataclass(frozen=True, slots=True)
class Patch:
    """Numbers of which some are replaced by constants: Where(mask, numbers, what was read)."""

    mask: Array
    numbers: Array


class ShapeRepair:
    """Decides which shape arithmetic has to be overridden, and with what.

    Parameters
    ----------
    view : View
    derived : frozenset of int
        Nodes that compute with shapes.
    traces : sequence of Trace
        Of the original at different sizes of its dynamic axes: a number that differs between
        them is dynamic.
    keeps : mapping of Axis to mask

    Attributes
    ----------
    edges : dict of Edge to array
        Slots that must read a constant instead of what they read now.
    copies : dict of Edge to Copy or Patch
        Slots that must read a copy of the Concat they read now, with some inputs replaced: layers
        that shared one computed shape may part in width. Or the numbers they read now, patched.
    """

    def __init__(
        self, view: View, derived: frozenset[int], traces: Sequence[Trace], keeps: Keeps
    ) -> None:
        self.view, self.derived, self.traces, self.keeps = view, derived, traces, keeps
        self.edges: dict[Edge, Array] = {}
        # In the order of the graph: two runs must make the same file.
        made = (v for i in sorted(derived) for v in view.by_index[i].outputs if v)
        self._numbers = dict.fromkeys(made)
        self.copies: dict[Edge, Copy | Patch] = {}
        self._symbols: set[Edge] = set()
        self._evaluated: list[dict[str, Array]] | None = None

    def settle(self, wanted: Mapping[Edge, Sequence[Array]]) -> None:
        """Override what is needed so that every consumer of a number reads the wanted one.

        Parameters
        ----------
        wanted : mapping of Edge to one array per trace
            What parameter inputs of cut nodes must read; every other consumer outside the shape
            arithmetic keeps what it read in the original.

        Raises
        ------
        UnrepresentableError
            If no constant can say it.
        """
        every = {edge: self._original(edge) for edge in self._boundary()} | dict(wanted)
        for _ in range(_PASSES):
            for edge, arrays in every.items():
                self._fix(edge, arrays)
            if all(self._equal(edge, arrays) for edge, arrays in every.items()):
                return
        unequal = next(edge for edge, arrays in every.items() if not self._equal(edge, arrays))
        node = self.view.by_index[unequal.node]
        msg = f"{node.op_type} {node.name}: its computed shape serves several masters"
        raise UnrepresentableError(msg)

    def _boundary(self) -> list[Edge]:
        """Slots outside the shape arithmetic that read its numbers."""
        return [
            edge
            for value in self._numbers
            for edge in self.view.consumers.get(value, ())
            if edge.node not in self.derived
        ]

    def _original(self, edge: Edge) -> list[Array]:
        value = self.view.by_index[edge.node].inputs[edge.slot]
        return [trace.values[value] for trace in self.traces]

    def _read(self, edge: Edge) -> list[Array]:
        """What a slot reads after the cut, per trace."""
        if edge in self.edges:
            return [self.edges[edge]] * len(self.traces)
        instead = self.copies.get(edge)
        if isinstance(instead, Copy):
            return self._read_copy(instead)
        if self._is_new(edge):
            return [np.empty(0)] * len(self.traces)
        read = self._computed(edge)
        if instead is None:
            return read
        return [np.where(instead.mask, instead.numbers, array) for array in read]

    def _computed(self, edge: Edge) -> list[Array]:
        value = self.view.by_index[edge.node].inputs[edge.slot]
        if self._evaluated is None:
            self._evaluated = [self._evaluate(trace) for trace in self.traces]
        return [
            found[value] if value in found else trace.values[value]
            for found, trace in zip(self._evaluated, self.traces, strict=True)
        ]

    def _is_new(self, edge: Edge) -> bool:
        """A slot that the node does not have yet."""
        inputs = self.view.by_index[edge.node].inputs
        return edge.slot >= len(inputs) or not inputs[edge.slot]

    def _equal(self, edge: Edge, arrays: Sequence[Array]) -> bool:
        return edge in self._symbols or all(map(np.array_equal, self._read(edge), arrays))

    def _fix(self, edge: Edge, arrays: Sequence[Array]) -> None:
        if self._equal(edge, arrays):
            return
        first = arrays[0]
        if all(np.array_equal(first, other) for other in arrays[1:]):
            self._override(edge, first)
            return
        node = self.view.by_index[edge.node]
        if self._is_new(edge):
            self._refuse(node)
        if (symbolic := self._symbolic(node, arrays)) is not None:
            self._override(edge, symbolic)
            self._symbols.add(edge)
            return
        if (copy := self._copy(edge, arrays)) is not None:
            self.copies[edge] = copy
            return
        edges = dict(self.edges)
        try:
            for element in range(first.size):
                now = [a.ravel()[element] for a in self._read(edge)]
                then = [a.ravel()[element] for a in arrays]
                if now != then:
                    self._element(edge, element, then)
        except UnrepresentableError:
            self.edges, self._evaluated = edges, None
            if (patch := self._patch(edge, arrays)) is None:
                raise
            self.copies[edge] = patch

    def _patch(self, edge: Edge, arrays: Sequence[Array]) -> Patch | None:
        """Replace the static ones among numbers that are computed together, as by one Shape."""
        now = self._computed(edge)
        mask = np.any([a != b for a, b in zip(now, arrays, strict=True)], axis=0)
        if any(not np.array_equal(a[mask], arrays[0][mask]) for a in arrays[1:]):
            return None
        return Patch(mask, np.where(mask, arrays[0], 0).astype(now[0].dtype))

    def _symbolic(self, node: Node, arrays: Sequence[Array]) -> Array | None:
        """Write a target shape's dynamic sizes as "the input's own", and one as "the rest".

        Reshape says 0 and -1, Expand says 1. None where that cannot say it.
        """
        reshape = node.op_type == "Reshape" and not node.attributes.get("allowzero")
        if not reshape and node.op_type != "Expand":
            return None
        shapes = [self._sizes(node.inputs[0], trace) for trace in self.traces]
        target = arrays[0].copy()
        lead = 0 if reshape else target.size - len(shapes[0])
        for element in range(target.size):
            wanted = [int(a[element]) for a in arrays]
            if len(set(wanted)) == 1:
                continue
            own = element - lead
            same = all(
                0 <= own < len(s) and s[own] == w for s, w in zip(shapes, wanted, strict=True)
            )
            if not same and (not reshape or -1 in target):
                return None
            target[element] = (0 if reshape else 1) if same else -1
        return target

    def _copy(self, edge: Edge, arrays: Sequence[Array]) -> Copy | None:
        """Give a slot its own Concat, where the shared one is right but for static elements."""
        value = self.view.by_index[edge.node].inputs[edge.slot]
        concat = self.view.producers.get(value)
        if concat is None or concat.op_type != "Concat" or len(self.view.consumers[value]) < 2:
            return None
        replaced: dict[int, Array] = {}
        for element in range(arrays[0].size):
            place, within = self._piece(concat, element)
            now = self._read(place)
            wanted = [a.ravel()[element] for a in arrays]
            if [a.ravel()[within] for a in now] == wanted:
                continue
            if len(set(wanted)) > 1 or now[0].size > 1:
                return None
            replaced[place.slot] = np.full(now[0].shape, wanted[0], now[0].dtype)
        return Copy(concat, replaced)

    def _read_copy(self, copy: Copy) -> list[Array]:
        parts = [
            [copy.replaced[slot]] * len(self.traces)
            if slot in copy.replaced
            else self._read(Edge(copy.node.index, slot))
            for slot in range(len(copy.node.inputs))
        ]
        return [np.concatenate(found) for found in zip(*parts, strict=True)]

    def _override(self, edge: Edge, array: Array) -> None:
        self.edges[edge] = array
        self._evaluated = None

    def _element(self, edge: Edge, element: int, wanted: Sequence[np.generic]) -> None:
        """Override one element as near to the slot as it stands alone."""
        node = self.view.by_index[edge.node]
        value = node.inputs[edge.slot]
        now = self._read(edge)[0]
        if now.size == 1:
            if len(set(wanted)) > 1:
                self._product(value, wanted)
                return
            self._override(edge, np.full(now.shape, wanted[0], now.dtype))
            return
        producer = self.view.producers.get(value)
        if self.view.is_constant(value) and len(set(wanted)) == 1:
            array = now.copy()
            array.ravel()[element] = wanted[0]
            self._override(edge, array)
        elif producer is None or producer.index not in self.derived:
            self._refuse(node)
        elif producer.op_type == "Concat":
            self._element(*self._piece(producer, element), wanted)
        elif producer.op_type in _SAME_ORDER:
            self._element(Edge(producer.index, 0), element, wanted)
        else:
            self._refuse(node)

    def _product(self, value: str, wanted: Sequence[np.generic]) -> None:
        """Override the constant factor of a dynamic number such as batch * heads."""
        node = self.view.producers.get(value)
        while node is not None and node.op_type in _SAME_ORDER:
            value = node.inputs[0]
            node = self.view.producers.get(value)
        if node is None or node.op_type not in ("Mul", "Div"):
            msg = f"a size that is computed from a dynamic and a cut axis ({value})"
            raise UnrepresentableError(msg)
        for slot in (0, 1) if node.op_type == "Mul" else (1,):
            factor = self._read(Edge(node.index, slot))
            other = [int(o.ravel()[0]) for o in self._read(Edge(node.index, 1 - slot))]
            numbers = [int(w) for w in wanted]
            if node.op_type == "Div":
                other, numbers = numbers, other
            needed = {w // max(o, 1) for w, o in zip(numbers, other, strict=True)}
            exact = all(o > 0 and w % o == 0 for w, o in zip(numbers, other, strict=True))
            if exact and len(needed) == 1 and len({int(f.ravel()[0]) for f in factor}) == 1:
                first = factor[0]
                self._override(
                    Edge(node.index, slot), np.full(first.shape, needed.pop(), first.dtype)
                )
                return
        self._refuse(node)

    def _piece(self, concat: Node, element: int) -> tuple[Edge, int]:
        for slot in range(len(concat.inputs)):
            size = self._read(Edge(concat.index, slot))[0].size
            if element < size:
                return Edge(concat.index, slot), element
            element -= size
        raise AssertionError

    @staticmethod
    def _refuse(node: Node) -> None:
        msg = f"{node.op_type} {node.name}: its computed shape cannot be made constant where cut"
        raise UnrepresentableError(msg)

    def _evaluate(self, trace: Trace) -> dict[str, Array]:
        """Recompute the shape arithmetic as it will be after the cut."""
        found: dict[str, Array] = {}
        for index in sorted(self.derived):
            node = self.view.by_index[index]
            if node.op_type in ("Shape", "Size"):
                found[node.outputs[0]] = self._shape(node, trace)
                continue
            given = [
                self.edges.get(Edge(index, slot), found.get(v, trace.values.get(v)))
                for slot, v in enumerate(node.inputs)
            ]
            unchanged = all(
                g is None or (v in trace.values and np.array_equal(g, trace.values[v]))
                for v, g in zip(node.inputs, given, strict=True)
            )
            if unchanged:
                found.update({v: trace.values[v] for v in node.outputs if v})
            else:
                found.update(self._run(node, given))
        return found

    def _run(self, node: Node, given: Sequence[Array | None]) -> dict[str, Array]:
        feeds = {v: g for v, g in zip(node.proto.input, given, strict=True) if v}
        evaluator = _evaluator(node.proto.SerializeToString(), self.view.opset)
        outputs = evaluator.run(None, feeds)
        return dict(zip([v for v in node.outputs if v], outputs, strict=True))

    def _sizes(self, value: str, trace: Trace) -> list[int]:
        """Return a value's shape after the cut."""
        sizes = []
        for axis, size in enumerate(trace.shapes[value]):
            mask = self.keeps.get(Axis(value, axis))
            sizes.append(size if mask is None else int(mask.sum()) * size // len(mask))
        return sizes

    def _shape(self, node: Node, trace: Trace) -> Array:
        sizes = self._sizes(node.inputs[0], trace)
        if node.op_type == "Size":
            return np.asarray(np.prod(sizes), np.int64)
        start, end = node.attributes.get("start", 0), node.attributes.get("end", len(sizes))
        assert isinstance(start, int)
        assert isinstance(end, int)
        return np.asarray(sizes[start:end], np.int64)


@cache
def _evaluator(node: bytes, opset: int) -> ReferenceEvaluator:
    return single(onnx.NodeProto.FromString(node), opset)
