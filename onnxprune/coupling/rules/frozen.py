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

_FLOAT = "the float model: prune that, and quantize the result"
_PACKED = Why("{op} packs numbers of many rows and columns into one run of bytes", _FLOAT)
_INSIDE = Why("{op} computes several steps on integers inside, which no cut can mend", _FLOAT)
_UNMASKED = Why(
    "{op} takes 16-bit integers, which onnxruntime cannot mask: no cut could be proven", _FLOAT
)
_MEMORY = Why("{op} writes its caches in place, where only its caller can bind them")
_SPARSE = Why("{op} reads a sparse tensor, whose axes are numbers in a list")
_WITHIN = Why(
    "{op} takes norms of whole rows inside",
    "an export with SimplifiedLayerNormalization and the steps around it apart",
)
_STREAMS = Why("{op} tells its streams apart by their place")
_SECTIONS = Why(
    "{op} takes its pairs of dims from sections that it numbers", "RotaryEmbedding instead"
)
_LOOKS_BACK = Why("{op} looks back at a memory inside", "an export with LSTM and attention apart")
_TOKENS = Why("{op} compares numbers of tokens, place by place")
_MATRIX = Why("{op} solves for the whole matrix at once")
_WINDOWS = Why("{op} copies neighbours into windows")
_GENERATES = Why(
    "{op} runs a whole decoder from inside, and chooses token by token",
    "the decoder exported alone: prune that, and wrap it again",
)

_GROUPS: dict[Why, dict[str, str]] = {
    _RANDOM: {
        "": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike"
    },
    _NUMBERS: {
        "": "AffineGrid BlackmanWindow EyeLike HammingWindow HannWindow MelWeightMatrix Range",
        MICROSOFT: "Range",
    },
    _BY_VALUE: {
        "": "NonMaxSuppression NonZero Unique",
        MICROSOFT: "DynamicTimeWarping Unique",
    },
    _BY_PLACE: {"": "MaxUnpool"},
    _SEQUENCE: {
        "": "ConcatFromSequence Optional SequenceAt SequenceConstruct SequenceEmpty SequenceErase"
        " SequenceInsert SequenceLength SequenceMap SplitToSequence"
    },
    _GENERATES: {MICROSOFT: "BeamSearch GreedySearch Sampling WhisperBeamSearch"},
    _MAP: {ML: "CastMap DictVectorizer ZipMap"},
    _TEXT: {
        "": "StringNormalizer StringSplit TfIdfVectorizer",
        MICROSOFT: "Tokenizer WordConvEmbedding",
    },
    _PACKED: {MICROSOFT: "MatMulBnb4 MatMulFpQ4 QMoE"},
    _INSIDE: {MICROSOFT: "QAttention QEmbedLayerNormalization"},
    _UNMASKED: {MICROSOFT: "MatMulInteger16"},
    _MEMORY: {MICROSOFT: "SparseAttention"},
    _SPARSE: {MICROSOFT: "SparseToDenseMatMul"},
    _WITHIN: {MICROSOFT: "BranchwiseRMSNorm EngramGate GatedRMSNorm"},
    _STREAMS: {MICROSOFT: "HyperConnectionPostMix HyperConnectionPreMix"},
    _SECTIONS: {MICROSOFT: "MRotaryEmbedding"},
    _LOOKS_BACK: {MICROSOFT: "AttnLSTM"},
    _TOKENS: {
        MICROSOFT: "BifurcationDetector NGramHashMapping NGramRepeatBlock VarlenNGramHashMapping"
    },
    _MATRIX: {MICROSOFT: "Inverse"},
    _WINDOWS: {MICROSOFT: "MaxpoolWithMask UnfoldTensor"},
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
