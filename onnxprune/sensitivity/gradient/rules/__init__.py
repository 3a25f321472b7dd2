"""One vector-Jacobian product per operator, by family.

A rule takes the gradient of what a node makes and says, in standard operators, the gradient of
what it reads. It never walks the graph.
"""

from onnxprune.sensitivity.gradient.rules import (
    convolution,
    linear,
    movement,
    normalization,
    pointwise,
    pooling,
    recurrent,
    reduction,
)
from onnxprune.sensitivity.gradient.rules._registry import Call, Rule, lookup, registered, vjp

__all__ = [
    "Call",
    "Rule",
    "convolution",
    "linear",
    "lookup",
    "movement",
    "normalization",
    "pointwise",
    "pooling",
    "recurrent",
    "reduction",
    "registered",
    "vjp",
]
