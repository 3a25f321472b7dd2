"""Quantized operators written out in real numbers, clipped to their range but never rounded.

A quantized tensor becomes a float tensor of the same name with the numbers ``x / scale + zero``
that its integers stand for; saturation stays (exporters fold a Relu into it), rounding goes.
Constants keep their integers, which are exact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

__all__ = ["dequantize", "is_quantized"]

Array = NDArray[np.generic]
Floats = NDArray[np.float32]
_MS = "com.microsoft"
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)
_BYTES = ("int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2")
_INTEGERS = (*_BYTES, "int32", "uint32")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Clip", "Sum", "Concat", "PRelu")
# Their results are numbers of their own, not quantized tensors.
_OTHER_RESULTS = ("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Equal", "Greater", "Less")


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
    _Lowering(model).run()


class _Lowering:
    """Rewrites nodes in order, and knows which values are floats in place of integers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.tensors = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.tensors[node.output[0]] = node.attribute[0].t
        self.constants = {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
        self.constants |= {*self.tensors, *(s.values.name for s in model.graph.sparse_initializer)}
        self.held: set[str] = set()
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, str] = {}
        self.count = 0

    def run(self) -> None:
        nodes = list(self.model.graph.node)
        for node in nodes:
            given = [value for value in node.input if value]
            if given and all(value in self.constants for value in given) and not _bodies(node):
                self.constants.update(node.output)
                self.nodes.append(self._weight(node))
            elif node.op_type in _LOWERINGS:
                _LOWERINGS[node.op_type](self, node)
            elif self.held.intersection(given):
                self._pass(node)
            else:
                self.nodes.append(node)
        del self.model.graph.node[:]
        self.model.graph.node.extend(self.nodes)
        for output in self.model.graph.output:
            if output.name in self.held:
                output.type.tensor_type.elem_type = TensorProto.FLOAT

    def _weight(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Decode a weight here: onnxruntime fuses the operator into products of bytes."""
        parts = [self.array(value) for value in node.input]
        if node.op_type != "DequantizeLinear" or any(part is None for part in parts):
            return node
        x, scale, zero = (np.asarray(p, np.float32) for p in (*parts, np.zeros((), np.float32))[:3])
        block = _attributes(node).get("block_size", 0)
        assert isinstance(block, int)
        sides = [_spread(side, x.shape, _axis(node), block) for side in (zero, scale)]
        value = numpy_helper.from_array(np.asarray((x - sides[0]) * sides[1], np.float32))
        return helper.make_node("Constant", [], [node.output[0]], value=value)

    def _pass(self, node: onnx.NodeProto) -> None:
        """Hand floats to an operator that takes any type."""
        wanted = _INTEGERS if node.op_type in _ARITHMETIC else _BYTES
        for slot, value in enumerate(node.input):
            tensor = self.tensors.get(value)
            if tensor is not None and _dtype(tensor).name in wanted:
                node.input[slot] = self.real(value)
        self.nodes.append(node)
        if node.op_type == "Cast":
            to = next(a for a in node.attribute if a.name == "to")
            name = np.dtype(helper.tensor_dtype_to_np_dtype(to.i)).name
            if name in _INTEGERS:
                to.i = TensorProto.FLOAT
                self.held.add(node.output[0])
        elif node.op_type not in _OTHER_RESULTS:
            self.held.add(node.output[0])

    def array(self, value: str) -> Array | None:
        """Return the elements of a plain constant."""
        tensor = self.tensors.get(value)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def real(self, value: str) -> str:
        """Name the float that stands for an integer value."""
        if value in self.held:
            return value
        if value not in self.made:
            self.made[value] = name = f"{value}/real"
            array = self.array(value)
            if array is None:
                self.nodes.append(helper.make_node("Cast", [value], [name], to=TensorProto.FLOAT))
            else:
                self.constant(name, array)
        return self.made[value]

    def constant(self, name: str, array: Array | float) -> str:
        tensor = numpy_helper.from_array(np.asarray(array, np.float32), name)
        self.model.graph.initializer.append(tensor)
        self.tensors[name] = tensor
        self.constants.add(name)
        return name

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        out: str = "",
        given: Mapping[str, object] | None = None,
    ) -> str:
        self.count += 1
        name = out or f"onnxprune/real/{self.count}"
        node = helper.make_node(op, list(inputs), [name])
        for key, value in (given or {}).items():
            node.attribute.append(helper.make_attribute(key, value))
        self.nodes.append(node)
        return name

    def decoded(self, x: str, scale: str, zero: str, axis: int | None = None) -> str:
        """Emit (x - zero) * scale."""
        x = self.real(x)
        if zero:
            x = self.emit("Sub", [x, self.along(self.real(zero), x, axis)])
        return self.emit("Mul", [x, self.along(scale, x, axis)])

    def encoded(
        self, x: str, scale: str, zero: str, out: str, axis: int | None = None, dtype: int = 0
    ) -> None:
        """Emit x / scale + zero, clipped to the range of the type."""
        x = self.emit("Div", [x, self.along(scale, x, axis)])
        low, high = self._range(zero, dtype)
        if zero:
            x = self.emit("Add", [x, self.along(self.real(zero), x, axis)])
        x = self.emit("Max", [x, self.constant(f"{out}/low", low)])
        self.emit("Min", [x, self.constant(f"{out}/high", high)], out)
        self.held.add(out)

    def along(self, vector: str, x: str, axis: int | None) -> str:
        """Spread a vector over one axis of ``x``, whatever rank that has."""
        tensor = self.tensors.get(vector)
        if axis is None or tensor is None or int(np.prod(tensor.dims)) == 1:
            return vector
        rank = self.emit("Shape", [self.emit("Shape", [x])])
        one = numpy_helper.from_array(np.array([1], np.int64))
        shape = self.emit("ConstantOfShape", [rank], given={"value": one})
        self.count += 1
        at, rest = f"onnxprune/axis/{self.count}", f"onnxprune/rest/{self.count}"
        for name, number in ((at, axis), (rest, -1)):
            tensor = numpy_helper.from_array(np.array([number], np.int64), name)
            self.model.graph.initializer.append(tensor)
        shape = self.emit("ScatterElements", [shape, at, rest])
        return self.emit("Reshape", [vector, shape])

    def _range(self, zero: str, dtype: int) -> tuple[float, float]:
        tensor = self.tensors.get(zero)
        kind = tensor.data_type if tensor is not None else dtype or TensorProto.UINT8
        name = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
        find = ml_dtypes.finfo if name.startswith("float") else ml_dtypes.iinfo
        info = find(name)
        return float(info.min), float(info.max)


def _spread(side: Floats, shape: tuple[int, ...], axis: int, block: int) -> Floats:
    """Give every element its scale or zero point: one for all, per position or per block."""
    if side.size == 1:
        return side.reshape(())
    if side.ndim == 1:
        return side.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])
    if side.shape == shape:
        return side
    block = block or -(-shape[axis] // side.shape[axis])
    return np.take(np.repeat(side, block, axis), np.arange(shape[axis]), axis)


def _bodies(node: onnx.NodeProto) -> bool:
    return any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)


def _dtype(tensor: onnx.TensorProto) -> np.dtype[np.generic]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _inputs(node: onnx.NodeProto, count: int) -> Iterator[str]:
    """Yield the inputs, "" where absent."""
    return iter([*node.input, *[""] * count][:count])


def _axis(node: onnx.NodeProto) -> int:
    axis = _attributes(node).get("axis", 1)
    assert isinstance(axis, int)
    return axis


def _quantize(at: _Lowering, node: onnx.NodeProto) -> None:
    x, scale, zero = _inputs(node, 3)
    dtype = _attributes(node).get("output_dtype", 0)
    assert isinstance(dtype, int)
    at.encoded(x, scale, zero, node.output[0], _axis(node), dtype)


def _dequantize(at: _Lowering, node: onnx.NodeProto) -> None:
    x, scale, zero = _inputs(node, 3)
    if x not in at.held:
        at.nodes.append(node)  # integers that nobody rounded are exact
        return
    at.emit("Identity", [at.decoded(x, scale, zero, _axis(node))], node.output[0])


def _dynamic_quantize(at: _Lowering, node: onnx.NodeProto) -> None:
    """Without rounding any scale will do: 1."""
    y, scale, zero = node.output
    at.emit("Identity", [node.input[0]], y)
    for name, number in ((scale, 1.0), (zero, 0.0)):
        value = numpy_helper.from_array(np.asarray(number, np.float32))
        at.emit("Constant", [], name, {"value": value})
    at.held.update((y, zero))


def _linear_conv(at: _Lowering, node: onnx.NodeProto) -> None:
    x, xs, xz, w, ws, wz, ys, yz, bias = _inputs(node, 9)
    inputs = [at.decoded(x, xs, xz), at.decoded(w, ws, wz, 0)]
    if bias:
        inputs.append(at.emit("Mul", [at.real(bias), at.emit("Mul", [xs, ws])]))
    at.encoded(at.emit("Conv", inputs, given=_attributes(node)), ys, yz, node.output[0])


def _linear_matmul(at: _Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, ys, yz = _inputs(node, 8)
    y = at.emit("MatMul", [at.decoded(a, as_, az), at.decoded(b, bs, bz)])
    at.encoded(y, ys, yz, node.output[0])


def _gemm(at: _Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, c, ys, yz = _inputs(node, 9)
    given = _attributes(node)
    inputs = [at.decoded(a, as_, az), at.decoded(b, bs, bz, 0 if given.get("transB") else 1)]
    if c:
        scale = at.emit("Mul", [as_, bs])
        alpha = at.constant(f"{node.output[0]}/alpha", float(given.get("alpha", 1.0)))  # type: ignore[arg-type]
        inputs.append(at.emit("Mul", [at.real(c), at.emit("Mul", [scale, alpha])]))
    if ys:
        at.encoded(at.emit("Gemm", inputs, given=given), ys, yz, node.output[0])
    else:
        at.emit("Gemm", inputs, node.output[0], given)


def _binary(at: _Lowering, node: onnx.NodeProto) -> None:
    a, as_, az, b, bs, bz, ys, yz = _inputs(node, 8)
    op = node.op_type.removeprefix("QLinear")
    y = at.emit(op, [at.decoded(a, as_, az), at.decoded(b, bs, bz)])
    at.encoded(y, ys, yz, node.output[0])


def _unary(at: _Lowering, node: onnx.NodeProto) -> None:
    x, xs, xz, ys, yz = _inputs(node, 5)
    given = _attributes(node)
    for name in ("channels_last", "opset"):
        given.pop(name, None)
    y = at.emit(node.op_type.removeprefix("QLinear"), [at.decoded(x, xs, xz)], given=given)
    at.encoded(y, ys, yz, node.output[0])


def _concat(at: _Lowering, node: onnx.NodeProto) -> None:
    ys, yz, *rest = node.input
    parts = [at.decoded(*rest[i : i + 3]) for i in range(0, len(rest), 3)]
    at.encoded(at.emit("Concat", parts, given=_attributes(node)), ys, yz, node.output[0])


def _where(at: _Lowering, node: onnx.NodeProto) -> None:
    condition, x, xs, xz, y, ys, yz, zs, zz = _inputs(node, 9)
    z = at.emit("Where", [condition, at.decoded(x, xs, xz), at.decoded(y, ys, yz)])
    at.encoded(z, zs, zz, node.output[0])


def _less(at: _Lowering, x: str, zero: str, axis: int | None = None) -> str:
    x = at.real(x)
    return at.emit("Sub", [x, at.along(at.real(zero), x, axis)]) if zero else x


def _conv_integer(at: _Lowering, node: onnx.NodeProto) -> None:
    x, w, xz, wz = _inputs(node, 4)
    at.emit("Conv", [_less(at, x, xz), _less(at, w, wz, 0)], node.output[0], _attributes(node))
    at.held.add(node.output[0])


def _matmul_integer(at: _Lowering, node: onnx.NodeProto) -> None:
    a, b, az, bz = _inputs(node, 4)
    at.emit("MatMul", [_less(at, a, az), _less(at, b, bz)], node.output[0])
    at.held.add(node.output[0])


def _matmul_to_float(at: _Lowering, node: onnx.NodeProto) -> None:
    a, b, as_, bs, az, bz, bias = _inputs(node, 7)
    _biased(at, [at.decoded(a, as_, az), at.decoded(b, bs, bz)], bias, node.output[0])


def _dynamic_matmul(at: _Lowering, node: onnx.NodeProto) -> None:
    a, b, bs, bz, bias = _inputs(node, 5)
    _biased(at, [a, at.decoded(b, bs, bz)], bias, node.output[0])


def _biased(at: _Lowering, factors: Sequence[str], bias: str, out: str) -> None:
    if bias:
        at.emit("Add", [at.emit("MatMul", factors), bias], out)
    else:
        at.emit("MatMul", factors, out)


def _dynamic_lstm(at: _Lowering, node: onnx.NodeProto) -> None:
    """Its weights are the transposed ones of an LSTM, with a scale per direction or row."""
    x, w, r, b, lengths, h, c, p, ws, wz, rs, rz = _inputs(node, 12)
    rows = 2 if _attributes(node).get("direction") == b"bidirectional" else 1
    weights = [
        at.emit("Transpose", [_per_row(at, rows, *parts)], given={"perm": [0, 2, 1]})
        for parts in ((w, ws, wz), (r, rs, rz))
    ]
    proto = helper.make_node("LSTM", [x, *weights, b, lengths, h, c, p], list(node.output))
    proto.attribute.extend(node.attribute)
    at.nodes.append(proto)


def _per_row(at: _Lowering, rows: int, weight: str, scale: str, zero: str) -> str:
    sides = []
    for name in (zero, scale):
        side = np.asarray(at.array(name), np.float32)
        sides.append(at.constant(f"{name}/row", side.reshape(rows, 1, -1)))
    return at.emit("Mul", [at.emit("Sub", [at.real(weight), sides[0]]), sides[1]])


def _blocked_matmul(at: _Lowering, node: onnx.NodeProto) -> None:
    """Keep activations in fp32: some accuracy levels round them to bytes."""
    for attribute in node.attribute:
        if attribute.name == "accuracy_level":
            attribute.i = 1
    at.nodes.append(node)


_LOWERINGS: dict[str, Callable[[_Lowering, onnx.NodeProto], None]] = {
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
