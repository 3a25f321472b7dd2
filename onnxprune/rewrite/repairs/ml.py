"""Attributes and numbers of ai.onnx.ml operators that list features."""

import numpy as np

from onnxprune.coupling.rules import ML
from onnxprune.rewrite.repairs._site import Site, repairs

__all__ = ["array_feature_extractor", "feature_vectorizer", "linear_model", "per_feature"]


@repairs("Imputer", "Scaler", domain=ML)
def per_feature(site: Site) -> None:
    """Lists of one number per feature lose theirs."""
    _cut_lists(site, ("imputed_value_floats", "imputed_value_int64s", "offset", "scale"))


@repairs("LinearClassifier", "LinearRegressor", domain=ML)
def linear_model(site: Site) -> None:
    """Coefficients lie target by target, feature by feature."""
    _cut_lists(site, ("coefficients",))


def _cut_lists(site: Site, names: tuple[str, ...]) -> None:
    x = site.node.inputs[0]
    axis = len(site.trace.shapes[x]) - 1
    keep = site.keep(x, axis)
    if keep is None:
        return
    for name in names:
        given = np.ravel(np.asarray(site.node.attributes.get(name, ())))
        if given.size >= keep.size:
            site.attributes[name] = given.reshape(-1, keep.size)[:, keep].ravel().tolist()


@repairs("FeatureVectorizer", domain=ML)
def feature_vectorizer(site: Site) -> None:
    """Features that stay, by input."""
    if "inputdimensions" in site.node.attributes:
        site.attributes["inputdimensions"] = [site.kept(x, 1) for x in site.node.inputs]


@repairs("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(site: Site) -> None:
    """Numbers of features are counted anew; features that go are no longer asked for."""
    x, y, at = site.node.inputs[0], site.node.outputs[0], site.parameter(1)
    mask = site.full(x, len(site.trace.shapes[x]) - 1)
    if at is None:
        return
    wanted = at.ravel()[site.full(y, len(site.trace.shapes[y]) - 1)]
    site.parameters[1] = (np.cumsum(mask) - 1)[wanted].astype(at.dtype).reshape(*at.shape[:-1], -1)
