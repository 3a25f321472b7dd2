"""Cuts proven where they are: most of a model is as it was, and need not run again.

What a cut changed, and what lies between, is taken out of the cut model and out of the masked
original, and both are given what enters there in the original. Where what leaves it is the same, so
is everything behind: the rest of the file is compared, not run. Where that cannot be said, the
whole model is run after all.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.coupling.keeps import Keeps, keep_masks
from onnxprune.model.frontier import float_frontier
from onnxprune.model.scopes import values_read
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.prove import Removal, attempt
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.rewrite.verify import TOLERANCE, relative_error
from onnxprune.runtime.session import Feeds, RunFailedError, Session, keep_outputs, with_outputs

__all__ = ["objections"]

_CLOSE = TOLERANCE / 10  # what lies behind may enlarge an error
_ROOM = 256e6  # bytes of inner values and of weights that are held at a time


def objections(found: Analysis, removals: Iterable[Removal]) -> Iterator[str]:
    """Cut groups one by one, each alone, and say what speaks against each cut; "" if nothing.

    Parameters
    ----------
    found : Analysis
    removals : iterable of (Group, channel numbers)

    Yields
    ------
    str
        In the same order.
    """
    proof, waiting = _Proof(found), list[tuple[Removal, _Part | None]]()
    for removal in removals:
        waiting.append((removal, proof.part(removal)))
        if sum(part.bytes for _, part in waiting if part is not None) > _ROOM:
            yield from proof.judged(waiting)
            waiting = []
    yield from proof.judged(waiting)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What a cut changed, cut and masked, from the values that enter it to those that leave it."""

    keeps: Keeps
    cut: onnx.ModelProto
    masked: onnx.ModelProto
    entering: tuple[str, ...]
    bytes: float


class _Proof:
    def __init__(self, found: Analysis) -> None:
        self.found, self.view = found, found.view
        self.nodes = {_first(n.proto): n for n in self.view.nodes}
        self.readers: dict[str, list[int]] = {}
        for node in self.view.nodes:
            for value in node.inputs:
                self.readers.setdefault(value, []).append(node.index)
        self.ends = {*self.view.outputs, *float_frontier(self.view, found.traces[0])}
        # Bodies see what lies around them, and clones are checked in their own types, too.
        self.simple = len(self.view.scopes) == 1 and self.view.real is self.view.model

    def part(self, removal: Removal) -> _Part | None:
        """Cut, and take out what changed; None where the whole model must be run."""
        found = self.found
        keeps = keep_masks([removal], found.coupling.collected.sizes)
        if not self.simple or not keeps:
            return None
        try:
            model = cut(self.view, found.coupling, found.traces, keeps)
        except UnrepresentableError:
            return None
        inside = self.inside(model, keeps)
        if inside is None:
            return None
        leaving = tuple(self.leaving(inside))
        entering = tuple(self.entering(inside))
        known = {name: self.like(name) for name in entering}
        made = _taken(model, leaving, known)
        masked = _taken(found.verifier.masked.model, leaving, known)
        size = sum(map(self.size, entering)) + _weight(made) + _weight(masked)
        return _Part(keeps, made, masked, entering, size)

    def inside(self, model: onnx.ModelProto, keeps: Keeps) -> set[int] | None:
        """Number the nodes that a cut changed, and those between them.

        Numbers computed from shapes may differ: who reads these is among them.
        """
        found = self.changed(model, {axis.value for axis in keeps})
        while found is not None:
            found = self.joined(found)
            odd = [v for v in self.leaving(found) if self.kind(v) != "f"]
            if not odd:
                return found
            more = {reader for value in odd for reader in self.readers.get(value, ())}
            found = None if self.ends.intersection(odd) else found | more
        return None

    def kind(self, value: str) -> str:
        """Return the kind of a tensor's elements; "" of a sequence or map."""
        dtypes = self.found.traces[0].dtypes
        return dtypes[value].kind if value in dtypes else ""

    def changed(self, model: onnx.ModelProto, axes: set[str]) -> set[int] | None:
        """Number the nodes that are others now, whose constants are, or that a cut axis touches."""
        before, after = self.view.model.graph, model.graph
        tensors = {tensor.name: tensor for tensor in before.initializer}
        ends = [
            [v for v in (*graph.input, *graph.output) if v.name not in tensors]
            for graph in (before, after)
        ]
        if ends[0] != ends[1] or after.sparse_initializer:
            return None
        touched = {t.name for t in after.initializer if tensors.get(t.name) != t}
        protos = {_first(node): node for node in before.node}
        found, seen = set(), set()
        for node in after.node:
            name = _first(node)
            seen.add(name)
            other = protos.get(name) != node or not touched.isdisjoint(node.input)
            if other and name in self.nodes:
                found.add(self.nodes[name].index)
            elif other:  # a constant, or what was put before a reader that is another now
                touched.update(node.output)
        found.update(n.index for n in self.view.nodes if axes.intersection((*n.inputs, *n.outputs)))
        return found if seen.issuperset(protos) else None

    def joined(self, found: set[int]) -> set[int]:
        """Add what lies between nodes."""
        below, above, made, read = set[int](), set[int](), set[str](), set[str]()
        for node in self.view.nodes:
            if node.index in found or not made.isdisjoint(node.inputs):
                below.add(node.index)
                made.update(filter(None, node.outputs))
        for node in reversed(self.view.nodes):
            if node.index in found or not read.isdisjoint(node.outputs):
                above.add(node.index)
                read.update(filter(None, node.inputs))
        return below & above

    def leaving(self, inside: set[int]) -> Iterator[str]:
        """Yield the values that are read outside, or that a model ends with."""
        for index in sorted(inside):
            for value in self.view.by_index[index].outputs:
                outside = any(reader not in inside for reader in self.readers.get(value, ()))
                if value and (outside or value in self.ends):
                    yield value

    def entering(self, inside: set[int]) -> Iterator[str]:
        """Yield the values that are made outside and depend on the inputs."""
        nodes = [self.view.by_index[index] for index in inside]
        made = {value for node in nodes for value in node.outputs}
        constant = self.found.coupling.collected.constants
        for value in sorted({value for node in nodes for value in node.inputs} - made):
            if value in self.found.traces[0].shapes and value not in constant:
                yield value

    def like(self, value: str) -> NDArray[np.generic]:
        """Return an array of a value's type and rank."""
        seen = self.found.traces[0]
        shape = seen.shapes[value]
        return np.empty(shape if len(shape) == 1 else [0] * len(shape), seen.dtypes[value])

    def size(self, value: str) -> float:
        seen = self.found.traces[0]
        return float(np.prod(seen.shapes[value])) * seen.dtypes[value].itemsize

    def judged(self, waiting: Sequence[tuple[Removal, _Part | None]]) -> Iterator[str]:
        """Run all parts on what enters them in the original."""
        names = dict.fromkeys(v for _, part in waiting if part is not None for v in part.entering)
        given = self.given([name for name in names if name not in self.view.inputs])
        for removal, part in waiting:
            close = part is not None and self.error(part, given) <= _CLOSE
            yield "" if close else attempt(self.found, [removal])[1]

    def given(self, inner: Sequence[str]) -> Sequence[Feeds]:
        """Return the inputs and some inner values of the original; none if it cannot give these."""
        if not inner:
            return self.found.probes
        try:
            session = Session(with_outputs(self.view.model, inner))
            return [{**feed, **session.run(feed, inner)} for feed in self.found.probes]
        except RunFailedError:
            return []

    def error(self, part: _Part, given: Sequence[Feeds]) -> float:
        masks = self.found.verifier.masked.feeds(part.keeps)
        try:
            sessions = Session(part.cut), Session(part.masked)
            runs = [[_run(s, {**feed, **masks}) for s in sessions] for feed in given]
        except RunFailedError:
            return float("inf")
        return max((relative_error(*pair) for pair in runs), default=float("inf"))


def _weight(model: onnx.ModelProto) -> float:
    """Estimate the bytes of a model's constants; counting them takes as long as writing them."""
    return float(4 * sum(math.prod(tensor.dims) for tensor in model.graph.initializer))


def _first(node: onnx.NodeProto) -> str:
    return str(next(filter(None, node.output)))


def _run(session: Session, values: Feeds) -> dict[str, NDArray[np.generic]]:
    return session.run({value.name: values[value.name] for value in session.inputs})


def _taken(model: onnx.ModelProto, leaving: Sequence[str], known: Feeds) -> onnx.ModelProto:
    """Take a part out of a model, with its annotations: they must be right in it, too."""
    graph = model.graph
    part = onnx.ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.graph.name = graph.name
    for field in ("node", "input", "output", "value_info"):
        getattr(part.graph, field).extend(getattr(graph, field))
    keep_outputs(part, leaving, known)
    read = {name for node in part.graph.node for name in values_read(node)}
    part.graph.initializer.extend(t for t in graph.initializer if t.name in read)
    return part
