"""Rows of the law for operators whose older opsets say the same in other ways."""

from tests.coupling.opcase import K, OpCase, W, X

_PLACES = "cannot be cut along this axis"
_BN = {"s": W((4,)), "b": W((4,)), "m": W((4,)), "v": W((4,), "+")}
_NO_OLD = {"reference": "onnx.reference has only newer versions"}

_REDUCTIONS = [
    OpCase(
        op,
        f"opset-{opset}",
        {"x": X((2, 4, 3), kind)},
        {"axes": [1], "keepdims": 0},
        cut,
        why,
        opset=opset,
    )
    for op, kind, cut, why, opsets in (
        ("ReduceL2", "f", "x012 y01", {}, (11, 13)),
        ("ReduceMax", "-", "x02 y01", {"x1": "looks at all"}, (11, 13)),
        ("ReduceLogSumExp", "f", "x02 y01", {"x1": "looks at all"}, (11, 13)),
        ("ReduceSumSquare", "f", "x012 y01", {}, (11, 13)),
    )
    for opset in opsets
]

_SHAPES = [
    OpCase("Squeeze", "opset-13", {"x": X((2, 4, 1)), "a": K([-1])}, {}, "x01 y01", opset=13),
    OpCase("Unsqueeze", "opset-13", {"x": X((2, 4)), "a": K([0])}, {}, "x01 y12", opset=13),
    OpCase(
        "Split",
        "opset-9-equal",
        {"x": X((2, 6))},
        {"axis": 1},
        "x01 y01 z01",
        outputs="yz",
        opset=9,
    ),
    OpCase(
        "Split",
        "opset-13-sizes",
        {"x": X((2, 6)), "s": K([4, 2])},
        {"axis": 1},
        "x01 y01 z01",
        outputs="yz",
        opset=13,
    ),
    OpCase(
        "Slice",
        "opset-10",
        {"x": X((2, 7)), "b": K([1]), "e": K([5]), "a": K([1])},
        {},
        "x01 y01",
        opset=10,
        skip=_NO_OLD,
    ),
    OpCase(
        "Pad",
        "opset-11",
        {"x": X((2, 4)), "p": K([0, 1, 0, 2]), "v": K(0.5, "float32")},
        {},
        "x01 y01",
        opset=11,
    ),
    OpCase(
        "Reshape",
        "opset-14-allowzero",
        {"x": X((2, 12)), "s": K([2, 3, 4])},
        {"allowzero": 1},
        "x01 y012",
        opset=14,
    ),
]

_REGULARIZERS = [
    OpCase("Dropout", "opset-9", {"x": X((2, 4))}, {"ratio": 0.3}, "x01 y01", opset=9),
    OpCase(
        "Dropout",
        "opset-12",
        {"x": X((2, 4)), "r": K(0.3, "float32"), "t": K(False, "bool")},
        {},
        "x01 y01",
        opset=12,
    ),
    OpCase(
        "Clip",
        "opset-11",
        {"x": X((2, 4)), "l": None, "h": K(0.5, "float32")},
        {},
        "x01 y01",
        opset=11,
    ),
    *(
        OpCase(
            "BatchNormalization",
            f"opset-{opset}",
            {"x": X((2, 4, 3)), **_BN},
            {"epsilon": 1e-3, "momentum": 0.8},
            "x012 s0 b0 m0 v0 y012",
            opset=opset,
            skip=skip,
        )
        for opset, skip in (
            (9, {"reference": "it trains wherever it is given a momentum"}),
            (14, {}),
        )
    ),
]

_CHOICES = [
    OpCase(
        "TopK",
        "opset-9",
        {"x": X((2, 6, 3))},
        {"axis": 1, "k": 2},
        "x02 y02 i02",
        {"x1 y1": "TopK runs along"},
        outputs="yi",
        opset=9,
    ),
    OpCase(
        "TopK",
        "opset-10",
        {"x": X((2, 6, 3)), "k": K([2])},
        {"axis": -2},
        "x02 y02 i02",
        {"x1 y1": "TopK runs along"},
        outputs="yi",
        opset=10,
    ),
    OpCase(
        "Hardmax",
        "opset-11",
        {"x": X((2, 4, 3))},
        {"axis": 2},
        "x01 y01",
        {"x2 y2": "Hardmax over"},
        opset=11,
    ),
    OpCase(
        "ArgMax",
        "opset-11",
        {"x": X((2, 4, 3))},
        {"axis": 1},
        "x02 y02",
        {"x1": "looks at all"},
        opset=11,
    ),
]

_SAMPLING = [
    *(
        OpCase(
            "Resize",
            f"opset-{opset}",
            {"x": X((2, 4, 3, 3)), "r": blank, "s": K([1, 1, 2, 2], "float32")},
            {"mode": "nearest"},
            "x01 y01",
            {"x23": "Resize over this axis"},
            opset=opset,
        )
        for opset, blank in ((11, K([], "float32")), (13, None))
    ),
    OpCase(
        "Resize",
        "opset-11-sizes",
        {"x": X((2, 4, 3, 3)), "r": K([], "float32"), "s": K([], "float32"), "n": K([2, 4, 5, 6])},
        {"mode": "linear"},
        "x01 y01",
        {"x23": "Resize over this axis"},
        opset=11,
    ),
    OpCase(
        "GridSample",
        "opset-20",
        {"x": X((2, 4, 5, 5)), "g": X((2, 3, 3, 2), "u")},
        {"mode": "linear"},
        "x01 g0 y01",
        {"x23 g123 y23": _PLACES},
        opset=20,
    ),
    OpCase(
        "RoiAlign",
        "opset-10",
        {"x": X((2, 4, 8, 8)), "r": W((3, 4), "g"), "b": W((3,), "1")},
        {"output_height": 2, "output_width": 2},
        "x1 r0 b0 y01",
        {"x23 y23": _PLACES},
        opset=10,
        skip=_NO_OLD,
    ),
]

CASES = [*_REDUCTIONS, *_SHAPES, *_REGULARIZERS, *_CHOICES, *_SAMPLING]
