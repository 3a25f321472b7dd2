"""The cut model while its weights are being rewritten."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxprune.model.tensors import to_array
from onnxprune.model.view import Edge
from onnxprune.runtime.session import Feeds, Session, captured_values, with_outputs

__all__ = ["Student"]

Array = NDArray[np.generic]
_LARGEST = 1 << 28  # bytes of one value of one feed that are kept


class Student:
    """A copy of a cut model, with its constants by the edge that reads them.

    Nodes keep the numbers that they have in the original's view.

    Parameters
    ----------
    model : ModelProto
        Not changed.
    feeds : sequence of Feeds
        What it is run on.
    base : Path
        Where external data lies.
    """

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feeds], base: Path = Path()) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.refitted: list[str] = []
        self.added: list[str] = []
        self._feeds, self._base = feeds, base
        self._known: list[dict[str, Array]] = [{} for _ in feeds]
        self._tensors = {t.name: t for t in self.model.graph.initializer}
        self._made = {o: n for n in self.model.graph.node for o in n.output}
        self._readers = Counter(
            name for n in self.model.graph.node for name in (*n.input, *captured_values(n))
        )

    def groups(self, node: int) -> int:
        """Return a convolution's groups; 1 for everything else."""
        for attribute in self.model.graph.node[node].attribute:
            if attribute.name == "group":
                return int(attribute.i)
        return 1

    def values(self, names: Sequence[str], settled: Collection[str]) -> list[Feeds]:
        """Run the model as it is now; inputs count as values.

        Parameters
        ----------
        names : sequence of str
        settled : collection of str
            Those whose producers will not be rewritten any more: kept, so that no run has to begin
            at the inputs again.

        Returns
        -------
        list of Feeds
            One per feed.
        """
        inner = [n for n in names if n in self._made and n not in self._known[0]]
        if inner:
            model = with_outputs(self.model, inner, self._known[0])
            read, session = {value.name for value in model.graph.input}, Session(model)
        found: list[Feeds] = []
        for feed, known in zip(self._feeds, self._known, strict=True):
            have: dict[str, Array] = {**feed, **known}
            if inner:
                have |= session.run({n: a for n, a in have.items() if n in read}, inner)
            known |= {n: have[n] for n in settled if have[n].nbytes <= _LARGEST}
            found.append({name: have[name] for name in names})
        return found

    def forget(self, later: Iterable[str]) -> None:
        """Drop the kept values that no run for ``later`` would begin at."""
        waiting, seen, needed = list(later), set(), set()
        while waiting:
            name = waiting.pop()
            if name in self._known[0]:
                needed.add(name)
            elif name not in seen and name in self._made:
                node = self._made[name]
                waiting.extend((*node.input, *captured_values(node)))
            seen.add(name)
        for known in self._known:
            for name in known.keys() - needed:
                del known[name]

    def owns(self, edge: Edge) -> bool:
        """Whether nobody else reads the constant at an edge."""
        inputs = self.model.graph.node[edge.node].input
        return edge.slot < len(inputs) and self._readers[inputs[edge.slot]] == 1

    def read(self, edge: Edge) -> Array | None:
        """Return the constant at an edge; None if there is none."""
        inputs = self.model.graph.node[edge.node].input
        if edge.slot >= len(inputs) or not inputs[edge.slot]:
            return None
        name = inputs[edge.slot]
        if name in self._tensors:
            return to_array(self._tensors[name], self._base)
        node = self._made.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        return numpy_helper.to_array(node.attribute[0].t)

    def write(self, edge: Edge, array: Array) -> None:
        """Replace the constant at an edge."""
        name = self.model.graph.node[edge.node].input[edge.slot]
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        if name in self._tensors:
            self._tensors[name].CopyFrom(tensor)
        else:
            self._made[name].attribute[0].t.CopyFrom(tensor)
        self.refitted.append(name)

    def write_bias(self, edge: Edge, bias: Array) -> None:
        """Replace a bias, or add one where there was none of this layer's own."""
        old = self.read(edge)
        if old is not None and old.shape == bias.shape and self.owns(edge):
            self.write(edge, bias)
            return
        node = self.model.graph.node[edge.node]
        name = f"{node.input[1]}_bias"
        while name in self._tensors:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(bias, name))
        self._tensors[name] = self.model.graph.initializer[-1]
        node.input.extend([""] * (edge.slot + 1 - len(node.input)))
        node.input[edge.slot] = name
        self._readers[name] += 1
        self.added.append(name)
