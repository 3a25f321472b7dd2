"""How much a result depends on what should not matter.

    python tests/benchmarks/spread.py [--macs 0.5] [--only NAME ...] [--exports | --latency 0.7]

Prunes each network with seeds 0-2, with the same samples in two other orders, and with two threads,
each in a process of its own. ``--exports`` prunes each export of the same network instead, with
BatchNormalization folded and kept. ``--latency`` prunes three times to a measured latency, timing
the operators anew, and prints the measured ratios too.

Prints the accuracies on the scoring samples, and the largest paired difference to the first of the
row with its 95 % interval: a difference within its interval is noise of the scoring samples alone.
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

_REPEATS = 3
EXPORTS = (
    ("digits_resnet", "digits_resnet_bn", "digits_resnet_dynamo"),
    ("resnet20_cifar10_ts", "resnet20_cifar10_tsbn", "resnet20_cifar10_dynamo"),
)


@dataclass(frozen=True)
class Case:
    """A run of the main job; ``order`` 0 leaves the samples as they come."""

    name: str
    ratio: float
    seed: int = 0
    order: int = 0
    threads: int = 1
    latency: bool = False


def networks() -> dict[str, Network]:
    """Return all networks that are there."""
    return {n.name: n for n in (*own_networks(), *shared_networks()) if n.present}


def result(case: Case) -> tuple[Right, float | None]:
    """Prune once; return which scoring samples the result gets right, and its latency."""
    network = networks()[case.name]
    inputs = network.calibration()[: Options().samples]  # so that an order changes no choice
    if case.order:
        inputs = np.random.default_rng(case.order).permutation(inputs)
    with tempfile.TemporaryDirectory() as folder:
        data, target = Path(folder) / "inputs.npz", Path(folder) / "out.onnx"
        np.savez(data, **{Session(network.path).inputs[0].name: inputs})
        cache = Path(folder) / "cache" if case.latency else None
        options = Options(
            data=data,
            **{"latency" if case.latency else "macs": case.ratio},  # type: ignore[arg-type]
            seed=case.seed,
            threads=case.threads,
            cache=cache,
        )
        report = run(network.path, target, options)
        return right(network, target), report.ratios.latency


def alone(case: Case) -> tuple[Right, float | None]:
    """Prune in a fresh process, whose libraries read the number of threads when they load."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = str(case.threads)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(result, case).result()


def row(title: str, made: Sequence[tuple[Right, float | None]], *, timed: bool = False) -> str:
    """Format the accuracies and the largest difference to the first."""
    found = [one for one, _ in made]
    accuracies = " ".join(f"{f.mean():6.1%}" for f in found)
    farthest = max(found[1:], key=lambda f: abs(float(f.mean() - found[0].mean())))
    times = " at " + " ".join(f"{ratio:.3f}" for _, ratio in made) if timed else ""
    return f"{title:40} {accuracies:24} {points(found[0], farthest)}{times}"


def spreads(name: str, ratio: float) -> Iterator[str]:
    """Yield what seeds, sample orders and threads change for one network."""
    first = alone(Case(name, ratio))
    others = {
        "seeds 0-2": [Case(name, ratio, seed=1), Case(name, ratio, seed=2)],
        "sample orders": [Case(name, ratio, order=1), Case(name, ratio, order=2)],
        "one and two threads": [Case(name, ratio, threads=2)],
    }
    for kind, cases in others.items():
        yield row(f"{name}, {kind}", [first, *map(alone, cases)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5])
    parser.add_argument("--only", nargs="+", default=["digits_resnet", "mnist_lstm_ts"])
    parser.add_argument("--exports", action="store_true")
    parser.add_argument("--latency", type=float, nargs="+", default=[])
    given = parser.parse_args(arguments)
    print(f"{'network':40} {'accuracies':24} largest difference to the first")
    present = [name for name in networks() if name in given.only]
    for ratio in given.latency:
        for name in present:
            cases = [Case(name, ratio, latency=True)] * _REPEATS
            print(row(f"{name}, latency {ratio}", list(map(alone, cases)), timed=True), flush=True)
    for ratio in [] if given.latency else given.macs:
        for same in EXPORTS if given.exports else ():
            if same[0] in present:
                cases = [Case(name, ratio) for name in same]
                print(row(f"{same[0]}, exports, {ratio}", list(map(alone, cases))), flush=True)
        for name in () if given.exports else present:
            for line in spreads(name, ratio):
                print(line, flush=True)


if __name__ == "__main__":
    main()
