"""Run the main job on real networks and score the results on labelled samples nobody chose on.

    python tests/benchmarks/networks.py [--macs 0.7 0.5 | --latency 0.7] [--only NAME]
        [--no-recover] [--no-branches] [--no-switches]

Calibrates on one set of inputs and scores on another. Prints per network and ratio: accuracy (or
relative L2 change) before and after with the paired 95 % interval of the difference, MACs, measured
latency, the verified error, what it took (seconds by the clock, seconds of processor time, peak
memory in GiB of a process of its own), then the machine and the versions.
"""

import argparse
import platform
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
from scoring import Start, peak_memory, score
from shared_data import Network, named, own_networks, shared_networks

from onnxprune.errors import OnnxPruneError
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.report.values import Report
from onnxprune.runtime.session import RUNTIME_VERSION, Session


def row(network: Network, report: Report, target: Path, spent: str) -> str:
    """Format one result."""
    interval = report.ratios.latency_interval or (float("nan"), float("nan"))
    assert report.verified is not None
    onnx.checker.check_model(onnx.load(target))
    return (
        f"{network.name:26} {report.ratios.macs:5.3f} {score(network, target):52} "
        f"{report.ratios.latency or float('nan'):5.3f} ({interval[0]:.3f}-{interval[1]:.3f}) "
        f"{report.verified['max_rel_error']:8.1e} {spent}"
    )


def one(name: str, ratio: float, given: argparse.Namespace) -> str:
    """Run the main job once."""
    start = Start.now()
    network = next(n for n in networks() if n.name == name)
    with tempfile.TemporaryDirectory() as folder:
        data, target = Path(folder) / "inputs.npz", Path(folder) / "out.onnx"
        first = Session(load(network.path).path).inputs[0].name
        np.savez(data, **{first: network.calibration()})
        options = Options(
            data=data,
            **{"latency" if given.latency else "macs": ratio},
            recover=not given.no_recover,
            branches=not given.no_branches,
            switches=not given.no_switches,
            samples=given.samples,
            time_limit=given.time_limit,
        )
        try:
            report = run(network.path, target, options)
        except OnnxPruneError as error:
            return f"{network.name:26} exit {error.exit_code}: {error}"
        return row(network, report, target, f"{start.spent()} {peak_memory():6.2f}")


def networks() -> list[Network]:
    """Return all networks of the table."""
    return [*own_networks(), *shared_networks()]


def alone(name: str, ratio: float, given: argparse.Namespace) -> str:
    """Run the main job in a fresh process, whose peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(one, name, ratio, given).result()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.7, 0.5])
    parser.add_argument("--latency", type=float, nargs="+", default=[])
    parser.add_argument("--only", default="")
    parser.add_argument("--no-recover", action="store_true")
    parser.add_argument("--no-branches", action="store_true")
    parser.add_argument("--no-switches", action="store_true")
    parser.add_argument("--samples", type=int, default=Options().samples)
    parser.add_argument("--time-limit", type=float, default=Options().time_limit)
    given = parser.parse_args(arguments)
    took = f"{'time':>6} {'CPU s':>6} {'GiB':>6}"
    print(f"{'network':26} MACs  {'score':52} latency (99 % interval) verified {took}")
    present = {network.name: network for network in networks()}
    for network in (present[name] for name in named(present, given.only)):
        if not network.present:
            print(f"{network.name:26} absent: {network.path}")
            continue
        for ratio in given.latency or given.macs:
            print(alone(network.name, ratio, given), flush=True)
    print(
        f"\n{platform.processor() or platform.machine()}, python {platform.python_version()}, "
        f"onnx {onnx.__version__}, onnxruntime {RUNTIME_VERSION}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
