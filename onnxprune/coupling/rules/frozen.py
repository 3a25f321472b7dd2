"""Operators that are frozen on purpose: why no axis of theirs can be cut, and what would free it.

Each has a counter-example in the tests that shows a cut breaking the law. Operators that freeze
some of their axes only have a rule, which says so itself.
"""

from dataclasses import dataclass

from onnxprune.coupling.relations import NOTHING

__all__ = ["FROZEN", "Why", "lookup"]


@dataclass(frozen=True, slots=True)
class Why:
    """Why an operator is frozen whole, and what would free its axes."""

    reason: str
    unlock: str = NOTHING


_RANDOM = Why(
    "draws random numbers: other sizes are other draws", "an export in evaluation mode, without it"
)
_NUMBERS = Why("the whole result is computed from a few numbers")
_PLACES = Why("numbers its results by place, through all axes of the input")
_SEQUENCE = Why(
    "sequences and optionals have no axes of their own",
    "an export that stacks or concatenates tensors",
)
_STRINGS = Why("works on text, which has no channels")
_MAPS = Why("works on maps, which have no channels", "an export without them (zipmap=False)")
_TREES = Why("each tree node names the number of a feature")

FROZEN: dict[tuple[str, str], Why] = {}


def lookup(domain: str, op_type: str) -> Why | None:
    """Return why an operator is frozen whole, None if it is not."""
    return FROZEN.get((domain, op_type))
