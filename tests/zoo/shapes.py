"""What an architecture of the zoo is: a model class, a small configuration and its inputs.

Sizes are chosen so that no two roles share a number: hidden 64, intermediate 128, vocabulary 199,
sequence 12, 48 positions, 10 labels, heads of 16. Nothing here imports torch or transformers.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

BATCH = 2
HIDDEN, INNER, VOCAB, SEQUENCE, POSITIONS, LABELS = 64, 128, 199, 12, 48, 10
FIRST_WORD = 3  # ids below are special tokens (pad, begin, end)

Kind = Literal["float", "ids", "mask"]
Sizes = dict[str, Any]


@dataclass(frozen=True)
class Input:
    """One graph input: its example shape, how it is filled, and which axes may be dynamic."""

    name: str
    shape: tuple[int, ...]
    kind: Kind = "float"
    dynamic: dict[int, str] = field(default_factory=lambda: {0: "batch"})


@dataclass(frozen=True)
class Architecture:
    """A model class of transformers, the arguments of its configuration, its inputs and outputs."""

    name: str
    model: str
    config: Sizes
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...] = ("logits",)


def image(size: int = 32, channels: int = 3) -> Input:
    return Input("pixel_values", (BATCH, channels, size, size))


def ids(name: str = "input_ids", length: int = SEQUENCE, axis: str = "sequence") -> Input:
    return Input(name, (BATCH, length), "ids", {0: "batch", 1: axis})


def mask() -> Input:
    return Input("attention_mask", (BATCH, SEQUENCE), "mask", {0: "batch", 1: "sequence"})


def audio(samples: int = 800) -> Input:
    return Input("input_values", (BATCH, samples), "float", {0: "batch", 1: "samples"})


HIDDEN_STATE = ("last_hidden_state",)
