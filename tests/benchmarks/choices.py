"""What ``--method auto`` chooses, on a model for each choice that it can make, and why.

    python tests/benchmarks/choices.py

Prints the model, the options, how many groups each method measured, and the reasons as the commands
print them. The networks of shapes have random weights and made-up inputs.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
from gradient import mobilenet2

from onnxprune.analysis import analyse
from onnxprune.data.splits import split_samples
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.sensitivity.methods import measure_groups
from tests.nets import MODELS


def cases(folder: Path) -> Iterator[tuple[str, Path, Options]]:
    """A model and options for each choice."""
    large = folder / "mobilenet2.onnx"
    onnx.save(mobilenet2(), large)
    digits = Options(macs=0.5, samples=256)
    rows = replace(digits, data=MODELS / "digits_rows.npz")
    images = replace(digits, data=MODELS / "digits_images.npz")
    plain = {"recover": False}
    yield "digits_resnet", MODELS / "digits_resnet.onnx", images
    yield "digits_lstm", MODELS / "digits_lstm.onnx", rows
    yield "digits_resnet --no-recover", MODELS / "digits_resnet.onnx", replace(images, **plain)
    yield "mobilenet2 --no-recover", large, Options(macs=0.5, samples=128, time_limit=20.0, **plain)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, path, options in cases(Path(folder)):
            found = analyse(path, options, Silent())
            splits = split_samples(len(found.samples), 0)
            measured = measure_groups(found, found.coupling.groups, splits, options, Silent())
            used = Counter(group.method for group in measured.groups.values())
            chosen = ", ".join(f"{method} ({count})" for method, count in used.items())
            print(f"{name}, {options.time_limit:g} s: {chosen}", flush=True)
            for reason in measured.reasons:
                print(f"    {reason}")


if __name__ == "__main__":
    main()
