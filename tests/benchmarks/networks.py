"""Run the main job on real networks and score the results on labelled samples nobody chose on.

    python tests/benchmarks/networks.py [--macs 0.7 0.5] [--only NAME] [--no-recover]

Calibrates on one set of inputs and scores on another. Prints per network and ratio: accuracy (or
relative L2 change) before and after with the paired 95 % interval of the difference, MACs, measured
latency, the verified error and the seconds it took, then the machine and the versions.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from shared_data import Network, own_networks, shared_networks

from onnxprune.errors import OnnxPruneError
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.report.values import Report
from onnxprune.runtime.session import RUNTIME_VERSION, Session

_BATCH = 50


def outputs(path: Path, inputs: np.ndarray) -> list[list[np.ndarray]]:
    """Return all outputs, batch by batch."""
    session = Session(path)
    info = session.inputs[0]
    size = info.shape[0] if isinstance(info.shape[0], int) else _BATCH
    found = []
    for start in range(0, len(inputs), size):
        found.append(list(session.run({info.name: inputs[start : start + size]}).values()))
    return found


def classes(found: list[list[np.ndarray]]) -> np.ndarray:
    """Return the top class of the last float output."""
    scores = [next(a for a in reversed(batch) if a.dtype.kind == "f") for batch in found]
    return np.concatenate([s.argmax(axis=-1) for s in scores])


def score(network: Network, target: Path) -> str:
    """Say what the result lost, on the scoring samples."""
    inputs, labels = network.score()
    before, after = outputs(network.path, inputs), outputs(target, inputs)
    if labels is None:
        change = [
            np.sqrt(
                sum(((b[k] - a[k]) ** 2).sum() for a, b in zip(before, after, strict=True))
                / sum((a[k] ** 2).sum() for a in before)
            )
            for k in range(len(before[0]))
        ]
        return "relative L2 " + ", ".join(f"{c:.4f}" for c in change)
    right = (classes(before) == labels).astype(float)
    now = (classes(after) == labels).astype(float)
    gap = now - right
    half = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
    return (
        f"{right.mean():6.1%} -> {now.mean():6.1%}  "
        f"({gap.mean() * 100:+.1f} +- {half * 100:.1f} points, n={len(gap)})"
    )


def row(network: Network, report: Report, target: Path, seconds: float) -> str:
    """Format one result."""
    interval = report.ratios.latency_interval or (float("nan"), float("nan"))
    assert report.verified is not None
    onnx.checker.check_model(onnx.load(target))
    return (
        f"{network.name:26} {report.ratios.macs:5.3f} {score(network, target):52} "
        f"{report.ratios.latency or float('nan'):5.3f} ({interval[0]:.3f}-{interval[1]:.3f}) "
        f"{report.verified['max_rel_error']:8.1e} {seconds:6.0f}"
    )


def one(network: Network, ratio: float, given: argparse.Namespace) -> str:
    """Run the main job once."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data, target = Path(folder) / "inputs.npz", Path(folder) / "out.onnx"
        name = Session(load(network.path).path).inputs[0].name
        np.savez(data, **{name: network.calibration()})
        options = Options(
            data=data,
            macs=ratio,
            recover=not given.no_recover,
            samples=given.samples,
            time_limit=given.time_limit,
        )
        try:
            report = run(network.path, target, options)
        except OnnxPruneError as error:
            return f"{network.name:26} exit {error.exit_code}: {error}"
        return row(network, report, target, time.monotonic() - start)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.7, 0.5])
    parser.add_argument("--only", default="")
    parser.add_argument("--no-recover", action="store_true")
    parser.add_argument("--samples", type=int, default=Options().samples)
    parser.add_argument("--time-limit", type=float, default=Options().time_limit)
    given = parser.parse_args(arguments)
    print(f"{'network':26} MACs  {'score':52} latency (99 % interval)  verified seconds")
    for network in (*own_networks(), *shared_networks()):
        if given.only not in network.name:
            continue
        if not network.present:
            print(f"{network.name:26} absent: {network.path}")
            continue
        for ratio in given.macs:
            print(one(network, ratio, given), flush=True)
    print(
        f"\n{platform.processor() or platform.machine()}, python {platform.python_version()}, "
        f"onnx {onnx.__version__}, onnxruntime {RUNTIME_VERSION}, numpy {np.__version__}"
    )


if __name__ == "__main__":
    main()
