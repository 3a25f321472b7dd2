"""Functions put back after a cut: a call stays wherever all that it became is as it was.

Where every call of a function was changed in the same way, and only in attributes or constants,
the function itself is changed instead.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.model.domains import Key, defined
from onnxprune.model.functions import Call, Expansion, first_output

__all__ = ["Collapsed", "collapse"]

_Attributes = tuple[bytes, ...]
_Edits = Mapping[int, _Attributes | None]  # by node of the function; None: not by attributes


@dataclass(frozen=True, slots=True, eq=False)
class Collapsed:
    """A model with its functions.

    Attributes
    ----------
    model : ModelProto
    inlined : tuple of str
        Functions that some call of was written out: what is cut in it differs between calls, or
        cannot be said inside a function.
    """

    model: onnx.ModelProto
    inlined: tuple[str, ...]


def collapse(expansion: Expansion, cut: onnx.ModelProto) -> Collapsed:
    """Put the calls of functions back into a cut model.

    Parameters
    ----------
    expansion : Expansion
    cut : ModelProto
        ``expansion.model`` with constants, attributes and nodes changed.

    Returns
    -------
    Collapsed
        Without functions, ``cut`` itself.
    """
    if not expansion.calls:
        return Collapsed(cut, ())
    collapsing = _Collapsing(expansion, cut)
    collapsing.judge()
    return collapsing.build()


class _Collapsing:
    def __init__(self, expansion: Expansion, cut: onnx.ModelProto) -> None:
        self.expansion, self.cut = expansion, cut
        self.before = {first_output(n): n for n in expansion.model.graph.node}
        self.after = {first_output(n): n for n in cut.graph.node}
        self.functions = {defined(f): f for f in expansion.source.functions}
        self.kept: set[int] = set()
        self.edited: dict[Key, _Edits] = {}

    def judge(self) -> None:
        """Find the functions that can be changed themselves, and then the calls that stay."""
        edits: dict[Key, list[_Edits]] = defaultdict(list)
        for call in _every(self.expansion.calls):
            if call.function is not None:
                edits[call.function].append(self._edits(call))
        for function, found in edits.items():
            same = all(other == found[0] for other in found[1:])
            if found[0] and same and self._sayable(function, found[0]):
                self.edited[function] = found[0]
        for call in self.expansion.calls:
            self._keep(call)

    def _edits(self, call: Call) -> _Edits:
        """What has changed in the nodes that a call became, its inner calls left out."""
        found: dict[int, _Attributes | None] = {}
        for place, output in call.own.items():
            old, new = self.before[output], self.after.get(output)
            if new is None or [*old.input] != [*new.input]:
                found[place] = None
            elif old != new:
                found[place] = tuple(a.SerializeToString() for a in new.attribute)
        return found

    def _sayable(self, function: Key, edits: _Edits) -> bool:
        """Whether attributes alone say it, none of which the caller gives."""
        nodes = self.functions[function].node
        return all(
            attributes is not None
            and not any(a.ref_attr_name for a in nodes[place].attribute)
            and not any(a.HasField("g") for a in nodes[place].attribute)
            for place, attributes in edits.items()
        )

    def _keep(self, call: Call) -> bool:
        inner = [self._keep(other) for other in call.inner]
        edits = self._edits(call)
        edited = self.edited.get(call.function) if call.function is not None else None
        good = all(inner) and (not edits or edited == edits)
        if good:
            self.kept.add(id(call))
        return good

    def build(self) -> Collapsed:
        source = self.expansion.source
        model = onnx.ModelProto()
        model.CopyFrom(self.cut)
        nodes, inlined = self._nodes()
        del model.graph.node[:], model.functions[:]
        model.graph.node.extend(nodes)
        if not inlined:
            del model.opset_import[:]
            model.opset_import.extend(source.opset_import)
        model.functions.extend(self._functions())
        names = dict.fromkeys(c.function[1] for c in inlined if c.function is not None)
        return Collapsed(model, tuple(names))

    def _nodes(self) -> tuple[list[onnx.NodeProto], list[Call]]:
        """List the nodes of the main graph with calls in place of what they became."""
        place: dict[str, Call] = {}
        inlined: list[Call] = []
        waiting = list(self.expansion.calls)
        while waiting:
            call = waiting.pop(0)
            if id(call) in self.kept:
                place.update(dict.fromkeys(self._made(call), call))
            else:
                inlined.append(call)
                waiting.extend(call.inner)
        nodes: list[onnx.NodeProto] = []
        done: set[int] = set()
        for node in self.cut.graph.node:
            kept = place.get(first_output(node))
            if kept is None:
                nodes.append(node)
            elif id(kept) not in done:
                done.add(id(kept))
                nodes.append(kept.node)
        return nodes, inlined

    def _made(self, call: Call) -> Iterator[str]:
        yield from call.made()
        yield from (out for out in call.node.output if out and self._handed(out, call))

    def _handed(self, output: str, call: Call) -> bool:
        """An Identity that stands for an input that a function hands through."""
        node = self.before.get(output)
        return node is not None and node.op_type == "Identity" and node.input[0] in call.node.input

    def _functions(self) -> list[onnx.FunctionProto]:
        """Change the functions that say it themselves; drop those that lost their last call."""
        made = []
        for key, function in self.functions.items():
            copy = onnx.FunctionProto()
            copy.CopyFrom(function)
            for place, attributes in self.edited.get(key, {}).items():
                assert attributes is not None
                del copy.node[place].attribute[:]
                copy.node[place].attribute.extend(map(onnx.AttributeProto.FromString, attributes))
            made.append(copy)
        lost = self._lost()
        return [f for f, key in zip(made, self.functions, strict=True) if key not in lost]

    def _lost(self) -> set[Key]:
        calls = list(_every(self.expansion.calls))
        every = {call.function for call in calls if call.function is not None}
        alive = {call.function for call in _every([c for c in calls if id(c) in self.kept])}
        within = any(c.function is None and id(c) in self.kept for c in calls)
        return set() if within else every - alive


def _every(calls: Sequence[Call]) -> Iterator[Call]:
    for call in calls:
        yield call
        yield from _every(call.inner)
