"""A model while the weights of its layers are being rewritten."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.layers.slots import Slots
from onnxprune.model.functions import first_output
from onnxprune.model.scopes import values_read
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Edge
from onnxprune.runtime.session import Feeds, Session, with_outputs

__all__ = ["Student"]

Array = NDArray[np.generic]
_LARGEST = 1 << 28  # bytes of one value of one feed that are kept


class Student:
    """A copy of a model, with its constants by the slot that reads them.

    Nodes are called by the numbers that they have in the original's view.

    Parameters
    ----------
    model : ModelProto
        Not changed.
    feeds : sequence of Feeds
        What it is run on.
    base : Path
        Where external data lies.
    original : ModelProto, optional
        Of the view whose numbers count, where nodes of it are missing in the model.

    Attributes
    ----------
    refitted, added, rotated : list of str
        Initializers that were written, those that were added, and which of both only hold the same
        in another basis.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        feeds: Sequence[Feeds],
        base: Path,
        original: onnx.ModelProto | None = None,
    ) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.refitted: list[str] = []
        self.added: list[str] = []
        self.rotated: list[str] = []
        self._slots = Slots(self.model, base)
        self._feeds = feeds
        self._known: list[dict[str, Array]] = [{} for _ in feeds]
        self._numbers = None if original is None else _numbers(original, self.model)

    def has(self, node: int) -> bool:
        """Whether a node of the original is left."""
        return self._numbers is None or node in self._numbers

    def _node(self, number: int) -> onnx.NodeProto:
        node: onnx.NodeProto = self.model.graph.node[self._here(Edge(number, 0)).node]
        return node

    def _here(self, edge: Edge) -> Edge:
        return edge if self._numbers is None else Edge(self._numbers[edge.node], edge.slot)

    def groups(self, node: int) -> int:
        """Return a convolution's groups; 1 for everything else."""
        for attribute in self._node(node).attribute:
            if attribute.name == "group":
                return int(attribute.i)
        return 1

    def inputs(self, node: int) -> list[str]:
        """Return what a node reads: zero states that went with their units are empty here."""
        return list(self._node(node).input)

    def values(self, names: Sequence[str], settled: Collection[str]) -> list[Feeds]:
        """Run the model as it is now; inputs count as values.

        Parameters
        ----------
        names : sequence of str
        settled : collection of str
            Those whose makers will not be rewritten any more: kept, so that no run has to begin
            at the inputs again.

        Returns
        -------
        list of Feeds
            One per feed.
        """
        known = self._known[0] if self._known else {}
        inner = [n for n in names if n in self._slots.made and n not in known]
        if inner:
            model = with_outputs(upcast(self.model), inner, known)
            read, session = {value.name for value in model.graph.input}, Session(model)
        found: list[Feeds] = []
        for feed, kept in zip(self._feeds, self._known, strict=True):
            have: dict[str, Array] = {**feed, **kept}
            if inner:
                have |= session.run({n: a for n, a in have.items() if n in read}, inner)
            kept |= {n: have[n] for n in settled if have[n].nbytes <= _LARGEST}
            found.append({name: have[name] for name in names})
        return found

    def forget(self, later: Iterable[str]) -> None:
        """Drop the kept values that no run for ``later`` would begin at."""
        made, known = self._slots.made, self._known[0] if self._known else {}
        waiting, seen, needed = list(later), set(), set()
        while waiting:
            name = waiting.pop()
            if name in known:
                needed.add(name)
            elif name not in seen and name in made:
                waiting.extend(values_read(made[name]))
            seen.add(name)
        for kept in self._known:
            for name in kept.keys() - needed:
                del kept[name]

    def owns(self, edge: Edge) -> bool:
        """Whether nobody else reads the constant in a slot."""
        return self._slots.own(self._here(edge))

    def read(self, edge: Edge) -> Array | None:
        """Return the constant in a slot, decoded; None if there is none."""
        return self._slots.read(self._here(edge))

    def write(self, edge: Edge, array: Array) -> None:
        """Replace the constant in a slot."""
        self.refitted.append(self._slots.write(self._here(edge), array))

    def write_bias(self, weight: Edge, edge: Edge, bias: Array) -> None:
        """Replace the bias of a layer, or add one where it has none of its own."""
        old = self.read(edge)
        if old is not None and old.size == bias.size and self.owns(edge):
            self.write(edge, bias.reshape(old.shape))
        elif old is None and self._slots.quantized(self._here(weight)):
            return  # runtimes that compute in integers take integer biases only
        else:
            name = f"{self._node(edge.node).input[1]}_bias"
            self.added.append(self._slots.add(self._here(edge), name, bias))


def _numbers(original: onnx.ModelProto, model: onnx.ModelProto) -> dict[int, int]:
    """Map the numbers of nodes to those that the same nodes have in a model with fewer of them."""
    left = {first_output(node): number for number, node in enumerate(model.graph.node)}
    return {
        number: left[first_output(node)]
        for number, node in enumerate(original.graph.node)
        if first_output(node) in left
    }
