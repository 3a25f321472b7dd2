"""One rule per operator, by family: what an operator says about the axes of its values.

A rule is a generator over one node. It never walks the graph, and it need not be complete: an axis
that no relation of a node mentions is frozen with the operator's name.
"""

from onnxprune.coupling.rules import (
    attention,
    blocked,
    blocks,
    control,
    convolution,
    frozen,
    indexing,
    linear,
    ml,
    movement,
    normalization,
    pointwise,
    pooling,
    quantized,
    recurrent,
    reduction,
)
from onnxprune.coupling.rules._registry import (
    MICROSOFT,
    ML,
    NCHWC,
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
    "MICROSOFT",
    "ML",
    "NCHWC",
    "UNKNOWN",
    "Op",
    "OpBody",
    "Rule",
    "Tensor",
    "attention",
    "blocked",
    "blocks",
    "control",
    "convolution",
    "frozen",
    "indexing",
    "linear",
    "lookup",
    "ml",
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
