"""Operators that are frozen on purpose: why no axis of theirs can be cut, and what would free it.

Each has a counter-example in the tests that shows a cut breaking the law. Operators that freeze
some of their axes only have a rule, which says so itself.
"""

from dataclasses import dataclass

from onnxprune.coupling.relations import NOTHING
from onnxprune.coupling.rules._registry import MICROSOFT, ML, NCHWC

__all__ = ["FROZEN", "Why", "lookup"]


@dataclass(frozen=True, slots=True)
class Why:
    """Why an operator is frozen whole, and what would free its axes."""

    reason: str
    unlock: str = NOTHING


_RANDOM = Why(
    "{op} draws random numbers: other sizes are other draws",
    "an export in evaluation mode, without random operators",
)
_NUMBERS = Why("{op} computes its whole result from a few numbers")
_BY_VALUE = Why(
    "{op} decides by the values how long its result is, and where they go",
    "cutting ahead of it: what is only read by this operator can end in another one",
)
_BY_PLACE = Why("{op} numbers places through all axes of its input")
_SEQUENCE = Why(
    "{op} works on a sequence or an optional, which has no axes",
    "an export that concatenates or stacks tensors instead",
)
_MAP = Why(
    "{op} works on maps, which have no axes",
    "an export to plain tensors (skl2onnx: options={'zipmap': False})",
)
_TEXT = Why("{op} works on text, word by word")
_DISTANCES = Why("{op} measures distances to stored vectors: a feature at zero still counts")
_TREES = Why("{op} names features by number in its trees, each of which may decide")
_BLOCKED = Why(
    "{op} of onnxruntime's NCHWc layout stores channels in blocks of the machine's width",
    "a model without that layout: the original, or one saved at ORT_ENABLE_EXTENDED",
)

_GENERATES = Why(
    "{op} runs a whole decoder from inside, and chooses token by token",
    "the decoder exported alone: prune that, and wrap it again",
)

_GROUPS: dict[Why, dict[str, str]] = {
    _RANDOM: {
        "": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
    },
    _NUMBERS: {
        "": "AffineGrid BlackmanWindow EyeLike HammingWindow HannWindow MelWeightMatrix Range"
    },
    _BY_VALUE: {"": "NonMaxSuppression NonZero Unique"},
    _BY_PLACE: {"": "MaxUnpool"},
    _SEQUENCE: {
        "": "ConcatFromSequence Optional SequenceAt SequenceConstruct SequenceEmpty SequenceErase"
        " SequenceInsert SequenceLength SequenceMap SplitToSequence"
    },
    _GENERATES: {MICROSOFT: "BeamSearch GreedySearch Sampling WhisperBeamSearch"},
    _MAP: {ML: "CastMap DictVectorizer ZipMap"},
    _TEXT: {"": "StringNormalizer StringSplit TfIdfVectorizer"},
    _DISTANCES: {ML: "SVMClassifier SVMRegressor"},
    _TREES: {ML: "TreeEnsemble TreeEnsembleClassifier TreeEnsembleRegressor"},
    _BLOCKED: {
        NCHWC: "AveragePool Conv GlobalAveragePool GlobalMaxPool MaxPool ReorderInput"
        " ReorderOutput Upsample"
    },
}
FROZEN: dict[tuple[str, str], Why] = {
    (domain, op): Why(why.reason.format(op=op), why.unlock)
    for why, domains in _GROUPS.items()
    for domain, ops in domains.items()
    for op in ops.split()
}


def lookup(domain: str, op_type: str) -> Why | None:
    """Return why an operator is frozen whole, None if it is not."""
    return FROZEN.get((domain, op_type))
