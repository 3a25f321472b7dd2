"""The constants of a cut model, read and written where they are kept: quantized ones too."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnxprune.model.decoded import decode, encode
from onnxprune.model.lowering import attributes_of
from onnxprune.model.scopes import values_read
from onnxprune.model.tensors import from_array, to_array
from onnxprune.model.view import Edge

__all__ = ["Slots"]

Array = NDArray[np.generic]


class Slots:
    """Reads and writes what single slots of a model's nodes hold.

    Parameters
    ----------
    model : ModelProto
        Changed in place by writing.
    base : Path
        Folder that external data is relative to.

    Attributes
    ----------
    made : dict of str to NodeProto
        What makes each computed value.
    """

    def __init__(self, model: onnx.ModelProto, base: Path) -> None:
        self.model, self.base = model, base
        self.tensors = {t.name: t for t in model.graph.initializer}
        self.made = {o: n for n in model.graph.node for o in n.output}
        self.readers = Counter(name for n in model.graph.node for name in values_read(n))

    def own(self, edge: Edge) -> bool:
        """Whether nobody else reads this constant."""
        name = self._value(edge)
        decoder = self._decoder(name)
        return self.readers[name] == 1 and (decoder is None or self.readers[decoder.input[0]] == 1)

    def quantized(self, edge: Edge) -> bool:
        """Whether the slot reads integers through DequantizeLinear."""
        return self._decoder(self._value(edge)) is not None

    def read(self, edge: Edge) -> Array | None:
        """Return what a slot holds, decoded; None where that is no constant."""
        name = self._value(edge)
        decoder = self._decoder(name)
        if decoder is None:
            return self._plain(name)
        array, scale, zero = self._parts(decoder)
        if array is None or scale is None:
            return None
        return decode(array, scale, zero, **_grain(decoder))

    def write(self, edge: Edge, array: Array) -> str:
        """Put an array of the same shape into a slot; integers are rounded to the scale they have.

        Returns
        -------
        str
            The initializer or constant that changed.
        """
        name = self._value(edge)
        decoder = self._decoder(name)
        if decoder is not None:
            like, scale, zero = self._parts(decoder)
            assert like is not None
            assert scale is not None
            name = decoder.input[0]
            array = encode(array, like, scale, zero, **_grain(decoder))
        tensor = self.tensors.get(name) or self.made[name].attribute[0].t
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        tensor.CopyFrom(from_array(np.ascontiguousarray(array.astype(dtype)), tensor))
        return name

    def add(self, edge: Edge, name: str, array: Array) -> str:
        """Give a slot an initializer of its own, named after the wish."""
        while name in self.tensors or name in self.made:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(array, name))
        self.tensors[name] = self.model.graph.initializer[-1]
        node = self.model.graph.node[edge.node]
        node.input.extend([""] * (edge.slot + 1 - len(node.input)))
        node.input[edge.slot] = name
        return name

    def _value(self, edge: Edge) -> str:
        inputs = self.model.graph.node[edge.node].input
        return inputs[edge.slot] if edge.slot < len(inputs) else ""

    def _decoder(self, name: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that makes a value from integers."""
        node = self.made.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return None
        array = self._plain(node.input[0])
        return node if array is not None and "int" in array.dtype.name else None

    def _parts(self, decoder: onnx.NodeProto) -> tuple[Array | None, Array | None, Array | None]:
        found = [self._plain(name) for name in decoder.input]
        return found[0], found[1], found[2] if len(found) > 2 else None

    def _plain(self, name: str) -> Array | None:
        if name in self.tensors:
            return to_array(self.tensors[name], self.base)
        node = self.made.get(name)
        if node is None or node.op_type != "Constant" or node.attribute[0].name != "value":
            return None
        return numpy_helper.to_array(node.attribute[0].t)


def _grain(decoder: onnx.NodeProto) -> dict[str, int]:
    """Return along which axis scales run, and over how many positions each."""
    given = attributes_of(decoder)
    axis, block = given.get("axis", 1), given.get("block_size", 0)
    assert isinstance(axis, int)
    assert isinstance(block, int)
    return {"axis": axis, "block": block}
