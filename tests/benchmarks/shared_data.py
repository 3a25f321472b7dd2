"""Loaders for real networks and inputs that lie beside the repository, in ``../shared``."""

import csv
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
Inputs = NDArray[np.float32]
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Network:
    """A network, inputs to calibrate on, and others (labelled where possible) to score."""

    path: Path
    calibration: Callable[[], Inputs]
    score: Callable[[], tuple[Inputs, NDArray[np.int64] | None]]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def present(self) -> bool:
        return self.path.exists()


def _cifar(key: str) -> Inputs:
    images = np.load(SHARED / "data" / "cifar10.npz")[key].astype(np.float32) / 255.0
    return ((images - _MEAN) / _STD).transpose(0, 3, 1, 2).copy()


def _cifar_labels() -> NDArray[np.int64]:
    return np.load(SHARED / "data" / "cifar10.npz")["score_labels"]


def _mnist(key: str) -> Inputs:
    images = np.load(SHARED / "data" / "mnist.npz")[key]
    return images.reshape(-1, 1, 28, 28).astype(np.float32) / 255.0


def _mnist_labels() -> NDArray[np.int64]:
    return np.load(SHARED / "data" / "mnist.npz")["score_labels"]


def _faces(part: slice) -> Inputs:
    images = np.load(SHARED / "data" / "faces.npz")["images"][part]
    return (images.astype(np.float32) - 127.0) / 128.0


def _photos(paths: list[Path]) -> Inputs:
    from PIL import Image

    images = [np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths]
    return np.stack(images).transpose(0, 3, 1, 2) / 127.5 - 1.0


def _imagenet_calibration() -> Inputs:
    return _photos(sorted((SHARED / "data" / "imagenet-sample" / "calibration").glob("*.jpg")))


def _imagenet_score() -> tuple[Inputs, NDArray[np.int64]]:
    folder = SHARED / "data" / "imagenet-sample"
    with (folder / "score_labels.csv").open() as file:
        rows = [row for row in csv.reader(file) if row[-1].strip().isdigit()]
    names = [row[0] if row[0].endswith(".jpg") else f"{row[0]}.jpg" for row in rows]
    labels = np.array([int(row[-1]) for row in rows])
    return _photos([folder / "score" / name for name in names]), labels


def named(names: Iterable[str], only: str) -> list[str]:
    """Return the name that was asked for, or all that hold it."""
    every = list(names)
    return [only] if only in every else [name for name in every if only in name]


def shared_networks() -> list[Network]:
    """Return the networks of ``../shared``; those that are absent say so by ``present``."""
    models = SHARED / "models"
    cifar = [
        Network(
            models / f"resnet20_cifar10_{kind}.onnx",
            lambda: _cifar("calibration"),
            lambda: (_cifar("score"), _cifar_labels()),
        )
        for kind in ("ts", "tsbn", "dynamo")
    ]
    mnist = [
        Network(
            models / f"mnist_{kind}_ts.onnx",
            lambda: _mnist("calibration"),
            lambda: (_mnist("score"), _mnist_labels()),
        )
        for kind in ("vit", "lstm")
    ]
    faces = Network(
        models / "ultraface_slim-320.onnx",
        lambda: _faces(slice(0, 8)),
        lambda: (_faces(slice(8, 16)), None),
    )
    mobile = Network(models / "mobilenetv2_tf2_ts.onnx", _imagenet_calibration, _imagenet_score)
    return [*cifar, *mnist, faces, mobile]


def own_networks() -> list[Network]:
    """Return the digits networks of the repository."""
    data = {
        "digits_keras": "digits_images_nhwc",
        "digits_mlp": "digits_features",
        "digits_lstm": "digits_rows",
        "digits_gru": "digits_rows",
    }
    folder = ROOT / "models"

    def network(path: Path) -> Network:
        base = folder / data.get(path.stem, "digits_images")

        def score() -> tuple[Inputs, NDArray[np.int64]]:
            held = np.load(f"{base}_heldout.npz")
            return held["input"], held["labels"]

        return Network(path, lambda: np.load(f"{base}.npz")["input"], score)

    return [network(path) for path in sorted(folder.glob("digits_*.onnx"))]
