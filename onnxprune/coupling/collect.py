"""Ask every node's rule for its relations; whatever nobody mentions is frozen."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace

from onnxprune.coupling.joints import join
from onnxprune.coupling.relations import Axis, Contract, Freeze, Relation, Split, Tie
from onnxprune.coupling.rescale import Rescaled, find_rescaled
from onnxprune.coupling.rules import UNKNOWN, Op, OpBody, Tensor, frozen, lookup
from onnxprune.coupling.rules.recurrent import STATES
from onnxprune.coupling.sequences import as_split, parts_of, reads_part
from onnxprune.coupling.uniform import uniform_value
from onnxprune.model.derived import constant_values, derived_nodes
from onnxprune.model.view import Node, View
from onnxprune.runtime.trace import Trace

__all__ = ["Collected", "collect"]

_NO_RULE = "onnxprune has no rule for {op}"
_NO_AXIS = "{op} cannot be cut along this axis"
_RULE = "a rule for this operator and axis in onnxprune.coupling.rules"
_NO_TENSOR = "{op} handles what is no tensor, or what no run has shown"


@dataclass(frozen=True, slots=True)
class Collected:
    """All relations of a graph.

    Attributes
    ----------
    sizes : dict of Axis to int
        Every axis of size > 1, joint axes included.
    relations : list of Relation
    contracts : list of (node index, Contract)
    constants : frozenset of str
        Values that depend on constants alone.
    derived : frozenset of int
        Nodes that compute with shapes.
    blame : dict of Axis to Node
        The node whose freeze reached an axis first.
    blocks : dict of Axis to int
        Axes (joint, or invented by rules) of which equally many positions must stay in each of so
        many equal runs.
    replaced : mapping of Axis to Axis
        Joint axes by the plain ones that relations do not speak of any more.
    rescaled : tuple of Rescaled
        Statistics with constants behind them that make up for what a cut changes.
    """

    sizes: dict[Axis, int]
    relations: list[Relation]
    contracts: list[tuple[int, Contract]]
    constants: frozenset[str]
    derived: frozenset[int]
    blame: dict[Axis, Node]
    blocks: dict[Axis, int]
    replaced: Mapping[Axis, Axis]
    rescaled: tuple[Rescaled, ...]

    @property
    def atoms(self) -> dict[Axis, int]:
        """The axes whose positions stand or fall by themselves."""
        return {axis: size for axis, size in self.sizes.items() if axis not in self.replaced}


def collect(view: View, trace: Trace, *, interface: Iterable[Freeze] = ()) -> Collected:
    """Collect the relations of every node.

    Parameters
    ----------
    view : View
    trace : Trace
        Of a run in which dynamic axes have sizes > 1, so that they are told from broadcast axes.
    interface : iterable of Freeze
        What stays of graph inputs and outputs; nothing only to look at single operators.

    Returns
    -------
    Collected
    """
    constants = constant_values(view)
    derived = derived_nodes(view, trace)
    numbers = {v for i in derived for v in view.by_index[i].outputs}
    sizes = {
        Axis(value, axis): size
        for value, shape in trace.shapes.items()
        if value not in numbers
        for axis, size in enumerate(shape)
        if size > 1
    }
    contracts: list[tuple[int, Contract]] = []
    rescaled: list[Rescaled] = []
    blame: dict[Axis, Node] = {}
    asked = []
    for node in view.nodes:
        if node.index not in derived and not reads_part(view, node):
            op = make_op(view, trace, node, constants, numbers)
            said = list(_ask(op))
            found = [_exact(view, node, r) for r in said if isinstance(r, Contract)]
            contracts += [(node.index, contract) for contract, _ in found]
            rescaled += [undone for _, undone in found if undone is not None]
            relations: list[Relation] = [r for r in said if not isinstance(r, Contract)]
            relations += _unsaid(op, said, sizes)
            for relation in relations:
                if isinstance(relation, Freeze):
                    blame.setdefault(relation.axis, node)
            asked.append((op, relations))
    joined = join(asked, [*interface, *_varying(trace)])
    return Collected(
        {**sizes, **joined.sizes},
        joined.relations,
        contracts,
        constants,
        derived,
        blame,
        joined.blocks,
        joined.replaced,
        tuple(rescaled),
    )


def _exact(view: View, node: Node, contract: Contract) -> tuple[Contract, Rescaled | None]:
    """Where constants can make up for a changed statistic, what goes is an addend less."""
    if contract.how not in ("rms", "mean"):
        return contract, None
    undone = find_rescaled(view, node, contract)
    return (contract, None) if undone is None else (replace(contract, how="sum"), undone)


def _varying(trace: Trace) -> Iterator[Freeze]:
    for varying in trace.varying:
        yield Freeze(Axis(*varying), "its size changes from turn to turn")


def _ask(op: Op) -> Iterator[Relation]:
    rule = lookup(op.domain, op.op_type)
    if rule is not None and _known(op):
        yield from rule(op)


def _unsaid(op: Op, said: Iterable[Relation], sizes: Mapping[Axis, int]) -> Iterator[Freeze]:
    """Freeze the axes that a node's rule leaves out."""
    mentioned: set[Axis] = set()
    for relation in said:
        match relation:
            case Tie(a, b):
                mentioned.update((a.plain, b.plain))
            case Split(axis, factors):
                mentioned.update((axis.plain, *(factor.plain for factor, _ in factors)))
            case Contract():
                pass
            case _:
                mentioned.add(relation.axis.plain)
    known = lookup(op.domain, op.op_type) is not None
    reason = _NO_RULE if not known else _NO_AXIS if _known(op) else _NO_TENSOR
    unlock = _RULE
    if (why := frozen.lookup(op.domain, op.op_type)) is not None:
        reason, unlock = why.reason, why.unlock
    for axis in _axes(sizes, op):
        if axis not in mentioned:
            yield Freeze(axis, reason.format(op=op.op_type), unlock=unlock)


def _known(op: Op) -> bool:
    """Whether every value of the node is a tensor whose shape the trace has seen."""
    return all(t is None or t.known for t in (*op.inputs, *op.outputs))


def _axes(sizes: Mapping[Axis, int], op: Op) -> Iterator[Axis]:
    parameters = _PARAMETERS.get(op.op_type, ())
    for slot, tensor in enumerate(op.inputs):
        if tensor is not None and slot not in parameters:
            yield from (tensor.axis(i) for i in tensor.axes() if tensor.axis(i) in sizes)
    for tensor in op.outputs:
        if tensor is not None:
            yield from (tensor.axis(i) for i in tensor.axes() if tensor.axis(i) in sizes)
    for body in op.bodies.values():
        for tensor in (*body.inputs, *body.outputs):
            yield from (tensor.axis(i) for i in tensor.axes() if tensor.axis(i) in sizes)


# Inputs that say how, not what: their own axes are no channels.
_PARAMETERS: dict[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConvTransposeWithDynamicPads": (2,),
    "CropAndResize": (3,),
    "CumProd": (1,),
    "CumSum": (1,),
    "DFT": (1, 2),
    "Dropout": (1, 2),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 2, 3),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
    "Upsample": (1,),
    **dict.fromkeys(
        (
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ),
        (1,),
    ),
}


def make_op(
    view: View, trace: Trace, node: Node, constants: frozenset[str], numbers: Set[str]
) -> Op:
    """Show a node to its rule; what depends on the data of one run is kept from it."""

    def tensor(value: str) -> Tensor:
        shape = trace.shapes.get(value, UNKNOWN)
        data = trace.values.get(value) if value in constants or value in numbers else None
        if data is None and view.is_constant(value):
            data = view.constant(value)
        uniform = uniform_value(view, value) if node.op_type in STATES else None
        return Tensor(value, shape, value in constants, data, uniform)

    parts = parts_of(view, node)
    inputs, outputs = (
        tuple(tensor(value) if value else None for value in values)
        for values in (node.inputs, node.outputs if parts is None else parts)
    )
    bodies = {
        attribute: OpBody(tuple(map(tensor, body.inputs)), tuple(map(tensor, body.outputs)))
        for attribute, body in node.bodies.items()
    }
    attributes = dict(node.attributes)
    op = Op(node.name, node.op_type, node.domain, view.opset, attributes, inputs, outputs, bodies)
    return op if parts is None or not op.x(0).known else as_split(op)
