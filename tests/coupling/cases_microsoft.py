"""Rows of the law for operators of onnxruntime's own that hardly anyone writes."""

import numpy as np

from onnxprune.coupling.rules import MICROSOFT
from tests.coupling.cases_frozen import frozen_case
from tests.coupling.opcase import K, OpCase, P, W, X

_ORT = {"reference": "onnx.reference has no operators of onnxruntime's own"}
_HASHES = {"m": K([3, 5, 7]), "v": K([101, 103])}
_HOW = {"max_ngram_size": 3, "n_head_per_ngram": 1, "pad_id": 0}


def _frozen(op, inputs, attributes=(), frozen="", **more):
    return frozen_case(
        op, inputs, attributes, domain=MICROSOFT, frozen=frozen, skip=_ORT, note="ms-frozen", **more
    )


def _ruled(op, note, inputs, attributes, cut, why=(), **more):
    return OpCase(
        op,
        f"ms-{note}".rstrip("-"),
        inputs,
        dict(attributes),
        cut,
        dict(why),
        domain=MICROSOFT,
        skip=_ORT,
        **more,
    )


_ZERO = K(0, "int8")
_TENTH = K(0.1, "float32")
FROZEN = [
    _frozen(
        "MatMulInteger16",
        {"a": X((3, 4), "h"), "b": W((4, 5), "h")},
        (),
        "a01 b01 y01",
        dtype="int32",
    ),
    _frozen("Range", {"b": K(0), "e": P((), "5"), "s": K(1)}, (), "y0", dtype="int64"),
    _frozen("DynamicTimeWarping", {"x": X((1, 4, 6))}, (), "x12 y01", dtype="int32"),
    _frozen("Unique", {"x": X((6,))}, (), "x0", outputs="yiz", dtype="float32 int64 int64"),
    _frozen(
        "Tokenizer",
        {"x": X((4,), "t")},
        {"mark": 1, "pad_value": "#", "separators": ["b"], "mincharnum": 1},
        "x0 y01",
        dtype="object",
    ),
    _frozen(
        "WordConvEmbedding",
        {"s": X((3, 6), "j"), "w": W((5, 1, 2, 4)), "b": W((5,)), "c": W((9, 4))},
        {"embedding_size": 5, "conv_window_size": 2, "char_embedding_size": 4},
        "s01 w023 b0 c01 y01",
    ),
    _frozen(
        "MatMulBnb4",
        {"a": X((3, 64)), "b": W((256,), "B"), "m": W((32,))},
        {"K": 64, "N": 8, "block_size": 16, "quant_type": 1},
        "a01 b0 m0 y01",
    ),
    _frozen(
        "MatMulFpQ4",
        {"a": X((3, 32)), "b": W((160,), "B"), "s": K([32, 8])},
        {"blk_quant_type": 0},
        "a01 b0 y01",
    ),
    _frozen(
        "QMoE",
        {"x": X((4, 32)), "r": X((4, 3)), "a": W((3, 64, 16), "B"), "s": W((3, 64), "s")}
        | {"b": W((3, 32, 32), "B"), "t": W((3, 32), "s")},
        {"k": 2, "expert_weight_bits": 4, "activation_type": "relu"},
        "x01 r01 a012 s01 b012 t01 y01",
        slots="xras bt",
    ),
    _frozen(
        "QAttention",
        {"x": X((2, 3, 4), "z"), "w": W((4, 12), "q"), "b": W((12,)), "s": K(0.05, "float32")}
        | {"v": W((12,), "s"), "z": K(3, "uint8"), "u": W((12,), "0")},
        {"num_heads": 2},
        "x012 w01 b0 v0 u0 y012",
        slots="xwbsv zu",
    ),
    _frozen(
        "QEmbedLayerNormalization",
        {"i": X((2, 3), "j"), "k": K(np.zeros((2, 3)), "int32"), "w": W((6, 4), "q")}
        | {"p": W((3, 4), "q"), "s": W((2, 4), "q"), "g": W((4,), "q"), "b": W((4,), "q")}
        | dict.fromkeys("12345", _TENTH)
        | dict.fromkeys("67890", _ZERO),
        {},
        "i01 w01 p01 s01 g0 b0 y012",
        outputs="yz",
        dtype="float32 int32",
        slots="ikwpsgb 1234567890",
    ),
    _frozen("BranchwiseRMSNorm", {"x": X((2, 3, 4)), "s": W((4,))}, (), "x012 s0 y012"),
    _frozen("GatedRMSNorm", {"x": X((3, 4)), "s": W((4,)), "g": X((3, 4))}, (), "x01 s0 g01 y01"),
    _frozen(
        "EngramGate",
        {"k": X((2, 3, 2, 4)), "q": X((2, 3, 2, 4)), "v": X((2, 3, 4))}
        | {"a": W((2, 4)), "b": W((2, 4))},
        (),
        "k0123 q0123 v012 a01 b01 y0123",
    ),
    _frozen("HyperConnectionPreMix", {"s": X((2, 3, 4)), "p": X((2, 3))}, (), "s012 p01 y01"),
    _frozen(
        "HyperConnectionPostMix",
        {"s": X((2, 3, 4)), "b": X((2, 4)), "p": X((2, 3)), "m": X((2, 3, 3))},
        (),
        "s012 b01 p01 m012 y012",
    ),
    _frozen(
        "MRotaryEmbedding",
        {"x": X((2, 3, 16)), "p": K(np.tile(np.arange(3), (3, 2, 1)))}
        | {"c": W((5, 4)), "s": W((5, 4))},
        {"mrope_section": [2, 1, 1], "num_heads": 2},
        "x012 c01 s01 y012",
    ),
    _frozen(
        "AttnLSTM",
        {"x": X((3, 2, 4)), "w": W((1, 12, 7)), "r": W((1, 12, 3)), "b": W((1, 24))}
        | {"q": W((1, 3, 6)), "m": W((1, 5, 6)), "v": W((1, 6)), "e": X((2, 4, 5))}
        | {"l": K([4, 3], "int32"), "a": W((1, 8, 3))},
        {"hidden_size": 3},
        "x012 w12 r12 b1 q12 m12 v1 e012 a12 y023",
        slots="xwrb    qmvela",
    ),
    _frozen(
        "BifurcationDetector",
        {"s": X((6,), "i"), "c": X((3,), "i"), "p": K(0)},
        (),
        "s0 c0",
        outputs="yz",
        dtype="int64",
    ),
    _frozen(
        "NGramRepeatBlock", {"i": X((2, 5), "i"), "s": X((2, 8))}, {"ngram_size": 1}, "i01 s01 y01"
    ),
    _frozen(
        "NGramHashMapping",
        {"x": X((2, 5), "i"), **_HASHES},
        _HOW,
        "x01 y01",
        outputs="yz",
        dtype="int64",
    ),
    _frozen(
        "VarlenNGramHashMapping",
        {"x": X((5,), "i"), **_HASHES, "c": K([0, 2, 5], "int32"), "p": K(np.zeros((2, 2)))},
        _HOW,
        "x0 y0",
        outputs="yz",
        dtype="int64",
    ),
    _frozen("Inverse", {"x": X((2, 4, 4))}, (), "x012 y012"),
    _frozen(
        "MaxpoolWithMask",
        {"x": X((1, 2, 4, 4)), "m": K(np.ones((1, 2, 4, 4)), "int32")},
        {"kernel_shape": [2, 2]},
        "x123 y123",
    ),
    _frozen("UnfoldTensor", {"x": X((3, 6))}, {"dim": 1, "size": 2, "step": 1}, "x01 y012"),
]

_ROWS = {"a": X((3, 4)), "b": X((5, 4))}
_RULED = [
    *(
        _ruled("CDist", metric, _ROWS, {"metric": metric}, "a01 b01 y01")
        for metric in ("euclidean", "sqeuclidean")
    ),
    _ruled("GatedAdd", "", {"x": X((3, 4)), "z": X((3, 4)), "g": X((3, 1))}, {}, "x01 z01 g0 y01"),
    _ruled(
        "LinearAttentionGate",
        "",
        {"a": X((2, 3, 4)), "d": W((4,)), "s": W((4,), "-"), "b": X((2, 3, 4))},
        {},
        "a012 d0 s0 b012 y012 z012",
        outputs="yz",
    ),
    _ruled("MurmurHash3", "", {"x": X((3, 4), "j")}, {}, "x01 y01", dtype="uint32"),
    _ruled("SampleOp", "", {"x": X((3, 4))}, {}, "x01 y01"),
    _ruled("ScaledSiLU", "", {"x": X((3, 4))}, {"alpha": 1.5}, "x01 y01"),
    _ruled("ExpandDims", "", {"x": X((3, 4)), "a": K(1, "int32")}, {}, "x01 y02"),
    _ruled(
        "Trilu",
        "",
        {"x": X((3, 4, 4))},
        {},
        "x0 y0",
        {"x12 y12": "Trilu runs along this axis"},
    ),
    _ruled(
        "Pad",
        "",
        {"x": X((2, 3)), "p": K([0, 1, 0, 1]), "v": K([0.0], "float32")},
        {},
        "x01 y01",
    ),
]

CASES = [*FROZEN, *_RULED]
