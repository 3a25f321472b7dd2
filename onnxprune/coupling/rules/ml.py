"""Operators of ai.onnx.ml that treat features one by one, or sum them up."""

from collections.abc import Iterator

import numpy as np

from onnxprune.coupling.relations import CONSTANT, Contract, Freeze, Relation, Tie
from onnxprune.coupling.rules._registry import ML, Op, rule


@rule("Imputer", "Scaler", domain=ML)
def per_feature(op: Op) -> Iterator[Relation]:
    """Attributes list one number per feature, or one for all."""
    if op.x(0).rank <= 2:
        yield from op.same(op.x(0), op.y())


@rule("Normalizer", domain=ML)
def normalizer(op: Op) -> Iterator[Relation]:
    """The norm of a row is a sum, but for the maximum."""
    x, y = op.x(0), op.y()
    yield from op.same(x, y)
    if op.attributes.get("norm", b"MAX") == b"MAX":
        yield Freeze(x.axis(-1), "Normalizer takes the maximum of all features")
    else:
        yield Contract(x.axis(-1), 0)


@rule("LinearClassifier", "LinearRegressor", domain=ML)
def linear_model(op: Op) -> Iterator[Relation]:
    """Features are summed up with coefficients from an attribute."""
    x = op.x(0)
    if x.rank != 2:
        return
    for y in op.outputs:
        if y is not None:
            yield from op.tie(x, 0, y, 0)
    yield Tie(x.axis(1), x.axis(1))
    yield Contract(x.axis(1), 0)


@rule("OneHotEncoder", domain=ML)
def one_hot_encoder(op: Op) -> Iterator[Relation]:
    """A new last axis for the categories."""
    for axis in op.x(0).axes():
        yield from op.tie(op.x(0), axis, op.y(), axis)


@rule("FeatureVectorizer", domain=ML)
def feature_vectorizer(op: Op) -> Iterator[Relation]:
    """Rows of features one after another."""
    y, start = op.y(), 0
    for x in op.present():
        if x.rank != 2:
            return
        yield from op.tie(x, 0, y, 0)
        place = np.arange(x.shape[1])
        yield Tie(x.axis(1), y.axis(1), place, start + place)
        start += x.shape[1]


@rule("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(op: Op) -> Iterator[Relation]:
    """Takes features by number, from the last axis."""
    x, at, y = op.x(0), op.x(1), op.y()
    if not at.constant or at.data is None:
        yield Freeze(
            x.axis(-1),
            "ArrayFeatureExtractor chooses among these positions at run time",
            unlock=CONSTANT,
        )
    else:
        place = np.arange(at.data.size)
        yield Tie(y.axis(-1), x.axis(-1), place, at.data.ravel().astype(np.int64))
    for axis in range(x.rank - 1):
        yield from op.tie(x, axis, y, axis)
