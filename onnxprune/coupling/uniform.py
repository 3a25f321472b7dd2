"""Tensors that hold one number everywhere, whatever the data: what they carry tells nothing."""

import onnx

from onnxprune.model.tensors import to_array
from onnxprune.model.view import View

__all__ = ["uniform_value"]

_MOVES = (
    "Expand",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
)


def uniform_value(view: View, value: str) -> float | None:
    """Return the number that every element of a value is, None where elements may differ.

    Parameters
    ----------
    view : View
    value : str

    Returns
    -------
    float or None
    """
    if view.is_constant(value):
        array = view.constant(value)
        if array.size == 0 or not (array == array.flat[0]).all():
            return None
        return float(array.flat[0])
    node = view.producers.get(value)
    if node is None:
        return None
    if node.op_type == "ConstantOfShape":
        fill = node.attributes.get("value")
        return (
            float(to_array(fill, view.base).flat[0]) if isinstance(fill, onnx.TensorProto) else 0.0
        )
    if node.op_type == "Concat":
        found = {uniform_value(view, v) for v in node.inputs}
        return found.pop() if len(found) == 1 else None
    return uniform_value(view, node.inputs[0]) if node.op_type in _MOVES else None
