"""Convolutions over maps of a few places as the matrix products that they are.

On a map with no more places than its kernel, a convolution multiplies mostly padding and runs at a
fraction of the speed of a matrix product, which here is no more work.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune.runtime.session import Session

__all__ = ["unroll"]

_LARGEST = 1 << 24  # elements of one matrix


def unroll(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Replace such convolutions in place.

    Parameters
    ----------
    model : ModelProto
        Runs at the sizes of ``shapes``, but for the batch.
    shapes : mapping of value name to shape
        Of the original; gates that stand behind its values are known by these.
    """
    known = dict(shapes)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Where" and node.input[1] in known:
            known.setdefault(node.output[0], known[node.input[1]])
        weight = stored.get(node.input[1]) if node.op_type == "Conv" else None
        bias = stored.get(node.input[2]) if len(node.input) > 2 else None
        before, after = known.get(node.input[0] if node.input else ""), known.get(node.output[0])
        if weight is None or before is None or after is None or not _small(weight, before, after):
            nodes.append(node)
            continue
        if len(node.input) > 2 and bias is None:
            nodes.append(node)
            continue
        dense, added = _matrix(node, weight, before[2:]), np.zeros(after[1], np.float32)
        if bias is not None:
            added = numpy_helper.to_array(bias)
        nodes.extend(_product(model, node, dense, added, after))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _small(weight: onnx.TensorProto, before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    places, kernel = int(np.prod(before[2:])), int(np.prod(weight.dims[2:]))
    whole = weight.dims[1] == before[1]  # one group
    fits = np.prod(before[1:]) * np.prod(after[1:]) <= _LARGEST
    floats = weight.data_type == onnx.TensorProto.FLOAT
    return bool(1 < places <= kernel and whole and fits and floats)


def _matrix(
    node: onnx.NodeProto, weight: onnx.TensorProto, places: tuple[int, ...]
) -> NDArray[np.float32]:
    """Let the convolution itself say what reaches which place: one at a time is 1, the rest 0."""
    taps = numpy_helper.to_array(weight)
    each = helper.make_node("Conv", ["x", "w"], ["y"])
    each.attribute.extend(a for a in node.attribute if a.name != "group")
    model = helper.make_model(
        helper.make_graph(
            [each],
            "taps",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            [numpy_helper.from_array(taps.reshape(-1, 1, *taps.shape[2:]), "w")],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    count = int(np.prod(places))
    basis = np.eye(count, dtype=np.float32).reshape(count, 1, *places)
    found = Session(model).run({"x": basis})["y"].reshape(count, *taps.shape[:2], -1)
    # (place, filter, channel, place) to (channel and place, filter and place)
    return found.transpose(2, 0, 1, 3).reshape(taps.shape[1] * count, -1).astype(np.float32)


def _product(
    model: onnx.ModelProto,
    node: onnx.NodeProto,
    dense: NDArray[np.float32],
    bias: NDArray[np.generic],
    after: tuple[int, ...],
) -> list[onnx.NodeProto]:
    output = node.output[0]
    names = [f"onnxprune/unrolled/{output}/{k}" for k in range(5)]
    flat, product, weight, added, shape = names
    spread = np.repeat(bias, int(np.prod(after[2:]))).astype(np.float32)
    sizes = np.array([-1, *after[1:]], np.int64)
    for array, name in ((dense, weight), (spread, added), (sizes, shape)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return [
        helper.make_node("Flatten", [node.input[0]], [flat], axis=1),
        helper.make_node("Gemm", [flat, weight, added], [product]),
        helper.make_node("Reshape", [product, shape], [output]),
    ]
