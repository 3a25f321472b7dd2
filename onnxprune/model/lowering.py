"""A graph rewritten node by node into real numbers: what is float already, and how to say it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.decoded import decode

__all__ = ["Lower", "Lowering", "attributes_of"]

Array = NDArray[np.generic]
_BYTES = ("int8", "uint8", "int16", "uint16", "int4", "uint4", "int2", "uint2")
_INTEGERS = (*_BYTES, "int32", "uint32")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Where", "Clip", "Sum", "Concat", "PRelu")
# Their results are numbers of their own, not quantized tensors.
_OTHER_RESULTS = ("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Equal", "Greater", "Less")


Lower: TypeAlias = Callable[["Lowering", onnx.NodeProto], None]


class Lowering:
    """Rewrites nodes in order, and knows which values are floats in place of integers."""

    def __init__(self, model: onnx.ModelProto, table: Mapping[str, Lower]) -> None:
        self.model, self.table = model, table
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
        """Rewrite every node of the main graph."""
        nodes = list(self.model.graph.node)
        for node in nodes:
            given = [value for value in node.input if value]
            if given and all(value in self.constants for value in given) and not _bodies(node):
                self.constants.update(node.output)
                self.nodes.append(self._weight(node))
            elif node.op_type in self.table:
                self.table[node.op_type](self, node)
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
        given = attributes_of(node)
        axis, block = given.get("axis", 1), given.get("block_size", 0)
        assert isinstance(axis, int)
        assert isinstance(block, int)
        real = decode(*(p for p in parts if p is not None), axis=axis, block=block)
        value = numpy_helper.from_array(real)
        return helper.make_node("Constant", [], [node.output[0]], value=value)

    def _pass(self, node: onnx.NodeProto) -> None:
        """Hand floats to an operator that takes any type."""
        arithmetic = node.op_type in _ARITHMETIC
        for slot, value in enumerate(node.input):
            tensor = self.tensors.get(value)
            if tensor is None:
                # Made while the model runs, as a bias in the scale of the inputs is: of one type
                # with the operand that is a float now.
                if arithmetic and value and (node.op_type, slot) != ("Where", 0):
                    node.input[slot] = self.real(value)
            elif _dtype(tensor).name in (_INTEGERS if arithmetic else _BYTES):
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
        """Add a float initializer."""
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
        """Add a node and name its result."""
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


def _bodies(node: onnx.NodeProto) -> bool:
    return any(a.type == onnx.AttributeProto.GRAPH for a in node.attribute)


def _dtype(tensor: onnx.TensorProto) -> np.dtype[np.generic]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))


def attributes_of(node: onnx.NodeProto) -> dict[str, object]:
    """Read a node's attributes."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
