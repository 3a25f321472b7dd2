"""What a tape holds, run: forward once per feed, backward once per cotangent."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.runtime.session import Feeds, Session
from onnxprune.sensitivity.gradient.backward import cotangent_name
from onnxprune.sensitivity.gradient.tape import Tape

__all__ = ["Array", "Cotangents", "Passes"]

Array = NDArray[np.generic]
Cotangents = Mapping[str, Array]


class Passes:
    """The two sessions of a derivative.

    Parameters
    ----------
    tape : Tape
        With the derivative written down.
    wanted : sequence of str
        Values of the backward model to compute.
    outputs : sequence of str
        Values of the view that cotangents are given for.
    """

    def __init__(self, tape: Tape, wanted: Sequence[str], outputs: Sequence[str]) -> None:
        self.tape, self.wanted, self.outputs = tape, list(dict.fromkeys(wanted)), outputs
        self._crossing = tape.crossing(self.wanted)
        self._inner = [name for name in self._crossing if name not in tape.view.inputs]
        self._forward = Session(tape.forward(outputs, self._inner))
        self._backward: Session | None = None

    def forward(self, feed: Feeds) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return the outputs, and what the backward pass reads."""
        found = self._forward.run(feed, list(dict.fromkeys([*self.outputs, *self._inner])))
        every = {**feed, **found}
        return {n: found[n] for n in self.outputs}, {n: every[n] for n in self._crossing}

    def backward(self, kept: Mapping[str, Array], cotangents: Cotangents) -> dict[str, Array]:
        """Return what is wanted, seen by one cotangent per output."""
        if not self.wanted:
            return {}
        feeds = {**kept, **{cotangent_name(n): a for n, a in cotangents.items()}}
        if self._backward is None:
            dtypes = {name: array.dtype for name, array in feeds.items()}
            self._backward = Session(self.tape.backward(self.wanted, dtypes))
            self._read = {value.name for value in self._backward.inputs}
        return self._backward.run({n: feeds[n] for n in self._read}, self.wanted)
