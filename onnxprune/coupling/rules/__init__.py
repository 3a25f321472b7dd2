"""One rule per operator, by family: what an operator says about the axes of its values.

A rule is a generator over one node. It never walks the graph, and it need not be complete: an axis
that no relation of a node mentions is frozen with the operator's name.
"""

from onnxprune.coupling.rules import (
    blocked,
    control,
    convolution,
    frozen,
    linear,
    movement,
    normalization,
    pointwise,
    pooling,
    quantized,
    recurrent,
    reduction,
)
from onnxprune.coupling.rules._registry import (
    UNKNOWN,
    Op,
    OpBody,
    Rule,
    Tensor,
    lookup,
    registered,
    rule,
)

__all__ = [
    "UNKNOWN",
    "Op",
    "OpBody",
    "Rule",
    "Tensor",
    "blocked",
    "control",
    "convolution",
    "frozen",
    "linear",
    "lookup",
    "movement",
    "normalization",
    "pointwise",
    "pooling",
    "quantized",
    "recurrent",
    "reduction",
    "registered",
    "rule",
]
