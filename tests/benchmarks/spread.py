"""How much a result depends on what should not matter.

    python tests/benchmarks/spread.py [--macs 0.5] [--only NAME ...] [--exports]

Prunes each network with seeds 0-2, with the same samples in two other orders, and with two threads,
each in a process of its own. ``--exports`` prunes each export of the same network instead, with
BatchNormalization folded and kept. Prints the accuracies on the scoring samples, and the largest
paired difference to the first of the row with its 95 % interval: a difference within its interval
is noise of the scoring samples alone.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from scoring import Right, points, right
from shared_data import Network, own_networks, shared_networks

from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.runtime.session import Session

EXPORTS = (
    ("digits_resnet", "digits_resnet_bn", "digits_resnet_dynamo"),
    ("resnet20_cifar10_ts", "resnet20_cifar10_tsbn", "resnet20_cifar10_dynamo"),
)


@dataclass(frozen=True)
class Case:
    """A run of the main job; ``order`` 0 leaves the samples as they come."""

    name: str
    macs: float
    seed: int = 0
    order: int = 0
    threads: int = 1


def networks() -> dict[str, Network]:
    """Return all networks that are there."""
    return {n.name: n for n in (*own_networks(), *shared_networks()) if n.present}


def result(case: Case) -> Right:
    """Prune once; return which scoring samples the result gets right."""
    network = networks()[case.name]
    inputs = network.calibration()[: Options().samples]  # so that an order changes no choice
    if case.order:
        inputs = np.random.default_rng(case.order).permutation(inputs)
    with tempfile.TemporaryDirectory() as folder:
        data, target = Path(folder) / "inputs.npz", Path(folder) / "out.onnx"
        np.savez(data, **{Session(network.path).inputs[0].name: inputs})
        options = Options(data=data, macs=case.macs, seed=case.seed, threads=case.threads)
        run(network.path, target, options)
        return right(network, target)


def alone(case: Case) -> Right:
    """Prune in a fresh process, whose libraries read the number of threads when they load."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(case.threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(result, case).result()


def row(title: str, found: Sequence[Right]) -> str:
    """Format the accuracies and the largest difference to the first."""
    accuracies = " ".join(f"{f.mean():6.1%}" for f in found)
    farthest = max(found[1:], key=lambda f: abs(float(f.mean() - found[0].mean())))
    return f"{title:40} {accuracies:24} {points(found[0], farthest)}"


def spreads(name: str, macs: float) -> Iterator[str]:
    """Yield what seeds, sample orders and threads change for one network."""
    first = alone(Case(name, macs))
    others = {
        "seeds 0-2": [Case(name, macs, seed=1), Case(name, macs, seed=2)],
        "sample orders": [Case(name, macs, order=1), Case(name, macs, order=2)],
        "one and two threads": [Case(name, macs, threads=2)],
    }
    for kind, cases in others.items():
        yield row(f"{name}, {kind}", [first, *map(alone, cases)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5])
    parser.add_argument("--only", nargs="+", default=["digits_resnet", "mnist_lstm_ts"])
    parser.add_argument("--exports", action="store_true")
    given = parser.parse_args(arguments)
    print(f"{'network':40} {'accuracies':24} largest difference to the first")
    present = networks()
    for macs in given.macs:
        if given.exports:
            for same in EXPORTS:
                if same[0] in given.only and same[0] in present:
                    cases = [Case(name, macs) for name in same]
                    print(row(f"{same[0]}, exports, {macs}", list(map(alone, cases))), flush=True)
            continue
        for name in present:
            if name in given.only:
                for line in spreads(name, macs):
                    print(line, flush=True)


if __name__ == "__main__":
    main()
