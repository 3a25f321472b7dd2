"""Branches that the data at hand do not take: the same model with every If made to take one."""

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.model.scopes import numbered_nodes

__all__ = ["force_branches", "has_branches"]

_FLAG = "onnxprune/branch"


def has_branches(model: onnx.ModelProto) -> bool:
    """Say whether some graph of a model branches."""
    return any(node.op_type == "If" for node in numbered_nodes(model))


def force_branches(model: onnx.ModelProto, *, then: bool) -> onnx.ModelProto:
    """Copy a model so that every If takes its then-branch, or its else-branch.

    Parameters
    ----------
    model : ModelProto
    then : bool

    Returns
    -------
    ModelProto
        Which need not run: data may fit one branch only.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.append(numpy_helper.from_array(np.array(then), _FLAG))
    for node in numbered_nodes(copy):
        if node.op_type == "If":
            node.input[0] = _FLAG
    return copy
