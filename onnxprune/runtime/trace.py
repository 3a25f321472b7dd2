"""One run with every intermediate value looked at: true shapes, and the small values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.model.scopes import Scope
from onnxprune.model.upcast import upcast
from onnxprune.model.view import Node, View
from onnxprune.runtime.bodies import (
    Constants,
    body_model,
    constants_of,
    count_of,
    count_turns,
    is_control_flow,
    turn_feed,
    turn_output,
)
from onnxprune.runtime.session import Feeds, RunFailedError, Session

__all__ = ["Trace", "agree", "trace"]

Array = NDArray[np.generic]
_SMALL = 1024  # elements; shapes, paddings and position numbers are smaller, activations larger


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run shows.

    Values inside bodies are those of the first turn. Bodies that do not run alone stay unseen: a
    branch not taken that does not fit the data, or one that reads sequences.

    Attributes
    ----------
    shapes : mapping of value name to shape
        Of every tensor of the view, constants included.
    dtypes : mapping of value name to dtype
        In the clone: float32 where the model itself computes in a narrower or quantized type.
    values : mapping of value name to array
        Values of at most 1,024 elements; in bodies those that the first two turns agree on.
    varying : frozenset of (value name, axis)
        Axes whose size differs between the first two turns of a body.
    turns : mapping of node number to mapping of attribute to count
        How often each body of a node is entered whenever the node runs.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[np.generic]]
    values: Mapping[str, Array]
    varying: frozenset[tuple[str, int]] = frozenset()
    turns: Mapping[int, Mapping[str, int]] = field(default_factory=dict)


def trace(view: View, feed: Feeds, *, deadline: float | None = None) -> Trace:
    """Run a model's fp32 clone once and record every value's shape.

    Declared shapes are not trusted: exporters write wrong ones, and optimizers leave stale ones.
    Bodies of control flow are run once more on their own, with what the run gave them.

    Parameters
    ----------
    view : View
    feed : mapping of input name to array
    deadline : float, optional
        Seconds after which the run is given up.

    Returns
    -------
    Trace

    Raises
    ------
    RunFailedError
        If onnxruntime cannot load or run the model.
    """
    tracer = _Tracer(view, deadline)
    tracer.main(feed)
    for name in view.uses:
        tracer.note(name, view.constant(name))
    return tracer.result()


def agree(traces: Sequence[Trace]) -> tuple[Trace, ...]:
    """Leave out of some traces of one model what not all of them have seen, or with other ranks.

    The order stays the first trace's: what is numbered by it must not change from run to run.
    """
    shapes = [
        name
        for name in traces[0].shapes
        if len({len(t.shapes[name]) if name in t.shapes else -1 for t in traces}) == 1
    ]
    values = {name for name in traces[0].values if all(name in t.values for t in traces)}
    varying = frozenset(place for t in traces for place in t.varying)
    return tuple(
        Trace(
            {name: t.shapes[name] for name in shapes},
            {name: t.dtypes[name] for name in shapes},
            {name: t.values[name] for name in shapes if name in values},
            varying,
            t.turns,
        )
        for t in traces
    )


class _Tracer:
    def __init__(self, view: View, deadline: float | None) -> None:
        self.view, self.deadline = view, deadline
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype[np.generic]] = {}
        self.values: dict[str, Array] = {}
        self.varying: set[tuple[str, int]] = set()
        self.turns: dict[int, dict[str, int]] = {}
        self.bodies = {(scope.owner, scope.attribute): scope for scope in view.scopes[1:]}

    def result(self) -> Trace:
        return Trace(self.shapes, self.dtypes, self.values, frozenset(self.varying), self.turns)

    def main(self, feed: Feeds) -> None:
        """Run the main graph and look into its bodies; only its own failure is an error."""
        model = onnx.ModelProto()
        model.CopyFrom(self.view.model)
        del model.graph.output[:]
        scope = self.view.scopes[0]
        session = self._open(scope, model)
        found = {**session.fitted(feed), **self._run(session, feed)}
        self._note_all(scope, found)
        self._look_inside(scope, found, constants_of(scope.graph))

    def note(self, name: str, array: Array) -> None:
        """Record a value; a second time only what has changed."""
        if not hasattr(array, "dtype"):
            return  # sequences, maps and optionals have no axes
        if name not in self.shapes:
            self.shapes[name], self.dtypes[name] = array.shape, array.dtype
            if array.size <= _SMALL:
                self.values[name] = array
            return
        sizes = zip(self.shapes[name], array.shape, strict=False)
        self.varying.update((name, axis) for axis, (a, b) in enumerate(sizes) if a != b)
        if name in self.values and not np.array_equal(self.values[name], array):
            del self.values[name]

    def _open(self, scope: Scope, model: onnx.ModelProto) -> Session:
        counted = count_turns(model.graph)
        names = [v for node in self._nodes(scope) for v in node.proto.output if v]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (*names, *counted))
        return Session(upcast(model), optimize=False)

    def _run(self, session: Session, feed: Feeds) -> dict[str, Array]:
        return session.run(feed, [o.name for o in session.outputs], deadline=self.deadline)

    def _nodes(self, scope: Scope) -> list[Node]:
        places = range(scope.first, scope.first + len(scope.nodes))
        return [self.view.by_index[i] for i in places if i in self.view.by_index]

    def _note_all(self, scope: Scope, found: Mapping[str, Array]) -> None:
        for name, array in found.items():
            if name in scope.names:
                self.note(scope.names[name], array)

    def _look_inside(self, scope: Scope, found: Mapping[str, Array], constants: Constants) -> None:
        """Run the bodies of a graph's nodes on what the graph has computed."""
        for node in self._nodes(scope):
            for attribute in node.bodies if is_control_flow(node, self.view.opset) else ():
                read = [self._read(node, slot, found) for slot in range(len(node.inputs))]
                try:
                    count = count_of(node, attribute, read)
                    if count is None:
                        count = len(found[turn_output(node.index - scope.first)])
                    self.turns.setdefault(node.index, {})[attribute] = count
                    inner = self.bodies[node.index, attribute]
                    self._body(node, inner, read, (found, constants))
                except RunFailedError:
                    continue  # it stays unseen, and what it touches is frozen

    def _read(self, node: Node, slot: int, found: Mapping[str, Array]) -> Array | None:
        name, value = node.proto.input[slot], node.inputs[slot]
        return self.view.constant(value) if self.view.is_constant(value) else found.get(name)

    def _body(
        self,
        node: Node,
        scope: Scope,
        read: Sequence[Array | None],
        outer: tuple[Mapping[str, Array], Constants],
    ) -> None:
        names = [value.name for value in scope.graph.input]
        feed = dict(zip(names, turn_feed(node, 0, read, ()), strict=True))
        model, captured = body_model(self.view.model, scope, feed, *outer)
        session = self._open(scope, model)
        found = {**feed, **self._run(session, {**captured, **feed})}
        self._note_all(scope, found)
        inner = {**outer[0], **found}
        self._look_inside(scope, inner, {**outer[1], **constants_of(scope.graph)})
        if self.turns[node.index][scope.attribute] > 1:
            given = [self._output(scope, o.name, inner) for o in scope.graph.output]
            feed = dict(zip(names, turn_feed(node, 1, read, given), strict=True))
            self._note_all(scope, {**feed, **self._run(session, {**captured, **feed})})

    def _output(self, scope: Scope, name: str, found: Mapping[str, Array]) -> Array:
        value = scope.names.get(name, name)
        return self.view.constant(value) if self.view.is_constant(value) else found[name]
