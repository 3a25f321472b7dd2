"""Run the derivative: one forward pass, and one backward pass per cotangent."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.gradient.backward import Backward, differentiate
from onnxprune.sensitivity.gradient.passes import Array, Cotangents, Passes
from onnxprune.sensitivity.gradient.tape import Tape

__all__ = ["Sketcher", "Table"]

Table = dict[str, NDArray[np.float32]]


class Sketcher:
    """First-order changes of the output, channel by channel, from cotangents on the output.

    Parameters
    ----------
    view : View
    trace : Trace
        Of a run with the sizes of the feeds on all axes but the samples'.
    coupling : Coupling
    groups : sequence of Group
    outputs : sequence of str
    feed : mapping of input name to array
        Any of them.
    """

    def __init__(
        self,
        view: View,
        trace: Trace,
        coupling: Coupling,
        groups: Sequence[Group],
        outputs: Sequence[str],
        feed: Feeds,
    ) -> None:
        self.view, self.outputs = view, outputs
        self.tape = Tape(view, trace, feed)
        self.derivative: Backward = differentiate(self.tape, coupling, groups, outputs)
        self.groups = [g for g in groups if g.name not in self.derivative.missing]
        self._passes = Passes(self.tape, self.derivative.wanted, outputs)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Precision of the cotangents."""
        return self.tape.dtype

    def forward(self, feed: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the outputs, and what the backward pass reads."""
        return self._passes.forward(feed)

    def backward(self, kept: Mapping[str, Array], cotangents: Cotangents) -> Table:
        """Return the change that each channel's loss makes, seen by one cotangent.

        Returns
        -------
        dict of group name to float32 array, shape (samples, channels)
            One row where samples are not told apart.
        """
        found = self._passes.backward(kept, cotangents)
        if not found:
            return {}
        return {group.name: self._change(group, found) for group in self.groups}

    def _change(self, group: Group, found: Mapping[str, Array]) -> NDArray[np.float32]:
        parts = list(self._parts(group, found))
        if not parts:
            return np.zeros((1, group.size), np.float32)
        if not all(batch for _, batch in parts):
            parts = [(rows.sum(axis=0, keepdims=True), False) for rows, _ in parts]
        total: NDArray[np.float32] = np.sum([rows for rows, _ in parts], axis=0, dtype=np.float32)
        return -total

    def _parts(self, group: Group, found: Mapping[str, Array]) -> Iterator[tuple[Array, bool]]:
        for member in group.members:
            for exit_ in self.derivative.exits.get(member.axis, ()):
                rows = np.atleast_2d(found[exit_.value])
                size, each = rows.shape[1], member.positions.shape[1]
                change = member.total(rows)
                if exit_.shrinking:
                    change = change * (size / max(size - each, 1))
                yield change, exit_.batch
