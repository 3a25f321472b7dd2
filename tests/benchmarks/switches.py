"""What switching widths at the end of the search brings.

    python tests/benchmarks/switches.py [--only NAME] [--no-branches]

Prunes each network as `onnxprune run` does. Prints per network and ratio of MACs the relative
squared output error on the selecting samples, of the widths as allocated and as switched (refitted
both), what the search took in processor seconds, and the score on samples that nothing was chosen
on, without and with it.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import numpy as np
from scoring import score
from shared_data import Network, named, own_networks, shared_networks

from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.runtime.session import Session
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.search.switching import switched

ROWS = (
    ("digits_resnet", 0.5),
    ("digits_mobile", 0.5),
    ("digits_vit", 0.5),
    ("resnet20_cifar10_ts", 0.5),
    ("resnet20_cifar10_ts", 0.4),
    ("mnist_vit_ts", 0.5),
    ("mnist_lstm_ts", 0.5),
    ("ultraface_slim-320", 0.7),
)


@dataclass
class Spy:
    """Switches as the search does, and keeps what came of it."""

    target: Path
    network: Network
    said: list[str] = field(default_factory=list)

    def __call__(self, workshop: Workshop, candidate: Candidate) -> Candidate:
        before = workshop.finished(candidate)
        self.target.write_bytes(before.recovered.model.SerializeToString())
        alone = score(self.network, self.target)
        start = time.process_time()
        found = switched(workshop, candidate)
        spent = time.process_time() - start
        after = f"{found.error:.6f}" if found is not candidate else "stays"
        self.said.append(f"{candidate.error:.6f} {after:>8} {spent:5.0f} s  without: {alone}")
        return found


def row(network: Network, ratio: float, *, branches: bool) -> str:
    """Prune once."""
    with tempfile.TemporaryDirectory() as folder:
        data, target = Path(folder) / "inputs.npz", Path(folder) / "out.onnx"
        name = Session(load(network.path).path).inputs[0].name
        np.savez(data, **{name: network.calibration()})
        spy = Spy(Path(folder) / "before.onnx", network)
        with patch("onnxprune.search.search.switched", spy):
            run(network.path, target, Options(data=data, macs=ratio, branches=branches))
        return (
            f"{network.name:22} {ratio:.2f} {spy.said[-1]}\n{'':49}with: {score(network, target)}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--branches", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    present = {n.name: n for n in (*own_networks(), *shared_networks()) if n.present}
    wanted = named(present, given.only)
    print(f"{'network':22} MACs allocated switched  took")
    for name, ratio in ROWS:
        if name in wanted:
            print(row(present[name], ratio, branches=given.branches), flush=True)


if __name__ == "__main__":
    main()
