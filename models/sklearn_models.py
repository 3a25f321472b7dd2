"""The scikit-learn network: its own MLP, exported by skl2onnx."""

from pathlib import Path

import skl2onnx
from digits import LAYOUTS, SEED, Part
from skl2onnx.common.data_types import FloatTensorType
from sklearn.neural_network import MLPClassifier


def mlp(part: Part, folder: Path) -> None:
    """Train the MLP; its outputs are a label and, as there is no ZipMap, an array of scores."""
    classifier = MLPClassifier((128, 64), alpha=0.01, max_iter=300, random_state=SEED)
    classifier.fit(part.pixels, part.labels)
    model = skl2onnx.convert_sklearn(
        classifier,
        name="digits_mlp",
        initial_types=[("input", FloatTensorType([None, *LAYOUTS["features"]]))],
        options={"zipmap": False},
        target_opset=17,
    )
    (folder / "digits_mlp.onnx").write_bytes(model.SerializeToString(deterministic=True))
