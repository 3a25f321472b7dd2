"""Model-local functions, written out so that what they hold can be looked at and cut."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.model.domains import Key, called, defined, versions_of
from onnxprune.model.scopes import bodies_of, graphs_of, numbered_nodes

__all__ = ["Call", "Expansion", "expand", "first_output"]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What became of one node that calls functions.

    Attributes
    ----------
    node : NodeProto
        The call, with the names that its inputs and outputs have in the expanded graph; or a node
        of control flow with calls in its bodies.
    function : tuple of str, optional
        Domain, name and overload; None for control flow.
    own : mapping of int to str
        For nodes of the function, the first output of the node that they became.
    inner : tuple of Call
        Calls that the function itself makes.
    """

    node: onnx.NodeProto
    function: Key | None
    own: Mapping[int, str]
    inner: tuple["Call", ...]

    def made(self) -> Iterator[str]:
        """Yield the first output of every node that the call became."""
        yield from self.own.values()
        for call in self.inner:
            yield from call.made()


@dataclass(frozen=True, slots=True, eq=False)
class Expansion:
    """A model without functions, and how it came about.

    Attributes
    ----------
    source : ModelProto
        The user's.
    model : ModelProto
        The same without calls; the very same object where there are none. A function for other
        operator versions than the model's stays a call.
    calls : tuple of Call
        In the order of the main graph.
    """

    source: onnx.ModelProto
    model: onnx.ModelProto
    calls: tuple[Call, ...]


def first_output(node: onnx.NodeProto) -> str:
    """Return the first output that a node has: it tells the nodes of a graph apart."""
    return next((name for name in node.output if name), "")


def expand(model: onnx.ModelProto) -> Expansion:
    """Write out every call of a model-local function.

    Inner values are named after the call, so a model in which some calls are written out already
    expands to the same names. How large the result gets was counted when the model was loaded.

    Parameters
    ----------
    model : ModelProto

    Returns
    -------
    Expansion
    """
    if not model.functions:
        return Expansion(model, model, ())
    flat = onnx.ModelProto()
    flat.CopyFrom(model)
    expander = _Expander(model)
    nodes, calls = expander.nodes(model.graph.node, None)
    del flat.graph.node[:], flat.functions[:]
    flat.graph.node.extend(nodes)
    _import_opsets(flat, expander.used)
    left = {called(node) for node in numbered_nodes(flat)}
    kept = [f for f in model.functions if defined(f) in left]
    flat.functions.extend(model.functions if kept else ())
    return Expansion(model, flat, tuple(calls))


@dataclass(frozen=True, slots=True)
class _Frame:
    """One call under expansion: what its formal names, and its attributes, stand for."""

    prefix: str
    names: Mapping[str, str]
    attributes: Mapping[str, onnx.AttributeProto]

    def name(self, name: str) -> str:
        return self.names.get(name, self.prefix + name) if name else ""


class _Expander:
    def __init__(self, model: onnx.ModelProto) -> None:
        versions = versions_of(model.opset_import)
        self.functions = {
            defined(f): f
            for f in model.functions
            if all(versions.get(d, v) == v for d, v in versions_of(f.opset_import).items())
        }
        self.used: dict[Key, onnx.FunctionProto] = {}
        self.taken = {v for g in graphs_of(model.graph) for n in g.node for v in n.output}

    def nodes(
        self, given: Sequence[onnx.NodeProto], frame: _Frame | None
    ) -> tuple[list[onnx.NodeProto], list[Call]]:
        """Expand a row of nodes."""
        made: list[onnx.NodeProto] = []
        calls: list[Call] = []
        for node in given:
            copy = self._copy(node, frame)
            function = self.functions.get(called(node))
            if function is not None:
                nodes, call = self._call(copy, function)
                made.extend(nodes)
                calls.append(call)
                continue
            plain = onnx.NodeProto()
            plain.CopyFrom(copy)
            if self._expand_bodies(copy):
                calls.append(Call(plain, None, {0: first_output(copy)}, ()))
            made.append(copy)
        return made, calls

    def _call(
        self, node: onnx.NodeProto, function: onnx.FunctionProto
    ) -> tuple[list[onnx.NodeProto], Call]:
        self.used[defined(function)] = function
        frame = self._frame(node, function)
        made = [
            onnx.helper.make_node("Identity", [frame.name(name)], [out])
            for name, out in zip(function.output, node.output, strict=False)
            if out and name in function.input  # handed through, so nothing in it makes it
        ]
        own: dict[int, str] = {}
        inner: list[Call] = []
        for place, given in enumerate(function.node):
            named = onnx.NodeProto()
            named.CopyFrom(given)
            if not given.name and called(given) in self.functions:
                named.name = f"{given.op_type}_{place}"  # what its inner values are named after
            nodes, calls = self.nodes([named], frame)
            made.extend(nodes)
            inner.extend(calls)
            if not calls:
                own[place] = first_output(nodes[0])
        return made, Call(node, defined(function), own, tuple(inner))

    def _frame(self, node: onnx.NodeProto, function: onnx.FunctionProto) -> _Frame:
        prefix = f"{node.name or first_output(node)}/"
        while any(prefix + v in self.taken for n in function.node for v in n.output):
            prefix += "'"
        inputs = [*node.input, *[""] * (len(function.input) - len(node.input))]
        names = dict(zip(function.input, inputs, strict=False))
        outputs = zip(function.output, node.output, strict=False)
        names |= {name: out for name, out in outputs if out and name not in names}
        attributes = {a.name: a for a in function.attribute_proto}
        attributes |= {a.name: a for a in node.attribute}
        return _Frame(prefix, names, attributes)

    def _copy(self, node: onnx.NodeProto, frame: _Frame | None) -> onnx.NodeProto:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if frame is not None:
            _rename(copy, frame)
        return copy

    def _expand_bodies(self, node: onnx.NodeProto) -> bool:
        """Expand the calls in a node's bodies, and say whether there were any."""
        found = False
        for _, body in bodies_of(node):
            nodes, calls = self.nodes(body.node, None)
            if calls:
                found = True
                del body.node[:]
                body.node.extend(nodes)
        return found


def _rename(node: onnx.NodeProto, frame: _Frame) -> None:
    """Give a function's node the names and attributes of the call, bodies included."""
    node.name = frame.prefix + node.name if node.name else ""
    node.input[:] = [frame.name(name) for name in node.input]
    node.output[:] = [frame.name(name) for name in node.output]
    attributes = []
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name not in frame.attributes:
                continue  # left out by the caller, without a default: left out here too
            given = frame.attributes[attribute.ref_attr_name]
            name = attribute.name
            attribute.CopyFrom(given)
            attribute.name = name
        attributes.append(attribute)
    kept = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in attributes]
    del node.attribute[:]
    node.attribute.extend(kept)
    for _, body in bodies_of(node):
        for value in (*body.input, *body.output, *body.initializer, *body.value_info):
            value.name = frame.name(value.name)
        for inner in body.node:
            _rename(inner, frame)


def _import_opsets(model: onnx.ModelProto, used: Mapping[Key, onnx.FunctionProto]) -> None:
    known = versions_of(model.opset_import)
    for function in used.values():
        for domain, version in versions_of(function.opset_import).items():
            if domain not in known:
                known[domain] = version
                model.opset_import.append(onnx.helper.make_opsetid(domain, version))
