"""Recurrent cells as least-squares problems: before its activation, each gate is linear."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "GATES", "Cell", "Part", "Trajectory"]

Rows = NDArray[np.float32]
Function = Callable[[Rows], Rows]
GATES = MappingProxyType({"LSTM": 4, "GRU": 3, "RNN": 1})


def _sigmoid(sums: Rows) -> Rows:
    half = np.float32(0.5)
    return np.asarray(half * np.tanh(half * sums) + half, np.float32)


def _relu(sums: Rows) -> Rows:
    return np.maximum(sums, np.float32(0))


ACTIVATIONS: Mapping[str, Function] = MappingProxyType(
    {"sigmoid": _sigmoid, "tanh": np.tanh, "relu": _relu}
)


@dataclass(frozen=True, slots=True)
class Part:
    """Gates that sum up the same inputs: one least-squares problem.

    Attributes
    ----------
    first, last : int
        Gates from and to, in the order that the operator keeps them in.
    reads : bool
        Whether the layer's input is summed up.
    state : str
        What is summed up of the state: all (``plain``), what the reset gate lets through
        (``reset``), or nothing (empty).
    """

    first: int
    last: int
    reads: bool
    state: str


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """What a cell goes through, step by step.

    Attributes
    ----------
    inputs : float32 array, shape (steps, samples, inputs)
    before : float32 array, shape (steps, samples, units)
        The state that each step reads.
    reset : float32 array, same shape
        What the reset gate of a GRU lets through of it; of no meaning in other cells.
    sums : float32 array, shape (parts, steps, samples, gates, units)
        What each part adds up to, biases included; zero for gates that it has no share in.
    after : float32 array, shape (steps, samples, units)
        The state that each step leaves.
    """

    inputs: Rows
    before: Rows
    reset: Rows
    sums: Rows
    after: Rows

    def kept(self, mask: NDArray[np.bool_], inputs: Rows) -> "Trajectory":
        """Return the same for some units only, with other inputs."""
        states = (array[..., mask] for array in (self.before, self.reset, self.sums, self.after))
        return Trajectory(inputs, *states)

    def rows(self, part: Part) -> Rows:
        """Return what a part multiplies its weight with, shape (1, steps * samples, D)."""
        seen = [self.inputs] * part.reads
        seen += [self.reset if part.state == "reset" else self.before] * bool(part.state)
        joint = np.concatenate(seen, axis=2)
        return joint.reshape(1, -1, joint.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """One direction of a recurrent layer.

    Attributes
    ----------
    op_type : str
        ``LSTM``, ``GRU`` or ``RNN``.
    weight : float32 array, shape (gates * units, inputs)
    recurrence : float32 array, shape (gates * units, units)
    biases : float32 array, shape (2 * gates * units,)
        Beside the inputs, then beside the state.
    activations : tuple of function
        In the order of the operator's attribute.
    linear : bool
        A GRU's ``linear_before_reset``: the reset gate acts on the sum, not on the state.
    """

    op_type: str
    weight: Rows
    recurrence: Rows
    biases: Rows
    activations: tuple[Function, ...]
    linear: bool = False

    @property
    def units(self) -> int:
        """How many units the state has."""
        return len(self.recurrence) // GATES[self.op_type]

    @property
    def parts(self) -> tuple[Part, ...]:
        """The problems that the cell falls into; no sum belongs to two of them."""
        if self.op_type != "GRU":
            return (Part(0, GATES[self.op_type], reads=True, state="plain"),)
        gates = Part(0, 2, reads=True, state="plain")
        if not self.linear:
            return gates, Part(2, 3, reads=True, state="reset")
        return gates, Part(2, 3, reads=True, state=""), Part(2, 3, reads=False, state="plain")

    def block(self, part: Part) -> tuple[Rows, Rows]:
        """Return weight (D, O) and bias (O,) of a part."""
        rows = self._rows(part)
        tables = [self.weight[rows]] * part.reads + [self.recurrence[rows]] * bool(part.state)
        pair = self.biases.reshape(2, -1)[:, rows]
        bias = pair[0] * part.reads + pair[1] * bool(part.state)
        return np.concatenate(tables, axis=1).T, bias

    def with_block(self, part: Part, weight: NDArray[np.float64], bias: Rows) -> "Cell":
        """Return a cell with another weight (D, O) and bias (O,) in a part."""
        rows = self._rows(part)
        table, recurrence = self.weight.copy(), self.recurrence.copy()
        biases = self.biases.reshape(2, -1).copy()
        width = table.shape[1] * part.reads
        if part.reads:
            table[rows] = weight[:width].T
        if part.state:
            recurrence[rows] = weight[width:].T
        biases[0 if part.reads else 1, rows] += bias - self.block(part)[1]
        return replace(self, weight=table, recurrence=recurrence, biases=biases.reshape(-1))

    def run(self, inputs: Rows, state: Rows, memory: Rows) -> Trajectory:
        """Go through sequences.

        Parameters
        ----------
        inputs : float32 array, shape (steps, samples, inputs)
        state : float32 array, shape (samples, units)
            To begin with.
        memory : float32 array, same shape
            An LSTM's cell state to begin with.
        """
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.op_type]
        whole = (*inputs.shape[:2], self.units)
        before, reset, after = (np.zeros(whole, np.float32) for _ in range(3))
        sums = self._entering(inputs)
        for time in range(len(inputs)):
            before[time] = state
            state, memory, reset[time] = step(sums[:, time], state, memory)
            after[time] = state
        return Trajectory(inputs, before, reset, sums, after)

    def _entering(self, inputs: Rows) -> Rows:
        """Return what the parts add up to without the state."""
        shape = (*inputs.shape[:2], GATES[self.op_type], self.units)
        sums = np.zeros((len(self.parts), *shape), np.float32)
        for number, part in enumerate(self.parts):
            total = self.block(part)[1]
            if part.reads:
                total = total + inputs @ self.weight[self._rows(part)].T
            sums[number, :, :, part.first : part.last] = total.reshape(
                *total.shape[:-1], -1, self.units
            )
        return sums

    def _add(self, sums: Rows, number: int, state: Rows) -> None:
        """Add the state's share to a part of one step."""
        part = self.parts[number]
        share = state @ self.recurrence[self._rows(part)].T
        sums[number, :, part.first : part.last] += share.reshape(len(state), -1, self.units)

    def _lstm(self, sums: Rows, state: Rows, memory: Rows) -> tuple[Rows, Rows, Rows]:
        gate, squash, out = self.activations
        self._add(sums, 0, state)
        enter, leave, forget = gate(sums[0, :, :3]).swapaxes(0, 1)
        memory = forget * memory + enter * squash(sums[0, :, 3])
        return leave * out(memory), memory, state

    def _gru(self, sums: Rows, state: Rows, memory: Rows) -> tuple[Rows, Rows, Rows]:
        gate, squash = self.activations
        self._add(sums, 0, state)
        update, reset = gate(sums[0, :, :2]).swapaxes(0, 1)
        if self.linear:
            self._add(sums, 2, state)
            total = sums[1, :, 2] + reset * sums[2, :, 2]
        else:
            self._add(sums, 1, reset * state)
            total = sums[1, :, 2]
        return (1 - update) * squash(total) + update * state, memory, reset * state

    def _rnn(self, sums: Rows, state: Rows, memory: Rows) -> tuple[Rows, Rows, Rows]:
        self._add(sums, 0, state)
        return self.activations[0](sums[0, :, 0]), memory, state

    def _rows(self, part: Part) -> slice:
        return slice(part.first * self.units, part.last * self.units)
