"""Rows of the law for operators that are frozen whole: each row is a counter-example's model."""

from onnxprune.coupling.rules.frozen import FROZEN
from tests.coupling.opcase import K, OpCase, P, W, X

_ORT = {"reference": "onnx.reference has no operators of onnxruntime's own"}
_NO_REFERENCE = {"reference": "onnx.reference has not got it"}
_ML, _NCHWC = "ai.onnx.ml", "com.microsoft.nchwc"


def frozen_case(op, inputs, attributes=(), *, domain="", frozen="", note="frozen", skip=(), **more):
    """Every axis of ``frozen`` must be blamed on the operator, in the words of the table."""
    reason = FROZEN[domain, op].reason
    return OpCase(
        op,
        note,
        inputs,
        dict(attributes),
        "",
        {frozen: reason},
        domain=domain,
        skip=dict(skip),
        **more,
    )


_STANDARD = [
    frozen_case("Bernoulli", {"x": X((4, 6), "p")}, frozen="x01 y01"),
    frozen_case(
        "Multinomial", {"x": X((3, 6))}, {"sample_size": 5}, frozen="x01 y01", skip=_NO_REFERENCE
    ),
    frozen_case("RandomNormal", {}, {"shape": [3, 4]}, frozen="y01"),
    frozen_case("RandomUniform", {}, {"shape": [3, 4]}, frozen="y01"),
    frozen_case("RandomNormalLike", {"x": X((3, 4))}, frozen="x01 y01"),
    frozen_case("RandomUniformLike", {"x": X((3, 4))}, frozen="x01 y01"),
    frozen_case(
        "AffineGrid",
        {"x": X((2, 2, 3)), "s": K([2, 3, 4, 5])},
        frozen="x012 y0123",
        opset=20,
    ),
    *(
        frozen_case(op, {"n": P((), "5")}, frozen="y0")
        for op in ("BlackmanWindow", "HammingWindow", "HannWindow")
    ),
    frozen_case("EyeLike", {"x": X((4, 4))}, frozen="x01 y01"),
    frozen_case(
        "MelWeightMatrix",
        {
            "n": P((), "5"),
            "d": K(16),
            "r": K(8000),
            "l": K(0.0, "float32"),
            "u": K(4000.0, "float32"),
        },
        frozen="y01",
    ),
    frozen_case("Range", {"b": K(0), "e": P((), "5"), "s": K(1)}, frozen="y0"),
    frozen_case(
        "NonMaxSuppression",
        {"b": X((1, 6, 4), "g"), "s": X((1, 2, 6), "+"), "n": K([3])},
        frozen="b12 s12 y01",
        skip={"reference": "onnx.reference refuses a list of one number"},
    ),
    frozen_case("NonZero", {"x": X((3, 4))}, frozen="x01 y01"),
    frozen_case("Unique", {"x": X((3, 4), "i")}, frozen="x01"),
    frozen_case(
        "MaxUnpool",
        {"x": X((1, 2, 2, 2)), "i": K([[[[0, 3], [8, 10]], [[17, 19], [24, 31]]]])},
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        frozen="x123 y123",
    ),
    frozen_case(
        "StringNormalizer",
        {"x": X((4,), "t")},
        {"stopwords": ["a", "c"], "is_case_sensitive": 1},
        frozen="x0",
    ),
    frozen_case(
        "StringSplit",
        {"x": X((2, 4), "t")},
        {"delimiter": "b"},
        frozen="x01 y01 n01",
        opset=20,
        outputs="yn",
    ),
    frozen_case(
        "TfIdfVectorizer",
        {"x": X((2, 6), "i")},
        {
            "mode": "TF",
            "min_gram_length": 2,
            "max_gram_length": 2,
            "max_skip_count": 0,
            "ngram_counts": [0, 5],
            "ngram_indexes": list(range(9)),
            "pool_int64s": [1, 2, 3, 4, 5, 1, 2, 2, 3, 5, 4, 3, 3],
        },
        frozen="x01 y01",
    ),
]

_SVM = {
    "kernel_type": "RBF",
    "kernel_params": [0.3, 0.0, 3.0],
    "support_vectors": [0.1 * n - 0.5 for n in range(12)],
    "coefficients": [1.0, -0.7, 0.4],
}
_NODES = {
    "nodes_treeids": [0, 0, 0],
    "nodes_nodeids": [0, 1, 2],
    "nodes_featureids": [1, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.0, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0],
    "nodes_falsenodeids": [2, 0, 0],
    "nodes_hitrates": [1.0, 1.0, 1.0],
    "nodes_missing_value_tracks_true": [0, 0, 0],
}
_CLASSICAL = [
    frozen_case(
        "SVMRegressor",
        {"x": X((3, 4))},
        {**_SVM, "n_supports": 3, "rho": [0.2]},
        domain=_ML,
        frozen="x01 y0",
    ),
    frozen_case(
        "SVMClassifier",
        {"x": X((3, 4))},
        {
            **_SVM,
            "vectors_per_class": [2, 1],
            "rho": [0.2],
            "classlabels_ints": [0, 1],
        },
        domain=_ML,
        frozen="x01 y0 z01",
        outputs="yz",
    ),
    frozen_case(
        "TreeEnsembleRegressor",
        {"x": X((5, 4))},
        {
            **_NODES,
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 5.0],
            "n_targets": 1,
        },
        domain=_ML,
        frozen="x01 y0",
        version=3,
    ),
    frozen_case(
        "TreeEnsembleClassifier",
        {"x": X((5, 4))},
        {
            **_NODES,
            "class_treeids": [0, 0, 0],
            "class_nodeids": [1, 1, 2],
            "class_ids": [0, 1, 2],
            "class_weights": [1.0, 5.0, 3.0],
            "classlabels_int64s": [0, 1, 2],
        },
        domain=_ML,
        frozen="x01 y0 z01",
        outputs="yz",
        version=3,
    ),
    frozen_case(
        "TreeEnsemble",
        {"x": X((5, 4))},
        {
            "n_targets": 1,
            "tree_roots": [0],
            "nodes_featureids": [1],
            "nodes_modes": K([0], "uint8").tensor("nodes_modes"),
            "nodes_splits": K([0.0], "float32").tensor("nodes_splits"),
            "nodes_truenodeids": [0],
            "nodes_trueleafs": [1],
            "nodes_falsenodeids": [1],
            "nodes_falseleafs": [1],
            "leaf_targetids": [0, 0],
            "leaf_weights": K([1.0, 5.0], "float32").tensor("leaf_weights"),
        },
        domain=_ML,
        frozen="x01 y0",
    ),
]

_BLOCKED = [
    frozen_case(
        "Conv",
        {"x": X((1, 32, 5, 5)), "w": W((32, 32, 3, 3))},
        {"kernel_shape": [3, 3]},
        domain=_NCHWC,
        frozen="x123 w0123 y123",
        skip=_ORT,
    ),
    *(
        frozen_case(
            op, {"x": X((1, 32, 4, 4))}, attributes, domain=_NCHWC, frozen="x123 y1", skip=_ORT
        )
        for op, attributes in (
            ("AveragePool", {"kernel_shape": [2, 2]}),
            ("MaxPool", {"kernel_shape": [2, 2]}),
            ("GlobalAveragePool", {}),
            ("GlobalMaxPool", {}),
            ("ReorderOutput", {"channels": 30}),
            ("ReorderInput", {}),
            ("Upsample", {"scales": [1, 1, 2, 2]}),
        )
    ),
]

CASES = [*_STANDARD, *_CLASSICAL, *_BLOCKED]
