"""Rows of the law for reductions, pooling, resampling, and for operators without a rule."""

from tests.coupling.opcase import K, OpCase, X

_PLACES = "cannot be cut along this axis"
_ALL = "looks at all of this axis"

_SUMS = [
    OpCase(op, "", {"x": X((2, 4, 3), kind), "a": K([1])}, {}, "x012 y02")
    for op, kind in (
        ("ReduceL1", "f"),
        ("ReduceL2", "f"),
        ("ReduceMean", "f"),
        ("ReduceSumSquare", "f"),
        ("ReduceLogSum", "+"),
    )
]
_LOOKS_AT_ALL = [
    OpCase(op, "", {"x": X((2, 4, 3), kind), "a": K([1])}, {}, "x02 y02", {"x1": f"{op} {_ALL}"})
    for op, kind in (
        ("ReduceLogSumExp", "f"),
        ("ReduceMax", "-"),
        ("ReduceMin", "+"),
        ("ReduceProd", "f"),
    )
]
_VARIANTS = [
    OpCase("ReduceSum", "", {"x": X((2, 4, 3)), "a": K([1])}, {}, "x012 y02"),
    OpCase(
        "ReduceSum",
        "drops-axes",
        {"x": X((2, 4, 3, 5)), "a": K([1, -1])},
        {"keepdims": 0},
        "x0123 y01",
    ),
    OpCase("ReduceSum", "all", {"x": X((2, 4))}, {}, "x01"),
    OpCase("ReduceSum", "no-op", {"x": X((2, 4))}, {"noop_with_empty_axes": 1}, "x01 y01"),
    OpCase("ReduceSum", "opset-11", {"x": X((2, 4))}, {"axes": [1]}, "x01 y0", opset=11),
    OpCase(
        "ReduceMean",
        "two-axes",
        {"x": X((2, 4, 3, 3)), "a": K([2, 3])},
        {"keepdims": 0},
        "x0123 y01",
    ),
    OpCase("ReduceMean", "all", {"x": X((2, 4))}, {}, "x01"),
    OpCase(
        "ReduceMean",
        "opset-13",
        {"x": X((2, 4, 3))},
        {"axes": [-1], "keepdims": 1},
        "x012 y01",
        opset=13,
    ),
    OpCase(
        "ReduceMax",
        "places",
        {"x": X((2, 4, 3, 3)), "a": K([2, 3])},
        {"keepdims": 0},
        "x01 y01",
        {"x23": _ALL},
    ),
    OpCase("ArgMax", "", {"x": X((2, 4, 3))}, {"axis": 1}, "x02 y02", {"x1": f"ArgMax {_ALL}"}),
    OpCase(
        "ArgMin",
        "",
        {"x": X((2, 4, 3))},
        {"axis": -1, "keepdims": 0},
        "x01 y01",
        {"x2": f"ArgMin {_ALL}"},
    ),
    OpCase(
        "CumSum",
        "",
        {"x": X((2, 4, 3)), "a": K(1)},
        {},
        "x02 y02",
        {"x1 y1": "CumSum runs along"},
    ),
    OpCase(
        "CumSum",
        "axis-at-run-time",
        {"x": X((2, 4)), "a": X((), "1")},
        {},
        "",
        {"x01 y01": "CumSum runs along"},
    ),
    OpCase(
        "ReduceSum",
        "axes-at-run-time",
        {"x": X((2, 4)), "a": X((1,), "1")},
        {},
        "",
        {"x01": _PLACES},
    ),
    OpCase(
        "TopK",
        "",
        {"x": X((2, 6, 3)), "k": K([2])},
        {"axis": 1},
        "x02 y02 i02",
        {"x1 y1": "TopK runs along"},
        outputs="yi",
    ),
    OpCase(
        "Trilu",
        "",
        {"x": X((2, 3, 4, 4))},
        {"upper": 0},
        "x01 y01",
        {"x23 y23": "Trilu runs along"},
    ),
]

_POOLING = [
    *(
        OpCase(op, "", {"x": X((2, 4, 6, 6), kind)}, attributes, "x01 y01", {"x23": _PLACES})
        for op, kind, attributes in (
            ("AveragePool", "f", {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("GlobalMaxPool", "-", {}),
            ("LpPool", "f", {"kernel_shape": [2, 2], "p": 2}),
            ("MaxPool", "-", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        )
    ),
    OpCase("GlobalAveragePool", "", {"x": X((2, 4, 6, 5))}, {}, "x0123 y01"),
    OpCase("GlobalAveragePool", "rows", {"x": X((2, 4, 6))}, {}, "x012 y01"),
    OpCase(
        "GlobalLpPool",
        "",
        {"x": X((2, 4, 3, 3))},
        {},
        "x01 y01",
        {"x23": _PLACES},
        skip={"reference": "onnx.reference has no GlobalLpPool"},
    ),
    OpCase(
        "MaxPool",
        "with-indices",
        {"x": X((2, 4, 6, 6))},
        {"kernel_shape": [2, 2]},
        "",
        {"x01 y01 i01": _PLACES},
        outputs="yi",
    ),
    *(
        OpCase(
            op,
            "one-place-wide",
            {"x": X((2, 4, 6, 5))},
            {"kernel_shape": [2, 1], "strides": [2, 1]},
            "x013 y013",
            {"x2 y2": _PLACES},
        )
        for op in ("AveragePool", "LpPool", "MaxPool")
    ),
    OpCase(
        "MaxPool",
        "one-place-wide-strided",
        {"x": X((2, 4, 6, 5))},
        {"kernel_shape": [1, 1], "strides": [2, 2]},
        "x01 y01",
        {"x23 y23": _PLACES},
    ),
    OpCase(
        "AveragePool",
        "1d",
        {"x": X((2, 4, 6))},
        {"kernel_shape": [3], "pads": [1, 1], "count_include_pad": 1},
        "x01 y01",
        {"x2 y2": _PLACES},
    ),
    OpCase(
        "GridSample",
        "",
        {"x": X((2, 4, 5, 5)), "g": X((2, 3, 3, 2), "u")},
        {},
        "x01 g0 y01",
        {"x23 g123 y23": _PLACES},
        opset=16,
    ),
    OpCase(
        "MaxRoiPool",
        "",
        {
            "x": X((2, 4, 8, 8)),
            "r": K([[0, 0, 0, 4, 4], [1, 2, 2, 6, 6], [0, 1, 0, 6, 7]], "float32"),
        },
        {"pooled_shape": [2, 2]},
        "x1 y1",
        {"x023 r01 y023": _PLACES},
        skip={"reference": "onnx.reference has no MaxRoiPool"},
    ),
]

_BLANK = K([], "float32")
_RESIZES = [
    OpCase(
        "Resize",
        "scales",
        {"x": X((2, 4, 3, 3)), "r": None, "s": K([1, 1, 2, 2], "float32")},
        {"mode": "nearest"},
        "x01 y01",
        {"x23": "Resize over this axis"},
    ),
    OpCase(
        "Resize",
        "sizes",
        {"x": X((2, 4, 3, 3)), "r": None, "s": None, "n": K([2, 4, 5, 6])},
        {"mode": "linear"},
        "x01 y01",
        {"x23": "Resize over this axis"},
    ),
    OpCase(
        "Resize",
        "sizes-of-some-axes",
        {"x": X((2, 4, 3, 3)), "r": None, "s": None, "n": K([5, 6])},
        {"mode": "nearest", "axes": [2, 3]},
        "x01 y01",
    ),
    OpCase(
        "Resize",
        "sizes-of-the-channels-too",
        {"x": X((2, 4, 3, 3)), "r": None, "s": None, "n": K([4, 5, 6])},
        {"mode": "nearest", "axes": [1, 2, 3]},
        "x01 y01",
    ),
    OpCase(
        "Resize",
        "one-place-axis-only",
        {"x": X((2, 4, 3, 3)), "r": _BLANK, "s": K([1, 1, 1, 2], "float32")},
        {"mode": "nearest"},
        "x012 y012",
    ),
    OpCase(
        "Resize",
        "scale-that-rounds-to-the-same-size",
        {"x": X((2, 4, 5, 3)), "r": None, "s": K([1, 1, 1.15, 2], "float32")},
        {"mode": "linear"},
        "x01 y01",
        {"x2 y2": "Resize over this axis"},
    ),
    OpCase(
        "Resize",
        "opset-10",
        {"x": X((2, 4, 3, 3)), "s": K([1, 1, 2, 2], "float32")},
        {"mode": "nearest"},
        "x01 y01",
        {"x23": "Resize over this axis"},
        opset=10,
        skip={"reference": "onnx.reference has Resize from opset 11 only"},
    ),
    OpCase(
        "Upsample",
        "",
        {"x": X((2, 4, 3, 3)), "s": K([1, 1, 2, 2], "float32")},
        {"mode": "nearest"},
        "x01 y01",
        {"x23": "Upsample over this axis"},
        opset=9,
        skip={"reference": "onnx.reference has no Upsample"},
    ),
]

CASES = [*_SUMS, *_LOOKS_AT_ALL, *_VARIANTS, *_POOLING, *_RESIZES]
