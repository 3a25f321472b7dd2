"""Rows of the law for ai.onnx.ml."""

from tests.coupling.opcase import K, OpCase, X

_PLACES = "cannot be cut along this axis"


def _case(op, note, inputs, attributes, cut, why=(), outputs="y", skip=()):
    return OpCase(
        op,
        note,
        inputs,
        attributes,
        cut,
        dict(why),
        outputs=outputs,
        domain="ai.onnx.ml",
        skip=dict(skip),
    )


_LINEAR = {"coefficients": [0.1 * n - 0.7 for n in range(15)]}
CASES = [
    _case("Binarizer", "", {"x": X((3, 4))}, {"threshold": 0.1}, "x01 y01"),
    _case(
        "CategoryMapper",
        "",
        {"x": X((3, 4), "t")},
        {"cats_strings": ["a", "b"], "cats_int64s": [5, 7]},
        "x01 y01",
        skip={"reference": "onnx.reference has no CategoryMapper"},
    ),
    _case(
        "LabelEncoder",
        "",
        {"x": X((3, 4), "i")},
        {"keys_int64s": [1, 2, 3], "values_floats": [0.5, 0.25, 2.0]},
        "x01 y01",
    ),
    _case(
        "Imputer",
        "",
        {"x": X((3, 4), "n")},
        {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")},
        "x01 y01",
    ),
    _case(
        "Scaler",
        "",
        {"x": X((3, 4))},
        {"offset": [0.1, 0.2, 0.3, 0.4], "scale": [1.0, 2.0, 3.0, 4.0]},
        "x01 y01",
    ),
    _case("Normalizer", "", {"x": X((3, 4))}, {"norm": "L2"}, "x01 y01"),
    _case("Normalizer", "L1", {"x": X((3, 4))}, {"norm": "L1"}, "x01 y01"),
    _case("Normalizer", "max", {"x": X((3, 4))}, {"norm": "MAX"}, "x0 y0", {"x1 y1": "maximum"}),
    _case(
        "LinearRegressor",
        "",
        {"x": X((4, 5))},
        {**_LINEAR, "targets": 3, "intercepts": [0.1, 0.2, 0.3]},
        "x01 y0",
        {"y1": _PLACES},
    ),
    _case(
        "LinearClassifier",
        "",
        {"x": X((4, 5))},
        {
            **_LINEAR,
            "classlabels_ints": [0, 1, 2],
            "intercepts": [0.1, 0.2, 0.3],
            "post_transform": "SOFTMAX",
        },
        "x01 y0 z0",
        {"z1": _PLACES},
        outputs="yz",
    ),
    _case(
        "OneHotEncoder",
        "",
        {"x": X((3, 4), "i")},
        {"cats_int64s": [1, 2, 3, 4, 5]},
        "x01 y01",
        {"y2": _PLACES},
    ),
    _case(
        "FeatureVectorizer",
        "",
        {"x": X((3, 4)), "z": X((3, 2))},
        {"inputdimensions": [4, 2]},
        "x01 z01 y01",
    ),
    _case("ArrayFeatureExtractor", "", {"x": X((3, 5)), "i": K([3, 0, 1])}, {}, "x01 y01"),
    _case(
        "ArrayFeatureExtractor",
        "at-run-time",
        {"x": X((3, 6)), "i": X((2,), "i")},
        {},
        "x0 y0",
        {"x1": "at run time"},
    ),
]
