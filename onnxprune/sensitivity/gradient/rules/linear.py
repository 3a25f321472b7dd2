"""Derivatives of matrix products: multiply with the other factor, transposed."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.rules import Op, Tensor
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.rules.pointwise import unbroadcast
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


@vjp("MatMul")
def matmul(tape: Tape, call: Call) -> Gradients:
    """A' = g B^T, B' = A^T g, summed over what was broadcast."""
    a, b = call.op.x(0), call.op.x(1)
    if min(a.rank, b.rank) < 2:
        raise UnsupportedError("a vector is multiplied")
    batch = call.op.y().shape[:-2]
    if 0 in call.slots:
        product = tape.op("MatMul", call.g, _transposed(tape, b))
        yield 0, unbroadcast(tape, product, a.shape, (*batch, *a.shape[-2:]))
    if 1 in call.slots:
        product = tape.op("MatMul", _transposed(tape, a), call.g)
        yield 1, unbroadcast(tape, product, b.shape, (*batch, *b.shape[-2:]))


def _transposed(tape: Tape, x: Tensor) -> str:
    if x.constant:
        return tape.const(np.swapaxes(tape.array(x.value), -1, -2))
    return tape.transpose(x.value, [*range(x.rank - 2), x.rank - 1, x.rank - 2])


@vjp("Gemm")
def gemm(tape: Tape, call: Call) -> Gradients:
    """As MatMul; either factor may be transposed, and both scaled."""
    op = call.op
    flip_a, flip_b = op.flag("transA"), op.flag("transB")
    alpha = op.attributes.get("alpha")
    a, b = op.x(0).value, op.x(1).value
    if 0 in call.slots:
        given = (b, call.g) if flip_a else (call.g, b)
        flips = (flip_b, True) if flip_a else (False, not flip_b)
        yield 0, _gemm(tape, given, flips, alpha)
    if 1 in call.slots:
        given = (call.g, a) if flip_b else (a, call.g)
        flips = (True, flip_a) if flip_b else (not flip_a, False)
        yield 1, _gemm(tape, given, flips, alpha)
    if 2 in call.slots:
        beta = op.attributes.get("beta")
        scaled = call.g if beta is None else tape.op("Mul", call.g, tape.const(beta))
        yield 2, unbroadcast(tape, scaled, op.x(2).shape, op.y().shape)


def _gemm(tape: Tape, given: tuple[str, str], flips: tuple[bool, bool], alpha: object) -> str:
    return tape.op("Gemm", *given, transA=int(flips[0]), transB=int(flips[1]), alpha=alpha)


@vjp("Einsum")
def einsum(tape: Tape, call: Call) -> Gradients:
    """Swap the result's letters with those of the factor."""
    terms, result = _letters(call.op)
    for slot in call.slots:
        others = [t for k, t in enumerate(terms) if k != slot]
        mine = terms[slot]
        if len(set(mine)) < len(mine) or not set(mine) <= set("".join([*others, result])):
            raise UnsupportedError("a letter is repeated or summed away alone")
        values = [t.value for k, t in enumerate(call.op.present()) if k != slot]
        equation = ",".join([result, *others]) + "->" + mine
        yield slot, tape.op("Einsum", call.g, *values, equation=equation)


def _letters(op: Op) -> tuple[list[str], str]:
    equation = op.attributes["equation"]
    text = equation.decode() if isinstance(equation, bytes) else str(equation)
    text = text.replace(" ", "")
    if "->" not in text or "." in text:
        raise UnsupportedError("an equation without an explicit result")
    given, result = text.split("->")
    return given.split(","), result
