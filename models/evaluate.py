"""Print the table of README.md: what each model scores on the held-out samples and what it costs.

Needs onnx, onnxruntime and numpy; none of the frameworks that the models come from.
"""

from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

HERE = Path(__file__).parent

DATA = {
    "digits_resnet": "digits_images",
    "digits_resnet_bn": "digits_images",
    "digits_resnet_dynamo": "digits_images",
    "digits_mobile": "digits_images",
    "digits_vit": "digits_images",
    "digits_keras": "digits_images_nhwc",
    "digits_mlp": "digits_features",
    "digits_lstm": "digits_rows",
    "digits_gru": "digits_rows",
}
"""Which data each model reads: NAME.npz to calibrate, NAME_heldout.npz to judge."""


def accuracy(name: str) -> float:
    """Return the share of the held-out samples that a model labels rightly, 0-1."""
    held_out = np.load(HERE / f"{DATA[name]}_heldout.npz")
    session = onnxruntime.InferenceSession(
        HERE / f"{name}.onnx", providers=["CPUExecutionProvider"]
    )
    # The scores come last: scikit-learn's models put the label before them.
    scores = session.run(None, {"input": held_out["input"]})[-1]
    return float(np.mean(np.argmax(scores, axis=1) == held_out["labels"]))


def parameters(model: onnx.ModelProto) -> int:
    """Count the elements of all float initializers and Constants, each once."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}
    return sum(prod(t.dims) for t in _constants(model.graph) if t.data_type in floats)


def multiply_accumulates(model: onnx.ModelProto, sample: NDArray[np.float32]) -> int:
    """Count the multiply-accumulates of all convolutions, matrix products and recurrent cells.

    Parameters
    ----------
    model : ModelProto
    sample : float32 array
        One feed of the input. The model is run on it by onnx's reference implementation, so
        that every shape is the real one.

    Returns
    -------
    int
        For the whole feed.
    """
    values = ReferenceEvaluator(model).run(None, {"input": sample}, intermediate=True)
    shapes = {name: np.shape(value) for name, value in dict(values).items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return sum(_macs(node, shapes) for node in model.graph.node)


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.type == onnx.AttributeProto.TENSOR)


def _macs(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    match node.op_type:
        case "Conv":
            places = shapes[node.output[0]]
            return places[0] * prod(places[2:]) * prod(shapes[node.input[1]])
        case "Gemm" | "MatMul":
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            inner = shapes[node.input[0]][0 if transposed else -1]
            return prod(shapes[node.output[0]]) * inner
        case "LSTM" | "GRU":
            steps, batch = shapes[node.input[0]][:2]
            return steps * batch * (prod(shapes[node.input[1]]) + prod(shapes[node.input[2]]))
    return 0


def row(name: str) -> str:
    """Return a model's line of the table, in Markdown."""
    model = onnx.load(HERE / f"{name}.onnx")
    sample = np.load(HERE / f"{DATA[name]}.npz")["input"][:1]
    opset = next(o.version for o in model.opset_import if o.domain == "")
    return (
        f"| `{name}.onnx` | `{DATA[name]}.npz` | {opset} | {accuracy(name):.2%} "
        f"| {parameters(model):,} | {multiply_accumulates(model, sample):,} |"
    )


def main() -> None:
    """Print the table."""
    print("| model | data | opset | accuracy | parameters | MACs per sample |")
    print("|---|---|---:|---:|---:|---:|")
    for name in DATA:
        print(row(name))


if __name__ == "__main__":
    main()
