"""Recurrent layers whose weights can be refitted: where they are, and the cells in them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.layers.cells import ACTIVATIONS, GATES, Cell, Function, Part, Rows
from onnxprune.layers.student import Student
from onnxprune.model.view import Edge, Node, View
from onnxprune.model.weights import is_weight, weight_of

__all__ = ["Recurrence", "Sum", "find_recurrences"]

Array = NDArray[np.generic]
_DEFAULTS = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_BIAS, _LENGTHS, _STATE, _MEMORY, _PEEPHOLES = 3, 4, 5, 6, 7  # slots


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A recurrent layer that is solved for.

    Attributes
    ----------
    node : Node
    functions : tuple of function
        Activations of one direction after the other.
    reads : tuple of str
        What it computes with, weights aside: its input, and initial states that a run computes.
    """

    node: Node
    functions: tuple[Function, ...]
    reads: tuple[str, ...]

    @property
    def directions(self) -> int:
        """One or two."""
        return _directions(self.node)

    @property
    def weight(self) -> Edge:
        """Slot of the weight beside the input."""
        return Edge(self.node.index, 1)

    @property
    def recurrence(self) -> Edge:
        """Slot of the weight beside the state."""
        return Edge(self.node.index, 2)

    @property
    def biases(self) -> Edge:
        """Slot that holds, or may be given, the biases."""
        return Edge(self.node.index, _BIAS)

    def taught(self, view: View) -> list[Cell]:
        """Return the cells as the original has them."""
        weight, recurrence = (weight_of(view, self.node.inputs[slot]) for slot in (1, 2))
        assert weight is not None
        assert recurrence is not None
        biases = _input(self.node, _BIAS)
        return self.cells(weight, recurrence, weight_of(view, biases) if biases else None)

    def cells(self, weight: Array, recurrence: Array, biases: Array | None) -> list[Cell]:
        """Return a cell per direction.

        Parameters
        ----------
        weight : array, shape (directions, gates * units, inputs)
        recurrence : array, shape (directions, gates * units, units)
        biases : array, shape (directions, 2 * gates * units), optional
        """
        if biases is None:
            biases = np.zeros((len(weight), 2 * weight.shape[1]), np.float32)
        each = len(_DEFAULTS[self.node.op_type])
        linear = bool(self.node.attributes.get("linear_before_reset", 0))
        return [
            Cell(
                self.node.op_type,
                weight[number].astype(np.float32),
                recurrence[number].astype(np.float32),
                biases[number].astype(np.float32),
                self.functions[number * each : (number + 1) * each],
                linear,
            )
            for number in range(len(weight))
        ]

    def held(self, student: Student) -> list[Cell] | None:
        """Return the cells as a student has them; None where others read their weights, too."""
        edges = (self.weight, self.recurrence)
        weight, recurrence = map(student.read, edges)
        if weight is None or recurrence is None or not all(map(student.owns, edges)):
            return None
        return self.cells(weight, recurrence, student.read(self.biases))

    def hold(self, student: Student, cells: Sequence[Cell]) -> None:
        """Give a student other cells of the same shapes."""
        old = student.read(self.weight)
        assert old is not None
        weight, recurrence, biases = (
            np.stack([getattr(cell, name) for cell in cells]).astype(old.dtype)
            for name in ("weight", "recurrence", "biases")
        )
        student.write(self.weight, weight)
        student.write(self.recurrence, recurrence)
        student.write_bias(self.weight, self.biases, biases)

    def sums(self, view: View) -> list["Sum"]:
        """Return the parts of all directions."""
        return [
            Sum(self, number, part)
            for number, cell in enumerate(self.taught(view))
            for part in cell.parts
        ]

    def sequences(self, values: Mapping[str, Array], direction: int) -> Rows:
        """Return the input as a direction goes through it, shape (steps, samples, inputs)."""
        found = values[self.node.inputs[0]].astype(np.float32)
        found = found.swapaxes(0, 1) if self._batch_first else found
        backwards = direction == 1 or self.node.attributes.get("direction") == b"reverse"
        return found[::-1] if backwards else found

    def constants(self, view: View) -> Callable[[Edge], Array | None]:
        """Return how to read constant inputs of the original."""

        def read(edge: Edge) -> Array | None:
            name = _input(self.node, edge.slot)
            return view.constant(name) if name else None

        return read

    def starts(
        self,
        values: Mapping[str, Array],
        constant: Callable[[Edge], Array | None],
        direction: int,
        units: int,
    ) -> tuple[Rows, Rows]:
        """Return the states (samples, units) that a direction begins with.

        Parameters
        ----------
        values : mapping of name to array
            What the layer reads, weights aside.
        constant : function of Edge
            Reads what is not among them; None where there is nothing: zeros.
        direction, units : int
        """
        samples = self.sequences(values, direction).shape[1]

        def start(slot: int) -> Rows:
            state = values.get(_input(self.node, slot))
            if state is None:
                state = constant(Edge(self.node.index, slot))
            if state is None:
                return np.zeros((samples, units), np.float32)
            picked = state[:, direction] if self._batch_first else state[direction]
            return np.broadcast_to(picked, (samples, units)).astype(np.float32)

        return start(_STATE), start(_MEMORY)

    @property
    def _batch_first(self) -> bool:
        return bool(self.node.attributes.get("layout", 0))


@dataclass(frozen=True, slots=True)
class Sum:
    """One part of one direction of a recurrent layer: linear in what it reads.

    Attributes
    ----------
    layer : Recurrence
    direction : int
    part : Part
    """

    layer: Recurrence
    direction: int
    part: Part

    @property
    def node(self) -> Node:
        """The layer's."""
        return self.layer.node


def find_recurrences(view: View) -> Iterator[Recurrence]:
    """Yield the recurrent layers that can be refitted, in the order of the graph.

    Left as they are: layers in bodies, with peepholes, clipping or sequence lengths, with weights
    that are computed, or activations other than sigmoid, tanh and ReLU.
    """
    for node in view.nodes:
        if node.owner >= 0 or node.op_type not in GATES or not _simple(view, node):
            continue
        functions = _functions(node)
        if functions is not None:
            states = (_input(node, slot) for slot in (_STATE, _MEMORY))
            computed = [name for name in states if name and not view.is_constant(name)]
            yield Recurrence(node, functions, (node.inputs[0], *computed))


def _simple(view: View, node: Node) -> bool:
    given = node.attributes
    if given.get("clip") or given.get("input_forget"):
        return False
    if any(_input(node, slot) for slot in (_LENGTHS, _PEEPHOLES)):
        return False
    weights = [_input(node, slot) for slot in (1, 2, _BIAS)]
    return all(is_weight(view, name) for name in weights if name)


def _functions(node: Node) -> tuple[Function, ...] | None:
    """Return the activations of all directions; None if one is not known."""
    directions = _directions(node)
    names: Sequence[str] = _DEFAULTS[node.op_type] * directions
    given = node.attributes.get("activations")
    if isinstance(given, list):
        names = [name.decode().lower() for name in given if isinstance(name, bytes)]
    known = tuple(ACTIVATIONS[name] for name in names if name in ACTIVATIONS)
    return known if len(known) == len(_DEFAULTS[node.op_type]) * directions else None


def _directions(node: Node) -> int:
    return 2 if node.attributes.get("direction") == b"bidirectional" else 1


def _input(node: Node, slot: int) -> str:
    return node.inputs[slot] if slot < len(node.inputs) else ""
