"""Rows of the law for operators that onnxruntime's optimizers write, judged by onnxruntime only."""

from tests.coupling.opcase import K, OpCase, W, X

_PLACES = "cannot be cut along this axis"
_ORT = {"reference": "onnx.reference has no operators of onnxruntime's own"}
_MS = "com.microsoft"


def _case(op, note, inputs, attributes, cut, why=(), outputs="y"):
    return OpCase(
        op, note, inputs, attributes, cut, dict(why), outputs=outputs, domain=_MS, skip=_ORT
    )


_POINTWISE = [
    *(
        _case(op, "ms", {"x": X((2, 4, 3))}, {}, "x012 y012")
        for op in ("FastGelu", "Gelu", "QuickGelu")
    ),
    _case("FastGelu", "ms-bias", {"x": X((2, 3, 4)), "b": W((4,))}, {}, "x012 b0 y012"),
    _case("BiasGelu", "ms", {"x": X((2, 3, 4)), "b": W((4,))}, {}, "x012 b0 y012"),
]

_PRODUCTS = [
    _case(
        "FusedConv",
        "ms",
        {"x": X((2, 4, 5, 5)), "w": W((6, 4, 3, 3)), "b": W((6,))},
        {"activation": "Relu", "pads": [1, 1, 1, 1]},
        "x01 w01 b0 y01",
        {"x23 w23": _PLACES},
    ),
    _case(
        "FusedConv",
        "ms-skip",
        {"x": X((2, 4, 5, 5)), "w": W((6, 4, 1, 1)), "b": W((6,)), "z": X((2, 6, 5, 5))},
        {"activation": "LeakyRelu", "activation_params": [0.2]},
        "x01 w01 b0 z01 y01",
    ),
    _case(
        "FusedConv",
        "ms-grouped",
        {"x": X((2, 6, 5, 5)), "w": W((8, 3, 3, 3)), "b": W((8,))},
        {"activation": "Relu", "group": 2},
        "x01 w01 b0 y01",
    ),
    _case(
        "FusedConv",
        "ms-depthwise",
        {"x": X((2, 4, 5, 5)), "w": W((4, 1, 3, 3)), "b": W((4,))},
        {"activation": "Relu", "group": 4},
        "x01 w0 b0 y01",
    ),
    _case(
        "FusedGemm",
        "ms",
        {"a": X((3, 4)), "b": W((5, 4)), "c": W((5,))},
        {"activation": "Relu", "transB": 1},
        "a01 b01 c0 y01",
    ),
    _case(
        "FusedMatMul",
        "ms",
        {"a": X((2, 4, 3)), "b": W((5, 4))},
        {"transA": 1, "transB": 1, "alpha": 0.5},
        "a012 b01 y012",
    ),
    _case(
        "FusedMatMul",
        "ms-scores",
        {"a": X((2, 3, 4, 6)), "b": X((2, 3, 5, 6))},
        {"transB": 1, "alpha": 0.4},
        "a0123 b0123 y0123",
    ),
    _case(
        "FusedMatMul",
        "ms-batch-last",
        {"a": X((4, 2, 3, 6)), "b": X((6, 2, 3, 5))},
        {"transBatchA": 1, "transBatchB": 1},
        "a0123 b0123 y0123",
    ),
    _case(
        "FusedMatMul",
        "ms-batch-last-transposed",
        {"a": X((6, 2, 3, 4)), "b": X((2, 3, 6, 5))},
        {"transBatchA": 1, "transA": 1},
        "a0123 b0123 y0123",
    ),
    _case(
        "TransposeMatMul",
        "ms",
        {"a": X((4, 3)), "b": W((4, 5))},
        {"transA": 1},
        "a01 b01 y01",
    ),
    _case(
        "ConvTransposeWithDynamicPads",
        "ms",
        {"x": X((2, 4, 4, 4)), "w": W((4, 6, 3, 3)), "p": K([0, 0, 0, 0]), "b": W((6,))},
        {},
        "x01 w01 b0 y01",
        {"x23 y23 w23": _PLACES},
    ),
]

_TWO = {"x": X((2, 3, 6)), "s": X((2, 3, 6))}
_NORMALIZATIONS = [
    OpCase(
        "RMSNormalization",
        "",
        {"x": X((2, 3, 6)), "s": W((6,))},
        {"epsilon": 1e-3},
        "x012 s0 y012",
        opset=23,
    ),
    OpCase(
        "RMSNormalization",
        "two-axes",
        {"x": X((2, 3, 6)), "s": W((3, 6))},
        {"axis": 1},
        "",
        {"x012 y012 s01": _PLACES},
        opset=23,
    ),
    OpCase(
        "SimplifiedLayerNormalization",
        "",
        {"x": X((2, 3, 6)), "s": W((6,))},
        {"epsilon": 1e-3, "axis": -1},
        "x012 s0 y012",
        skip=_ORT,
    ),
    _case(
        "SkipLayerNormalization",
        "ms",
        {**_TWO, "g": W((6,)), "b": W((6,)), "c": W((6,))},
        {"epsilon": 1e-3},
        "x012 s012 g0 b0 c0 y012",
    ),
    _case(
        "SkipLayerNormalization",
        "ms-sum",
        {**_TWO, "g": W((6,)), "b": W((6,))},
        {"epsilon": 1e-3},
        "x012 s012 g0 b0 y012 z012",
        outputs="y__z",
    ),
    _case(
        "SkipSimplifiedLayerNormalization",
        "ms",
        {**_TWO, "g": W((6,))},
        {"epsilon": 1e-3},
        "x012 s012 g0 y012",
    ),
    _case(
        "SkipSimplifiedLayerNormalization",
        "ms-sum",
        {**_TWO, "g": W((6,)), "c": W((6,))},
        {"epsilon": 1e-3},
        "x012 s012 g0 c0 y012 z012",
        outputs="y__z",
    ),
]

_BLOCKS = [
    _case(
        "EmbedLayerNormalization",
        "ms",
        {
            "i": X((2, 3), "j"),
            "t": X((2, 3), "j"),
            "w": W((9, 6)),
            "p": W((5, 6)),
            "k": W((6, 6)),
            "g": W((6,)),
            "b": W((6,)),
        },
        {"epsilon": 1e-3},
        "i0 t0 w1 p1 k1 g0 b0 y02 z02",
        {"y1": "numbers these positions", "w0": _PLACES},
        outputs="y_z",
    ),
    *(
        _case(
            "MoE",
            f"ms-{note}",
            {
                "x": X((7, 4)),
                "r": X((7, 3)),
                "a": W((3, 5 * fused, 4)),
                "b": W((3, 5 * fused)),
                "c": W((3, 4, 5)),
                "d": W((3, 4)),
            },
            {"k": 2, **attributes},
            "x01 r0 a12 b1 c12 d1 y01",
            {"r1 a0": _PLACES},
        )
        for note, fused, attributes in (
            ("gelu", 1, {"activation_type": "gelu"}),
            ("swiglu", 2, {"activation_type": "swiglu", "swiglu_fusion": 1}),
        )
    ),
    _case(
        "CausalConvWithState",
        "ms",
        {"x": X((2, 4, 5)), "w": W((4, 1, 3)), "b": W((4,)), "p": X((2, 4, 2))},
        {"activation": "silu"},
        "x01 w0 b0 p01 y01 z01",
        {"x2": _PLACES},
        outputs="yz",
    ),
    *(
        _case(
            "LinearAttention",
            f"ms-{rule}",
            {
                "q": X((2, 3, 24)),
                "k": X((2, 3, 12), "u"),
                "v": X((2, 3, 10)),
                "s": X((2, 2, 6, 5)),
                "d": X((2, 3, 2), "-"),
                "b": X((2, 3, 2), "p"),
            },
            {"q_num_heads": 4, "kv_num_heads": 2, "update_rule": rule},
            "q02 k02 v02 s0123 d02 b02 y02 z0123",
            {"q1": _PLACES},
            outputs="yz",
        )
        for rule in ("gated_delta",)
    ),
]

CASES = [*_BLOCKS, *_POINTWISE, *_PRODUCTS, *_NORMALIZATIONS]
