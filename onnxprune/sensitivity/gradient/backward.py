"""Reverse mode: from the outputs' cotangents to what every channel does at its exits.

The graph is walked once, backwards, operator by operator. At every exit of a group the change of
the output when one position goes is written down to first order, summed over all but the position
and the sample: -x g where the position is an addend, and the change of the statistic where the
operator averages or normalizes.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from onnxprune.coupling.collect import make_op
from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.relations import Axis, Contract
from onnxprune.coupling.rules import Op
from onnxprune.model.scopes import captured_values
from onnxprune.model.view import Node, View
from onnxprune.sensitivity.gradient.rules import Call, lookup
from onnxprune.sensitivity.gradient.rules.normalization import epsilon_of, normed, standardized
from onnxprune.sensitivity.gradient.samples import sample_axes
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

__all__ = ["Backward", "Edge", "Exit", "cotangent_name", "differentiate"]

Edge = tuple[int, int]  # (node, slot)


@dataclass(frozen=True, slots=True)
class Exit:
    """First-order changes of the output, with the sign turned, by position of one axis.

    Attributes
    ----------
    value : str
        Of the backward model, shape (samples, size), or (size,) where samples are not told apart.
    batch : bool
        Whether samples are told apart.
    shrinking : bool
        Whether a mean gets fewer addends: the change grows by size / (size - removed).
    """

    value: str
    batch: bool
    shrinking: bool


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """The derivative of a model at the exits of its groups.

    Attributes
    ----------
    exits : mapping of Axis to tuple of Exit
    missing : mapping of group name to str
        Groups that some operator without a rule cuts off from the outputs, and which one.
    slopes : mapping of (node, slot) or value to str
        Derivatives at what was watched.
    """

    exits: Mapping[Axis, tuple[Exit, ...]]
    missing: Mapping[str, str]
    slopes: Mapping[Edge | str, str]

    @property
    def wanted(self) -> tuple[str, ...]:
        """Values of the backward model to compute."""
        return tuple(dict.fromkeys(e.value for exits in self.exits.values() for e in exits))


def cotangent_name(output: str) -> str:
    """Name the input of the backward model for an output's cotangent."""
    return f"onnxprune/cotangent/{output}"


def differentiate(
    tape: Tape,
    coupling: Coupling,
    groups: Sequence[Group],
    outputs: Sequence[str],
    watched: Collection[Edge | str] = (),
) -> Backward:
    """Write the reverse-mode derivative of outputs at the exits of groups.

    Parameters
    ----------
    tape : Tape
        Empty.
    coupling : Coupling
    groups : sequence of Group
    outputs : sequence of str
        Values of the view whose change counts.
    watched : collection of (node, slot) or str
        What rules yield for constant slots, and computed values, whose derivatives are wanted.

    Returns
    -------
    Backward
    """
    walk = _Walk(tape, coupling, watched)
    for axis in dict.fromkeys(m.axis for g in groups for m in g.members):
        for index, contract in coupling.contracts.get(axis, ()):
            walk.contracts[index].append(contract)
    walk.walk(outputs)
    missing = {g.name: why for g in groups if (why := walk.missing(g)) is not None}
    kept = [g for g in groups if g.name not in missing]
    axes = dict.fromkeys(m.axis for g in kept for m in g.members)
    exits = {axis: found for axis in axes if (found := walk.exits(axis))}
    return Backward(exits, missing, walk.watching)


@dataclass
class _Walk:
    tape: Tape
    coupling: Coupling
    watched: Collection[Edge | str]
    watching: dict[Edge | str, str] = field(default_factory=dict)
    contracts: dict[int, list[Contract]] = field(default_factory=lambda: defaultdict(list))
    edges: dict[Edge, str] = field(default_factory=dict)
    norms: dict[int, str] = field(default_factory=dict)
    slopes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    blocked: dict[str, str] = field(default_factory=dict)
    broken: dict[int, str] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)

    def walk(self, outputs: Sequence[str]) -> None:
        """Go through the nodes from the last to the first."""
        view = self.tape.view
        depends = self._dependents(view)
        for output in outputs:
            self.slopes[output].append(self.tape.cotangent(cotangent_name(output)))
        for node in reversed(view.nodes):
            if node.owner < 0 and node.index not in self.coupling.collected.derived:
                self._node(node, depends)

    def _dependents(self, view: View) -> set[str]:
        """Values that an exit reads, and what is computed from them."""
        read = {
            view.by_index[n].inputs[c.slot] for n, found in self.contracts.items() for c in found
        }
        found = read - self.coupling.collected.constants
        for node in view.nodes:
            constant_exit = any(
                node.inputs[c.slot] in read for c in self.contracts.get(node.index, ())
            )
            if constant_exit or found.intersection((*node.inputs, *captured_values(node.proto))):
                found.update(o for o in node.outputs if o and self._smooth(o))
        return found

    def _smooth(self, value: str) -> bool:
        """Whether a value has a derivative: numbers of shapes and integers have none."""
        dtype = self.tape.trace.dtypes.get(value)
        return dtype is None or dtype.kind in "fV"

    def _node(self, node: Node, depends: set[str]) -> None:
        """Ask one node's rule; without one, everything that goes through it is blocked."""
        terms = [self.slopes.pop(o, []) if o else [] for o in node.outputs]
        why = next((self.blocked[o] for o in node.outputs if o in self.blocked), None)
        if why is None and not any(terms):
            return
        for output, found in zip(node.outputs, terms, strict=True):
            if why is None and found and output in self.watched:
                self.watching[output] = self.tape.total(found)
        self.reached.add(node.index)
        slots = {s for s, v in enumerate(node.inputs) if v in depends and self._smooth(v)}
        slots |= {c.slot for c in self.contracts.get(node.index, ())}
        captured = captured_values(node.proto) if node.bodies else set()
        if why is None and depends.intersection(captured):
            why = f"{node.op_type}: it has bodies"
        if why is None and slots:
            try:
                gradients = [self.tape.total(t) if t else None for t in terms]
                self._apply(node, Call(self._op(node), gradients, frozenset(slots)))
            except UnsupportedError as error:
                why = f"{node.op_type}: {error}"
        if why is not None:
            self.broken[node.index] = why
            self.blocked.update(dict.fromkeys((*node.inputs, *captured), why))

    def _op(self, node: Node) -> Op:
        view, collected = self.tape.view, self.coupling.collected
        numbers = {v for i in collected.derived for v in view.by_index[i].outputs}
        op = make_op(view, self.tape.trace, node, collected.constants, numbers)
        if not all(t is None or t.known for t in (*op.inputs, *op.outputs)):
            raise UnsupportedError("its shapes are unknown")
        return op

    def _apply(self, node: Node, call: Call) -> None:
        rule = lookup(node.domain, node.op_type)
        if rule is None:
            raise UnsupportedError("no rule")
        found = dict(rule(self.tape, call))
        for slot in call.slots:
            if not call.op.x(slot).constant:
                self.slopes[node.inputs[slot]].append(found[slot])
        self.watching |= {e: v for s, v in found.items() if (e := (node.index, s)) in self.watched}
        for contract in self.contracts.get(node.index, ()):
            self.edges[node.index, contract.slot] = found[contract.slot]
            if contract.how == "norm":
                self.norms[node.index] = self._norm(call)

    def _norm(self, call: Call) -> str:
        """Change of a normalization when one position no longer counts for mean and variance.

        Without position p of n, the mean moves by -(x_p - m) / (n - 1) and the variance by
        -((x_p - m)^2 - v) / (n - 1).
        """
        tape = self.tape
        x, gradient, axes = normed(tape, call)
        normal, _ = standardized(tape, x, axes, epsilon_of(call, 1e-5))
        moved = tape.op("Mul", normal, tape.reduce("ReduceMean", gradient, axes))
        spread = tape.op("Sub", tape.op("Mul", normal, normal), tape.const(1.0))
        along = tape.reduce("ReduceMean", tape.op("Mul", gradient, normal), axes)
        wider = tape.op("Mul", tape.op("Mul", spread, tape.const(0.5)), along)
        return tape.reshape(tape.op("Neg", tape.op("Add", moved, wider)), tape.shape(call.x))

    def missing(self, group: Group) -> str | None:
        """Say what keeps a group's exits from the outputs, if anything does."""
        nodes = self.tape.view.by_index
        for member in group.members:
            for index, contract in self.coupling.contracts.get(member.axis, ()):
                if nodes[index].owner >= 0:
                    return f"{nodes[nodes[index].owner].op_type}: it has bodies"
                if index in self.broken:
                    return self.broken[index]
                if self.coupling.collected.constants.issuperset(nodes[index].outputs):
                    return f"{nodes[index].op_type}: its result is a constant"
                if index in self.reached and (index, contract.slot) not in self.edges:
                    return f"{nodes[index].op_type}: its input is no float"
        return None

    def exits(self, axis: Axis) -> tuple[Exit, ...]:
        """Write down the changes at the exits of one axis, exits of the same kind together."""
        sums: list[str] = []
        found: list[Exit] = []
        for index, contract in self.coupling.contracts.get(axis, ()):
            edge = self.edges.get((index, contract.slot))
            if edge is None:
                continue
            if axis.value in self.coupling.collected.constants:
                found.append(Exit(edge, True, False))
            elif contract.how == "norm":
                found.append(self._exit(axis, self.norms[index], shrinking=True))
            elif contract.how == "mean":
                reduced = [c.axis.axis for c in self.contracts[index] if c.how == "mean"]
                mean = self.tape.reduce("ReduceMean", axis.value, sorted({*reduced}))
                centred = self.tape.op("Sub", axis.value, mean)
                found.append(self._exit(axis, self.tape.op("Mul", edge, centred), shrinking=True))
            else:
                sums.append(edge)
        if sums:
            product = self.tape.op("Mul", self.tape.total(sums), axis.value)
            found.append(self._exit(axis, product, shrinking=False))
        return tuple(found)

    def _exit(self, axis: Axis, product: str, *, shrinking: bool) -> Exit:
        """Sum over all axes but the channels' and the samples'; blocks come one after the other."""
        rank = len(self.tape.trace.shapes[axis.value])
        batch = self.batches.get(axis.value)
        wanted = [i for i in (batch, axis.by if axis.by >= 0 else None, axis.axis) if i is not None]
        reduced = self.tape.reduce(
            "ReduceSum", product, [i for i in range(rank) if i not in wanted], keepdims=False
        )
        reduced = self.tape.transpose(reduced, [sorted(wanted).index(i) for i in wanted])
        if axis.by >= 0:
            size = self.coupling.collected.sizes[axis]
            reduced = self.tape.reshape(reduced, [size] if batch is None else [-1, size])
        return Exit(reduced, batch is not None, shrinking)

    @cached_property
    def batches(self) -> Mapping[str, int]:
        """Map values to the axis that counts the samples."""
        return sample_axes(self.tape.view, self.tape.trace, self.coupling.collected.relations)
