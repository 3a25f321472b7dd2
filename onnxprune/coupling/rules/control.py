"""Control flow: the values of a body are those that the operator takes and gives.

The nodes of a body have rules of their own, and read captured values like any other node; what is
said here is only how values pass in and out, and from one turn to the next.
"""

from collections.abc import Generator, Iterator, Sequence

from onnxprune.coupling.relations import Freeze, Relation
from onnxprune.coupling.rules._registry import Op, OpBody, Tensor, rule

_UNSEEN = "a body of {op} could not be run on its own (other data, or sequences as states)"


@rule("If")
def branch(op: Op) -> Iterator[Relation]:
    """Either branch gives the outputs."""
    if (yield from _unseen(op)):
        return
    for number, y in enumerate(op.outputs):
        if y is not None:
            results = [body.outputs[number] for body in op.bodies.values()]
            yield from _same(op, y, results, "its branches differ in it")


@rule("Loop")
def loop(op: Op) -> Iterator[Relation]:
    """A state is one value through all turns; what is collected gets an axis in front."""
    if (yield from _unseen(op)):
        return
    (body,) = op.bodies.values()
    states = max(len(op.inputs) - 2, 0)
    yield from _states(op, body, op.inputs[2:], body.inputs[2:], body.outputs[1:])
    for y, piece in zip(op.outputs[states:], body.outputs[states + 1 :], strict=False):
        if y is not None:
            yield from _stacked(op, y, piece, 0)


@rule("Scan")
def scan(op: Op) -> Iterator[Relation]:
    """States as in a Loop; slices lose the axis that is walked along."""
    if op.opset < 9 or (yield from _unseen(op)):
        return
    (body,) = op.bodies.values()
    states = len(op.inputs) - op.integer("num_scan_inputs", 0)
    yield from _states(op, body, op.inputs[:states], body.inputs, body.outputs)
    for name, outer, inner in (
        ("scan_input_axes", op.inputs[states:], body.inputs[states:]),
        ("scan_output_axes", op.outputs[states:], body.outputs[states:]),
    ):
        given = op.attributes.get(name, [0] * len(inner))
        assert isinstance(given, list)
        for whole, piece, axis in zip(outer, inner, given, strict=False):
            if whole is not None:
                yield from _stacked(op, whole, piece, axis)


def _unseen(op: Op) -> Generator[Relation, None, bool]:
    """Freeze everything if some body was not seen, and return whether."""
    inside = [t for body in op.bodies.values() for t in (*body.inputs, *body.outputs)]
    if all(tensor.known for tensor in inside):
        return False
    outside = [t for t in (*op.inputs, *op.outputs) if t is not None]
    for tensor in (t for t in (*inside, *outside) if t.known):
        for i in tensor.axes():
            yield Freeze(tensor.axis(i), _UNSEEN.format(op=op.op_type))
    return True


def _states(
    op: Op,
    body: OpBody,
    given: Sequence[Tensor | None],
    taken: Sequence[Tensor],
    back: Sequence[Tensor],
) -> Iterator[Relation]:
    """Tie what goes in, what a turn takes, what it hands to the next one, and what comes out."""
    for first, before, after, last in zip(given, taken, back, op.outputs, strict=False):
        others = [t for t in (first, after, last) if t is not None]
        yield from _same(op, before, others, "this state changes its size from turn to turn")


def _stacked(op: Op, whole: Tensor, piece: Tensor, axis: int) -> Iterator[Relation]:
    """Tie a slice to the tensor that has one more axis."""
    if whole.rank != piece.rank + 1:
        return  # without a turn nothing is known of what it would have collected
    axis %= whole.rank
    for i in piece.axes():
        yield from op.tie(piece, i, whole, i + (i >= axis))


def _same(op: Op, a: Tensor, others: Sequence[Tensor], why: str) -> Iterator[Relation]:
    """Tie values that are one and the same; axes of different sizes are frozen."""
    ranks = {t.rank for t in (a, *others)}
    for tensor in others:
        for i in tensor.axes():
            same = len(ranks) == 1 and len({t.shape[i] for t in (a, *others)}) == 1
            if same:
                yield from op.tie(a, i, tensor, i)
            else:
                yield Freeze(tensor.axis(i), f"{op.op_type}: {why}")
