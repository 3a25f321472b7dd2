"""Matrix products: the inner axis is contracted, the outer axes are made."""

from collections.abc import Iterator

from onnxprune.coupling.relations import Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import MICROSOFT, Op, Tensor, rule
from onnxprune.model.einsum import einsum_terms


@rule("Gemm")
@rule("FusedGemm", domain=MICROSOFT)
def gemm(op: Op) -> Iterator[Relation]:
    """Y = A' B' + C with optional transposition of A and B."""
    a, b, y = op.x(0), op.x(1), op.y()
    row, inner = (1, 0) if op.flag("transA") else (0, 1)
    b_inner, column = (1, 0) if op.flag("transB") else (0, 1)
    yield Tie(a.axis(row), y.axis(0))
    yield Tie(b.axis(column), y.axis(1))
    yield from _contract(a, inner, b, b_inner)
    if (c := op.optional(2)) is not None:
        for back in range(1, c.rank + 1):
            yield from op.tie(c, -back, y, -back)


@rule("MatMul")
@rule("FusedMatMul", "TransposeMatMul", domain=MICROSOFT)
def matmul(op: Op) -> Iterator[Relation]:
    """Numpy's matmul: leading axes broadcast, the last two multiply, vectors have one axis."""
    a, b, y = op.x(0), op.x(1), op.y()
    left = _order(a, transposed=op.flag("transA"), batch_last=op.flag("transBatchA"))
    right = _order(b, transposed=op.flag("transB"), batch_last=op.flag("transBatchB"))
    yield from _contract(a, left[-1], b, right[-2] if b.rank > 1 else right[-1])
    if a.rank > 1:
        yield Tie(a.axis(left[-2]), y.axis(-2 if b.rank > 1 else -1))
    if b.rank > 1:
        yield Tie(b.axis(right[-1]), y.axis(-1))
    tail = (a.rank > 1) + (b.rank > 1)
    for x, order in ((a, left), (b, right)):
        for back in range(1, x.rank - 1):
            yield from op.tie(x, order[-2 - back], y, -tail - back)


def _order(x: Tensor, *, transposed: bool, batch_last: bool) -> list[int]:
    """Return the axes of a factor in the order in which they are multiplied.

    ``batch_last`` (transBatchA, transBatchB) takes the first axis behind the other leading ones.
    """
    order = list(x.axes())
    if batch_last and x.rank > 2:
        order = [*order[1:-1], 0, order[-1]]
    if transposed and x.rank > 1:
        order[-2:] = order[:-3:-1]
    return order


@rule("Einsum")
def einsum(op: Op) -> Iterator[Relation]:
    """The letters say it: same letter, same axis; a letter missing from the output is summed."""
    equation = op.attributes["equation"]
    assert isinstance(equation, bytes)
    terms, right = einsum_terms(equation.decode(), [x.rank for x in op.present()])
    for x, letters in zip(op.present(), terms, strict=True):
        for axis, letter in enumerate(letters):
            if len(set(letters)) < len(letters):
                yield Freeze(x.axis(axis), "Einsum takes a diagonal")
            elif letter in right:
                yield from op.tie(x, axis, op.y(), right.index(letter))
    summed = set("".join(terms)) - set(right)
    for letter in sorted(summed):
        places = [
            (slot, x, letters.index(letter))
            for slot, (x, letters) in enumerate(zip(op.present(), terms, strict=True))
            if letter in letters
        ]
        slot, first, axis = min(places, key=lambda place: place[1].constant)
        yield Contract(first.axis(axis), slot)
        for _, x, other in places:
            yield from op.tie(first, axis, x, other)


@rule("CDist", domain=MICROSOFT)
def distances(op: Op) -> Iterator[Relation]:
    """Every row of A against every row of B: features that are 0 in both add nothing."""
    a, b, y = op.x(0), op.x(1), op.y()
    yield Tie(a.axis(0), y.axis(0))
    yield Tie(b.axis(0), y.axis(1))
    yield Tie(a.axis(1), b.axis(1))
    yield Contract(a.axis(1), 0)
    yield Contract(b.axis(1), 1)


def _contract(a: Tensor, i: int, b: Tensor, j: int) -> Iterator[Relation]:
    yield Tie(a.axis(i), b.axis(j))
    yield Contract(b.axis(j), 1) if a.constant else Contract(a.axis(i), 0)
