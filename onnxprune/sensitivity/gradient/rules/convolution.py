"""Derivatives of convolutions in their input: the transposed convolution."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.rules import Op
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]
Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Window:
    """How a window slides, per spatial axis; ``end`` is the padding that the output really used."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Size of the window in input positions, less one."""
        return tuple(d * (k - 1) for k, d in zip(self.kernel, self.dilations, strict=True))


def window(op: Op, kernel: Sequence[int], wide: Sequence[int], narrow: Sequence[int]) -> Window:
    """Read a window that slides over ``wide`` positions and makes ``narrow`` ones."""
    rank = len(kernel)
    strides = _ints(op, "strides", rank, 1)
    dilations = _ints(op, "dilations", rank, 1)
    pads = _ints(op, "pads", 2 * rank, 0)
    mode = op.attributes.get("auto_pad", b"NOTSET")
    begin = list(pads[:rank])
    used = [
        (n - 1) * s + d * (k - 1) + 1 - w
        for n, s, d, k, w in zip(narrow, strides, dilations, kernel, wide, strict=True)
    ]
    if mode in (b"SAME_UPPER", "SAME_UPPER"):
        begin = [max(u, 0) // 2 for u in used]
    elif mode in (b"SAME_LOWER", "SAME_LOWER"):
        begin = [(max(u, 0) + 1) // 2 for u in used]
    end = tuple(u - b for u, b in zip(used, begin, strict=True))
    return Window(tuple(kernel), strides, dilations, tuple(begin), end)


def _ints(op: Op, name: str, count: int, default: int) -> tuple[int, ...]:
    given = op.attributes.get(name)
    return (default,) * count if not given else tuple(int(v) for v in given)  # type: ignore[attr-defined]


@vjp("Conv")
def conv(tape: Tape, call: Call) -> Gradients:
    """A convolution with the flipped kernel at stride 1, a transposed one otherwise."""
    op = call.op
    if call.slots != {0}:
        raise UnsupportedError("the weight is an activation")
    weight, groups = tape.array(op.x(1).value), op.integer("group", 1)
    slide = window(op, weight.shape[2:], op.x(0).shape[2:], op.y().shape[2:])
    gradient, factors = tape.unscaled(call.g)
    if factors is not None:
        weight = np.multiply(weight, factors.reshape(-1, *[1] * (weight.ndim - 1)))
    yield 0, spread(tape, gradient, weight, slide, groups)


def spread(tape: Tape, gradient: str, weight: Array, slide: Window, groups: int) -> str:
    """Put every output position back onto the window that it came from.

    Parameters
    ----------
    tape : Tape
    gradient : str
    weight : array, shape (outputs, inputs / groups, *kernel)
    slide : Window
    groups : int

    Returns
    -------
    str
    """
    pads = [(r - b, r - e) for r, b, e in zip(slide.reach, slide.begin, slide.end, strict=True)]
    plain = all(s == 1 for s in slide.strides) and all(min(p) >= 0 for p in pads)
    if plain:
        begin, end = zip(*pads, strict=True)
        return tape.op(
            "Conv",
            gradient,
            tape.const(flipped(weight, groups)),
            group=groups,
            dilations=list(slide.dilations),
            pads=[*begin, *end],
        )
    return tape.op(
        "ConvTranspose",
        gradient,
        tape.const(weight),
        group=groups,
        strides=list(slide.strides),
        dilations=list(slide.dilations),
        pads=[*slide.begin, *(max(e, 0) for e in slide.end)],
        output_padding=[max(-e, 0) for e in slide.end],
    )


def flipped(weight: Array, groups: int) -> Array:
    """Swap inputs and outputs of a convolution's weight, and turn its kernel round."""
    outputs, inner, *kernel = weight.shape
    swapped = weight.reshape(groups, outputs // groups, inner, *kernel).swapaxes(1, 2)
    swapped = swapped.reshape(groups * inner, outputs // groups, *kernel)
    return np.ascontiguousarray(np.flip(swapped, tuple(range(2, weight.ndim))))


@vjp("ConvTranspose")
def conv_transpose(tape: Tape, call: Call) -> Gradients:
    """A convolution with the same weight."""
    op = call.op
    if call.slots != {0}:
        raise UnsupportedError("the weight is an activation")
    weight = tape.array(op.x(1).value)
    slide = window(op, weight.shape[2:], op.y().shape[2:], op.x(0).shape[2:])
    if (
        op.attributes.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET")
        or min(slide.begin) < 0
    ):
        raise UnsupportedError("padding is left to the operator")
    gradient, end = call.g, slide.end
    if min(end) < 0:  # output_padding: positions at the end that no window reaches
        rank = len(end)
        crop = [0] * (rank + 4) + [min(e, 0) for e in end]
        gradient = tape.op("Pad", gradient, tape.const(np.asarray(crop, np.int64)))
    yield (
        0,
        tape.op(
            "Conv",
            gradient,
            tape.const(weight),
            group=op.integer("group", 1),
            strides=list(slide.strides),
            dilations=list(slide.dilations),
            pads=[*slide.begin, *(max(e, 0) for e in end)],
        ),
    )
