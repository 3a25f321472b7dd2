"""Models small enough to break by hand."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WEIGHT = np.arange(1024, dtype=np.float32).reshape(32, 32)


def external(location, *, name="W", array=WEIGHT, offset=None, length=None, extra=()):
    """A reference to data outside the model file."""
    tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
    tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
    entries = [("location", location), ("offset", offset), ("length", length), *extra]
    for key, value in entries:
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


def embedded(array, name="W"):
    return numpy_helper.from_array(array, name)


def model(*tensors, nodes=None, opset=17, ir=8, functions=(), inputs=()):
    """x[1,32] @ W[32,32] = y, with other nodes or tensors on demand."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes if nodes is not None else [helper.make_node("MatMul", ["x", "W"], ["y"])],
        "small",
        [value("x", TensorProto.FLOAT, [1, 32]), *inputs],
        [value("y", TensorProto.FLOAT, [1, 32])],
        list(tensors or [embedded(WEIGHT)]),
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid("local", 1)] if functions else []
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    made.ir_version = ir
    return made


def save(path, proto):
    path.write_bytes(proto.SerializeToString())
    return path


def function(name, calls):
    """A function that calls others one after the other."""
    names = ["x", *(f"v{i}" for i in range(len(calls) - 1)), "y"]
    nodes = [
        helper.make_node(op, [names[i]], [names[i + 1]], domain="" if op == "Identity" else "local")
        for i, op in enumerate(calls)
    ]
    return helper.make_function("local", name, ["x"], ["y"], nodes, [helper.make_opsetid("", 17)])
