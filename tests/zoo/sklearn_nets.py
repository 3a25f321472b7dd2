"""scikit-learn pipelines by skl2onnx; needs scikit-learn and skl2onnx.

python tests/zoo/sklearn_nets.py [FOLDER] [--only NAME]
"""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from saving import Exported, Job, normal, run
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MinMaxScaler, StandardScaler

FEATURES = 20


def _mlp(*widths: int, activation: str = "relu") -> MLPClassifier:
    return MLPClassifier(widths, activation=activation, max_iter=8, random_state=0)


# Builder, options of the conversion. ZipMap, the default, gives scores as a sequence of maps.
NETS: dict[str, tuple[Callable[[], BaseEstimator], bool]] = {
    "s_mlp_zipmap": (partial(_mlp, 32, 24), True),
    "s_mlp": (partial(_mlp, 32, 24, activation="tanh"), False),
    "s_mlp_logistic": (partial(_mlp, 40, activation="logistic"), False),
    "s_regressor": (
        lambda: MLPRegressor(hidden_layer_sizes=(32, 16), max_iter=8, random_state=0),
        False,
    ),
    "s_pipeline": (lambda: make_pipeline(StandardScaler(), PCA(12), _mlp(32, 24)), True),
    "s_union": (
        lambda: make_pipeline(make_union(StandardScaler(), MinMaxScaler()), _mlp(24, 16)),
        False,
    ),
    "s_linear": (lambda: make_pipeline(StandardScaler(), LogisticRegression()), True),
    "s_forest": (lambda: RandomForestClassifier(4, max_depth=3, random_state=0), True),
}


def export(name: str, build: Callable[[], BaseEstimator], zipmap: bool) -> Exported:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((64, FEATURES)).astype(np.float32)
    model = build()
    regression = isinstance(model, MLPRegressor)
    wanted = rows[:, 0] if regression else rng.integers(0, 3, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the few steps do not converge, and need not
        model.fit(rows, wanted)
    data = normal(name, 2, FEATURES)
    proto = convert_sklearn(
        model,
        initial_types=[("x", FloatTensorType([None, FEATURES]))],
        options=None if regression or zipmap else {"zipmap": False},
        target_opset=17,
    )
    expected = [model.predict(data).reshape(-1, 1)] if regression else [model.predict(data)]
    return Exported(proto, {"x": data}, expected)


def every() -> Iterator[Job]:
    for name, (build, zipmap) in NETS.items():
        yield name, "sklearn", partial(export, name, build, zipmap)


if __name__ == "__main__":
    run(every(), __doc__)
