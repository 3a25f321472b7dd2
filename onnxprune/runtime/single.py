"""One operator on its own, run by the reference implementation."""

import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

__all__ = ["single"]


def single(node: onnx.NodeProto, opset: int) -> ReferenceEvaluator:
    """Make an evaluator of one node.

    Parameters
    ----------
    node : NodeProto
    opset : int
        Version of the default domain: a bare node would be read as of the newest one.

    Returns
    -------
    ReferenceEvaluator
    """
    inputs, outputs = (
        [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name]
        for names in (node.input, node.output)
    )
    graph = helper.make_graph([node], "single", inputs, outputs)
    return ReferenceEvaluator(graph, opsets={"": opset})
