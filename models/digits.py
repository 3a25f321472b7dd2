"""scikit-learn's digits, split once and for all, in each layout that a network here reads."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 20
CALIBRATION = 400
HELD_OUT = 400

LAYOUTS: dict[str, tuple[int, ...]] = {
    "images": (1, 8, 8),
    "images_nhwc": (8, 8, 1),
    "features": (64,),
    "rows": (8, 8),
}
"""Shape of one sample by the name of the layout; all four hold the same numbers in one order."""


@dataclass(frozen=True, slots=True)
class Part:
    """Samples of one split.

    Parameters
    ----------
    pixels : float32 array of shape (samples, 64)
        Ink of each pixel, 0-1, row by row.
    labels : int64 array of shape (samples,)
        The digits, 0-9.
    """

    pixels: NDArray[np.float32]
    labels: NDArray[np.int64]

    def laid_out(self, layout: str) -> NDArray[np.float32]:
        """Return the pixels of shape (samples, *LAYOUTS[layout])."""
        return self.pixels.reshape(-1, *LAYOUTS[layout])


@dataclass(frozen=True, slots=True)
class Digits:
    """The three splits; no sample is in two of them, each digit is equally frequent in all."""

    train: Part
    calibration: Part
    held_out: Part


def load() -> Digits:
    """Split the 1,797 samples into 997 / 400 / 400 by a fixed seed."""
    data, target = load_digits(return_X_y=True)
    samples = np.arange(len(target))
    rest, held_out = train_test_split(
        samples, test_size=HELD_OUT, stratify=target, random_state=SEED
    )
    train, calibration = train_test_split(
        rest, test_size=CALIBRATION, stratify=target[rest], random_state=SEED
    )
    pixels, labels = (data / 16).astype(np.float32), target.astype(np.int64)
    parts = (Part(pixels[chosen], labels[chosen]) for chosen in (train, calibration, held_out))
    return Digits(*parts)


def write(digits: Digits, folder: Path) -> None:
    """Write two files per layout: inputs to calibrate with, labelled inputs to judge with."""
    for layout in LAYOUTS:
        np.savez_compressed(
            folder / f"digits_{layout}.npz", input=digits.calibration.laid_out(layout)
        )
        np.savez_compressed(
            folder / f"digits_{layout}_heldout.npz",
            input=digits.held_out.laid_out(layout),
            labels=digits.held_out.labels,
        )
