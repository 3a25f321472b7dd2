"""Rows of the law for quantized operators: integers must agree to the last bit."""

from tests.coupling.opcase import K, OpCase, W, X

_MS = "com.microsoft"
_ONLY_ORT = {"reference": "an operator of onnxruntime"}
_WHOLE = "cannot be cut along this axis"
_S, _Z = K(0.07, "float32"), K(3, "uint8")
_T, _U = K(0.05, "float32"), K(-2, "int8")


def _ms(op, note, inputs, *args, **more):
    more.setdefault("dtype", "uint8")
    return OpCase(op, note, inputs, *args, domain=_MS, skip=_ONLY_ORT, **more)


_STEPS = [
    OpCase("QuantizeLinear", "", {"x": X((2, 4, 3)), "s": _S, "z": _Z}, {}, "x012 y012", opset=21),
    OpCase(
        "QuantizeLinear",
        "per-channel",
        {"x": X((2, 4, 3)), "s": W((4,), "s"), "z": W((4,), "z")},
        {"axis": 1},
        "x012 y012 s0 z0",
        opset=21,
    ),
    OpCase(
        "DequantizeLinear",
        "",
        {"x": X((2, 4, 3), "z"), "s": _S, "z": _Z},
        {},
        "x012 y012",
        opset=21,
    ),
    OpCase(
        "DequantizeLinear",
        "per-channel-last",
        {"x": W((2, 4, 3), "q"), "s": W((3,), "s"), "z": W((3,), "q")},
        {"axis": -1},
        "x012 y012 s0 z0",
        opset=21,
    ),
    OpCase(
        "DequantizeLinear",
        "blocked",
        {"x": W((6, 8), "q"), "s": W((6, 4), "s"), "z": W((6, 4), "q")},
        {"axis": 1, "block_size": 2},
        "x01 y01 s01 z01",
        opset=21,
    ),
    OpCase(
        "DequantizeLinear",
        "blocked-last-partial",
        {"x": W((7, 3), "q"), "s": W((3, 3), "s")},
        {"axis": 0, "block_size": 3},
        "x01 y01 s01",
        opset=21,
        skip={"reference": "it wants whole blocks"},
    ),
    OpCase(
        "DequantizeLinear",
        "bias",
        {"x": W((6,), "I"), "s": W((6,), "s")},
        {"axis": 0},
        "x0 y0 s0",
        opset=21,
    ),
    OpCase("DynamicQuantizeLinear", "", {"x": X((2, 4, 3))}, {}, "x012 y012", outputs="ysz"),
    _ms("QuantizeLinear", "ms", {"x": X((2, 4, 3)), "s": _S, "z": _Z}, {"axis": 1}, "x012 y012"),
    _ms(
        "DequantizeLinear",
        "ms",
        {"x": X((2, 4), "z"), "s": W((4,), "s"), "z": W((4,), "z")},
        {"axis": 1},
        "x01 y01 s0 z0",
        dtype="float32",
    ),
]

_X = X((2, 4, 5, 5), "z")
_CONVOLUTIONS = [
    OpCase(
        "QLinearConv",
        "per-channel",
        {"x": _X, "s": _S, "z": _Z, "w": W((6, 4, 3, 3), "q"), "v": W((6,), "s"), "u": W((6,), "0")}
        | {"t": K(9.0, "float32"), "a": _Z, "b": W((6,), "I")},
        {},
        "x01 w01 v0 u0 b0 y01",
        {"x23": _WHOLE},
    ),
    OpCase(
        "QLinearConv",
        "depthwise",
        {"x": _X, "s": _S, "z": _Z, "w": W((4, 1, 3, 3), "q"), "v": _T, "u": _U}
        | {"t": K(5.0, "float32"), "a": _Z},
        {"group": 4},
        "x01 w0 y01",
        {"x23": _WHOLE},
    ),
    *(
        _ms(
            "QLinearConv",
            f"channels-last-{note}",
            {"x": X((2, 5, 6, 4), "z"), "s": _S, "z": _Z, "w": W((6, 4 // group, 3, 3), "q")}
            | {"v": W((6,), "s"), "u": W((6,), "0"), "t": K(9.0, "float32"), "a": _Z}
            | {"b": W((6,), "I")},
            {"channels_last": 1, "group": group},
            f"x03 w0{'1' * (group < 4)} v0 u0 b0 y03",
            {"x12": _WHOLE},
        )
        for note, group in (("whole", 1), ("grouped", 2))
    ),
    _ms(
        "QLinearConv",
        "ms",
        {"x": _X, "s": _S, "z": _Z, "w": W((6, 4, 3, 3), "q"), "v": _T, "u": _U}
        | {"t": K(9.0, "float32"), "a": _Z},
        {},
        "x01 w01 y01",
        {"x23": _WHOLE},
    ),
    OpCase(
        "ConvInteger",
        "",
        {"x": _X, "w": W((6, 4, 3, 3), "z"), "z": _Z, "u": K(7, "uint8")},
        {},
        "x01 w01 y01",
        {"x23": _WHOLE},
    ),
    OpCase(
        "ConvInteger",
        "grouped",
        {"x": _X, "w": W((6, 2, 3, 3), "z"), "z": _Z},
        {"group": 2},
        "x01 w01 y01",
        {"x23": _WHOLE},
        skip={"reference": "it multiplies uint8 in uint8"},
    ),
]

_PRODUCTS = [
    OpCase(
        "QLinearMatMul",
        "",
        {"a": X((2, 3, 4), "z"), "s": _S, "z": _Z, "b": W((4, 6), "z"), "v": _S, "u": _Z}
        | {"t": K(30.0, "float32"), "c": _Z},
        {},
        "a012 b01 y012",
    ),
    OpCase(
        "QLinearMatMul",
        "per-column",
        {"a": X((3, 4), "z"), "s": _S, "z": _Z, "b": W((4, 6), "q"), "v": W((6,), "s")}
        | {"u": W((6,), "q"), "t": K(30.0, "float32"), "c": _Z},
        {},
        "a01 b01 v0 u0 y01",
    ),
    OpCase(
        "MatMulInteger",
        "per-column",
        {"a": X((2, 3, 4), "z"), "b": W((4, 6), "z"), "z": _Z, "u": W((6,), "z")},
        {},
        "a012 b01 u0 y012",
    ),
    _ms(
        "MatMulIntegerToFloat",
        "",
        {"a": X((3, 4), "z"), "b": W((4, 6), "q"), "s": _S, "v": W((6,), "s"), "z": _Z}
        | {"u": W((6,), "q"), "c": W((6,))},
        {},
        "a01 b01 v0 u0 c0 y01",
        dtype="float32",
    ),
    _ms(
        "DynamicQuantizeMatMul",
        "",
        {"a": X((3, 4)), "b": W((4, 6), "q"), "v": W((6,), "s"), "u": W((6,), "q"), "c": W((6,))},
        {},
        "a01 b01 v0 u0 c0 y01",
        dtype="float32",
    ),
    _ms(
        "QGemm",
        "transposed",
        {"a": X((3, 4), "z"), "s": _S, "z": _Z, "b": W((6, 4), "q"), "v": W((6,), "s")}
        | {"u": W((6,), "0"), "c": W((6,), "I"), "t": K(9.0, "float32"), "d": _Z},
        {"transB": 1},
        "a01 b01 v0 u0 c0 y01",
    ),
    _ms(
        "QGemm",
        "to-float",
        {"a": X((3, 4), "z"), "s": _S, "z": _Z, "b": W((4, 6), "q"), "v": _T, "u": _U},
        {},
        "a01 b01 y01",
        dtype="float32",
    ),
]

_A = {"a": X((2, 4, 3), "z"), "s": _S, "z": _Z}
_FOUR = {"x": X((2, 4, 5, 5), "z"), "s": _S, "z": _Z, "t": _S, "u": _Z}
_OTHERS = [
    *(
        _ms(
            op,
            "channels",
            {**_A, "b": W((4, 1), "z"), "v": _S, "u": _Z, "t": K(0.1, "float32"), "c": _Z},
            {},
            "a012 b0 y012",
        )
        for op in ("QLinearAdd", "QLinearMul")
    ),
    *(
        _ms(op, "", {**_A, "t": _S, "c": _Z}, {}, "a012 y012")
        for op in ("QLinearSigmoid", "QLinearLeakyRelu")
    ),
    _ms(
        "QLinearWhere",
        "",
        {"m": X((4, 1), "b"), **_A, "b": X((2, 4, 3), "z"), "v": _S, "u": _Z, "t": _S, "c": _Z},
        {},
        "m0 a012 b012 y012",
    ),
    _ms(
        "QLinearSoftmax",
        "",
        {**_A, "t": K(1 / 256, "float32"), "c": K(0, "uint8")},
        {"axis": -1, "opset": 13},
        "a01 y01",
        {"a2 y2": "over this axis"},
    ),
    _ms(
        "QLinearAveragePool",
        "",
        _FOUR,
        {"kernel_shape": [3, 3]},
        "x01 y01",
        {"x23": _WHOLE},
    ),
    _ms("QLinearGlobalAveragePool", "", _FOUR, {}, "x01 y01", {"x23": _WHOLE}),
    _ms(
        "QLinearGlobalAveragePool",
        "channels-last",
        _FOUR,
        {"channels_last": 1},
        "",
        {"x0123": _WHOLE},
    ),
    _ms(
        "QLinearConcat",
        "",
        {"t": _S, "c": _Z, **_A, "b": X((2, 5, 3), "z"), "v": _T, "u": _Z},
        {"axis": 1},
        "a012 b012 y012",
    ),
    _ms(
        "DynamicQuantizeLSTM",
        "",
        {"x": X((3, 2, 4)), "w": W((1, 4, 20), "q"), "r": W((1, 5, 20), "q"), "b": W((1, 40))}
        | {"l": None, "h": None, "c": None, "p": None}
        | {"s": W((1,), "s"), "z": K([0], "int8"), "t": W((1,), "s"), "u": K([0], "int8")},
        {"hidden_size": 5},
        "x2 w12 r12 b1 y3",
        {"x1 y2": _WHOLE},
        dtype="float32",
        rounding=0.02,  # it scales its states by their range, removed units included
    ),
]

_BLOCKED = [
    _ms(
        "MatMulNBits",
        "bytes-of-two-zeros",
        {"a": X((2, 3, 64)), "b": W((6, 4, 8), "B"), "s": W((24,), "s"), "z": W((12,), "B")},
        {"K": 64, "N": 6, "bits": 4, "block_size": 16},
        "a012 b01 s0 z0 y012",
        {"b2": _WHOLE},
        dtype="float32",
    ),
    _ms(
        "MatMulNBits",
        "symmetric-table",
        {"a": X((3, 48)), "b": W((6, 3, 16), "B"), "s": W((6, 3), "s")},
        {"K": 48, "N": 6, "bits": 8, "block_size": 16},
        "a01 b01 s01 y01",
        {"b2": _WHOLE},
        dtype="float32",
    ),
    _ms(
        "MatMulNBits",
        "one-block",
        {"a": X((3, 16)), "b": W((6, 1, 8), "B"), "s": W((6,), "s")},
        {"K": 16, "N": 6, "bits": 4, "block_size": 16},
        "a0 b0 s0 y01",
        {"a1": "in one block"},
        dtype="float32",
    ),
    _ms(
        "GatherBlockQuantized",
        "",
        {"d": W((10, 32), "B"), "i": X((2, 3), "i"), "s": W((10, 4), "s")},
        {"gather_axis": 0, "quantize_axis": 1, "block_size": 16, "bits": 4},
        "d1 i01 s1 y012",
        {"d0": "chooses among these rows"},
        dtype="float32",
    ),
]

CASES = [*_STEPS, *_CONVOLUTIONS, *_PRODUCTS, *_OTHERS, *_BLOCKED]
