"""What operators carry in attributes and parameter inputs, mended for a cut.

A repair looks at which axes of its node lose positions and says what the node's parameters must
be afterwards. Slicing the weights and keeping computed shapes right is done elsewhere.
"""

from onnxprune.rewrite.repairs import attention, counts, ml, movement, quantized
from onnxprune.rewrite.repairs._site import Repair, Site, UnrepresentableError, repair

__all__ = [
    "Repair",
    "Site",
    "UnrepresentableError",
    "attention",
    "counts",
    "ml",
    "movement",
    "quantized",
    "repair",
]
