"""Quantized operators written out in real numbers, clipped to their range but never rounded.

A quantized tensor becomes a float tensor of the same name with the numbers ``x / scale + zero``
that its integers stand for; saturation stays (exporters fold a Relu into it), rounding goes.
Constants keep their integers, which are exact.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.model.lowering import Lower, Lowering, attributes_of

__all__ = ["dequantize", "is_quantized"]

_FINE = 2.0**-10


def is_quantized(model: onnx.ModelProto) -> bool:
    """Say whether the main graph has operators that round to integers."""
    return any(node.op_type in _LOWERINGS for node in model.graph.node)


def dequantize(model: onnx.ModelProto) -> None:
    """Write the quantized operators of a model's main graph out, in place.

    Parameters
    ----------
    model : ModelProto
        Its floats are float32 already.
    """
    Lowering(model, _LOWERINGS).run()


def _inputs(node: onnx.NodeProto, count: int) -> Iterator[str]:
    """Yield the inputs, "" where absent."""
    return iter([*node.input, *[""] * count][:count])


def _axis(node: onnx.NodeProto) -> int:
    axis = attributes_of(node).get("axis", 1)
    assert isinstance(axis, int)
    return axis


def _quantize(at: Lowering, node: onnx.NodeProto) -> None:
    x, scale, zero = _inputs(node, 3)
    dtype = attributes_of(node).get("output_dtype", 0)
    assert isinstance(dtype, int)
    at.encoded(x, scale, zero, node.output[0], _axis(node), dtype)


def _dequantize(at: Lowering, node: onnx.NodeProto) -> None:
    x, scale, zero = _inputs(node, 3)
    if x not in at.held:
        at.nodes.append(node)  # integers that nobody rounded are exact
        return
    at.emit("Identity", [at.decoded(x, scale, zero, _axis(node))], node.output[0])


def _dynamic_quantize(at: Lowering, node: onnx.NodeProto) -> None:
    """Take a scale of 2**-10: exact, and finer than biases that are rounded in this scale."""
    y, scale, zero = node.output
    at.emit("Mul", [node.input[0], at.constant(f"{y}/steps", 1 / _FINE)], y)
    for name, number in ((scale, _FINE), (zero, 0.0)):
        value = numpy_helper.from_array(np.asarray(number, np.float32))
        at.emit("Constant", [], name, {"value": value})
    at.held.update((y, zero))


def _linear_conv(at: Lowering, node: onnx.NodeProto) -> None:
    x, xs, xz, w, ws, wz, ys, yz, bias = _inputs(node, 9)
    inputs = [at.decoded(x, xs, xz), at.decoded(w, ws, wz, 0)]
    if bias:
        inputs.append(at.emit("Mul", [at.real(bias), at.emit("Mul", [xs, ws])]))
    given = attributes_of(node)
    if not given.pop("channels_last", 0):
        at.encoded(at.emit("Conv", inputs, given=given), ys, yz, node.output[0])
        return
    weight = at.array(w)
    axes = list(range(4 if weight is None else weight.ndim))
    inputs[0] = at.emit("Transpose", inputs[:1], given={"perm": [0, axes[-1], *axes[1:-1]]})
    y = at.emit("Conv", inputs, given=given)
    y = at.emit("Transpose", [y], given={"perm": [0, *axes[2:], 1]})
    at.encoded(y, ys, yz, node.output[0])


def _linear_matmul(at: Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, ys, yz = _inputs(node, 8)
    y = at.emit("MatMul", [at.decoded(a, as_, az), at.decoded(b, bs, bz)])
    at.encoded(y, ys, yz, node.output[0])


def _gemm(at: Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, c, ys, yz = _inputs(node, 9)
    given = attributes_of(node)
    inputs = [at.decoded(a, as_, az), at.decoded(b, bs, bz, 0 if given.get("transB") else 1)]
    if c:
        scale = at.emit("Mul", [as_, bs])
        alpha = at.constant(f"{node.output[0]}/alpha", float(given.get("alpha", 1.0)))  # type: ignore[arg-type]
        inputs.append(at.emit("Mul", [at.real(c), at.emit("Mul", [scale, alpha])]))
    if ys:
        at.encoded(at.emit("Gemm", inputs, given=given), ys, yz, node.output[0])
    else:
        at.emit("Gemm", inputs, node.output[0], given)


def _binary(at: Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, ys, yz = _inputs(node, 8)
    op = node.op_type.removeprefix("QLinear")
    y = at.emit(op, [at.decoded(a, as_, az), at.decoded(b, bs, bz)])
    at.encoded(y, ys, yz, node.output[0])


def _unary(at: Lowering, node: onnx.NodeProto) -> None:
    x, xs, xz, ys, yz = _inputs(node, 5)
    given = attributes_of(node)
    for name in ("channels_last", "opset"):
        given.pop(name, None)
    y = at.emit(node.op_type.removeprefix("QLinear"), [at.decoded(x, xs, xz)], given=given)
    at.encoded(y, ys, yz, node.output[0])


def _concat(at: Lowering, node: onnx.NodeProto) -> None:
    ys, yz, *rest = node.input
    parts = [at.decoded(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
    at.encoded(at.emit("Concat", parts, given=attributes_of(node)), ys, yz, node.output[0])


def _where(at: Lowering, node: onnx.NodeProto) -> None:
    condition, x, xs, xz, y, ys, yz, zs, zz = _inputs(node, 9)
    z = at.emit("Where", [condition, at.decoded(x, xs, xz), at.decoded(y, ys, yz)])
    at.encoded(z, zs, zz, node.output[0])


def _less(at: Lowering, x: str, zero: str, axis: int | None = None) -> str:
    x = at.real(x)
    return at.emit("Sub", [x, at.along(at.real(zero), x, axis)]) if zero else x


def _conv_integer(at: Lowering, node: onnx.NodeProto) -> None:
    x, w, xz, wz = _inputs(node, 4)
    at.emit("Conv", [_less(at, x, xz), _less(at, w, wz, 0)], node.output[0], attributes_of(node))
    at.held.add(node.output[0])


def _matmul_integer(at: Lowering, node: onnx.NodeProto) -> None:
    a, b, az, bz = _inputs(node, 4)
    at.emit("MatMul", [_less(at, a, az), _less(at, b, bz)], node.output[0])
    at.held.add(node.output[0])


def _matmul_to_float(at: Lowering, node: onnx.NodeProto) -> None:
    a, b, as_, bs, az, bz, bias = _inputs(node, 7)
    _biased(at, [at.decoded(a, as_, az), at.decoded(b, bs, bz)], bias, node.output[0])


def _dynamic_matmul(at: Lowering, node: onnx.NodeProto) -> None:
    a, b, bs, bz, bias = _inputs(node, 5)
    _biased(at, [a, at.decoded(b, bs, bz)], bias, node.output[0])


def _biased(at: Lowering, factors: Sequence[str], bias: str, out: str) -> None:
    if bias:
        at.emit("Add", [at.emit("MatMul", factors), bias], out)
    else:
        at.emit("MatMul", factors, out)


def _dynamic_lstm(at: Lowering, node: onnx.NodeProto) -> None:
    """Its weights are the transposed ones of an LSTM, with a scale per direction or row."""
    x, w, r, b, lengths, h, c, p, ws, wz, rs, rz = _inputs(node, 12)
    rows = 2 if attributes_of(node).get("direction") == b"bidirectional" else 1
    weights = [
        at.emit("Transpose", [_per_row(at, rows, *parts)], given={"perm": [0, 2, 1]})
        for parts in ((w, ws, wz), (r, rs, rz))
    ]
    proto = helper.make_node("LSTM", [x, *weights, b, lengths, h, c, p], list(node.output))
    proto.attribute.extend(node.attribute)
    at.nodes.append(proto)


def _per_row(at: Lowering, rows: int, weight: str, scale: str, zero: str) -> str:
    sides = []
    for name in (zero, scale):
        side = np.asarray(at.array(name), np.float32)
        sides.append(at.constant(f"{name}/row", side.reshape(rows, 1, -1)))
    return at.emit("Mul", [at.emit("Sub", [at.real(weight), sides[0]]), sides[1]])


def _blocked_matmul(at: Lowering, node: onnx.NodeProto) -> None:
    """Keep activations in fp32: some accuracy levels round them to bytes."""
    for attribute in node.attribute:
        if attribute.name == "accuracy_level":
            attribute.i = 1
    at.nodes.append(node)


_LOWERINGS: dict[str, Lower] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLSTM": _dynamic_lstm,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "MatMulInteger": _matmul_integer,
    "MatMulIntegerToFloat": _matmul_to_float,
    "MatMulNBits": _blocked_matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary,
    "QLinearAveragePool": _unary,
    "QLinearConcat": _concat,
    "QLinearConv": _linear_conv,
    "QLinearGlobalAveragePool": _unary,
    "QLinearLeakyRelu": _unary,
    "QLinearMatMul": _linear_matmul,
    "QLinearMul": _binary,
    "QLinearSigmoid": _unary,
    "QLinearSoftmax": _unary,
    "QLinearWhere": _where,
    "QuantizeLinear": _quantize,
}
