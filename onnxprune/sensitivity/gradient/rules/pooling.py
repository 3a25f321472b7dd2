"""Derivatives of pooling and resizing."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from onnxprune.coupling.rules import Op
from onnxprune.runtime.single import single
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.rules.convolution import Window, spread, window
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


@vjp("GlobalAveragePool")
def global_average_pool(tape: Tape, call: Call) -> Gradients:
    """Every position gets its share."""
    count = int(np.prod(call.op.x(0).shape[2:]))
    share = tape.op("Mul", call.g, tape.const(1.0 / count))
    yield 0, tape.op("Expand", share, tape.shape(call.x))


@vjp("AveragePool")
def average_pool(tape: Tape, call: Call) -> Gradients:
    """Spread every output evenly over its window; padding gets its share only where it counts."""
    op = call.op
    x, y = op.x(0).shape, op.y().shape
    kernel = op.attributes["kernel_shape"]
    slide = window(op, tuple(kernel), x[2:], y[2:])  # type: ignore[arg-type]
    counts = _counts(op, slide, x[2:], y[2:])
    share = tape.op("Mul", call.g, tape.const(1.0 / counts))
    yield 0, spread(tape, share, np.ones((x[1], 1, *slide.kernel)), slide, x[1])


def _counts(
    op: Op, slide: Window, wide: tuple[int, ...], narrow: tuple[int, ...]
) -> NDArray[np.float64]:
    """How many positions each window averages over, by spatial axis and then together."""
    total = np.ones(())
    for axis, size in enumerate(wide):
        begin, end = slide.begin[axis], slide.end[axis]
        if op.flag("count_include_pad"):
            declared = op.attributes.get("pads")
            limit = size + (int(declared[axis + len(wide)]) if declared else max(end, 0))  # type: ignore[index]
            low, high = -begin, limit
        else:
            low, high = 0, size
        at = np.arange(narrow[axis])[:, None] * slide.strides[axis] - begin
        at = at + np.arange(slide.kernel[axis]) * slide.dilations[axis]
        total = np.multiply.outer(total, ((at >= low) & (at < high)).sum(axis=1))
    return total


@vjp("MaxPool")
def max_pool(tape: Tape, call: Call) -> Gradients:
    """Goes to the position that won."""
    if call.op.flag("storage_order"):
        raise UnsupportedError("positions are counted by column")
    given = call.op.attributes.items()
    attributes: dict[str, Any] = {k: v for k, v in given if k != "storage_order"}
    _, winners = tape.ops(2, "MaxPool", call.x, **attributes)
    flat = tape.const(np.array([-1]))
    size = tape.reshape(tape.op("Size", call.x), flat)
    zeros = tape.op("Expand", tape.const(0.0), size, late=True)
    landed = tape.op(
        "ScatterElements",
        zeros,
        tape.reshape(winners, flat),
        tape.reshape(call.g, flat),
        reduction="add",
    )
    yield 0, tape.reshape(landed, tape.shape(call.x))


@vjp("GlobalMaxPool")
def global_max_pool(tape: Tape, call: Call) -> Gradients:
    """Goes to the positions that won, in equal parts."""
    yield 0, shared(tape, call.g, call.x, call.y, list(range(2, call.op.x(0).rank)))


def shared(tape: Tape, gradient: str, x: str, y: str, axes: list[int]) -> str:
    """Hand a maximum's gradient to all that equal it, in equal parts."""
    to = helper.np_dtype_to_tensor_dtype(tape.dtype)
    won = tape.op("Cast", tape.op("Equal", x, y), to=to)
    parts = tape.reduce("ReduceSum", won, axes)
    return tape.op("Mul", gradient, tape.op("Div", won, parts))


@vjp("Resize", "Upsample")
def resize(tape: Tape, call: Call) -> Gradients:
    """Multiply with the transposed interpolation matrix of every axis that changed."""
    op, gradient = call.op, call.g
    x, y = op.x(0), op.y()
    for axis in range(x.rank):
        matrix = _interpolation(op, axis, x.shape[axis], y.shape[axis])
        if matrix is None:
            continue
        gradient = along(tape, gradient, axis, x.rank, matrix.T)
    yield 0, gradient


def along(tape: Tape, x: str, axis: int, rank: int, matrix: NDArray[np.float64]) -> str:
    """Multiply one axis of a value with a matrix of shape (new size, old size)."""
    if axis == rank - 1:
        return tape.op("MatMul", x, tape.const(matrix.T))
    if axis == rank - 2:
        return tape.op("MatMul", tape.const(matrix), x)
    perm = [*range(axis), *range(axis + 1, rank), axis]
    back = np.argsort(perm).tolist()
    product = tape.op("MatMul", tape.transpose(x, perm), tape.const(matrix.T))
    return tape.transpose(product, back)


def _interpolation(op: Op, axis: int, before: int, after: int) -> NDArray[np.float64] | None:
    """Resize a unit matrix along one axis alone: its rows are what each position contributes."""
    scale = _scale(op, axis)
    if before == after and scale in (None, 1.0):
        return None
    given = ((k, v) for k, v in op.attributes.items() if k not in ("axes", "scales"))
    attributes: dict[str, Any] = {k: v.decode() if isinstance(v, bytes) else v for k, v in given}
    if attributes.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        raise UnsupportedError("a region is cropped")
    attributes.pop("keep_aspect_ratio_policy", None)
    names = ["x", "", "scales"] if scale is not None else ["x", "", "", "sizes"]
    feeds: dict[str, NDArray[np.generic]] = {
        "x": np.eye(before),
        "scales": np.array([1.0, scale or 1.0], np.float32),
        "sizes": np.array([before, after], np.int64),
    }
    node = helper.make_node("Resize", names, ["y"], **attributes)
    found: Any = single(node, max(op.opset, 13)).run(None, {n: feeds[n] for n in names if n})
    matrix: NDArray[np.float64] = np.asarray(found[0], np.float64).T
    if matrix.shape != (after, before):
        raise UnsupportedError("its sizes depend on the data")
    return matrix


def _scale(op: Op, axis: int) -> float | None:
    """Read the scale of an axis where scales are given; sizes leave it to the operator."""
    slot = 1 if op.op_type == "Upsample" else 2
    attribute, tensor = op.attributes.get("scales"), op.optional(slot)
    given = attribute if attribute else None if tensor is None else tensor.data
    if given is None or not np.size(given):  # type: ignore[arg-type]
        return None
    axes = op.attributes.get("axes") or range(op.x(0).rank)
    scales = dict(zip(axes, np.ravel(np.asarray(given)).tolist(), strict=True))  # type: ignore[call-overload]
    return float(scales.get(axis, 1.0))
