"""What ordering channels by reconstruction takes, on large networks: time and memory.

    python tests/benchmarks/reconstruction.py [--nets NAME ...] [--samples 256]

MobileNetV2 at 224 comes from ../shared and is left out where that is missing; ``wide`` has random
weights: a convolution that reads 512 maps through 3x3 windows (4,608 inputs), and a group of 2,048
channels. Each is measured by the command line in a process of its own, with the time limit out of
the way; times and the largest memory are those that the system counts for it.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from process import command
from shared_data import shared_networks

from onnxprune.runtime.session import RUNTIME_VERSION, Session
from tests.nets import Net


def wide() -> onnx.ModelProto:
    """Return a network with the widest layers of the ResNets."""
    net = Net(4)
    y = net.op("Relu", net.conv("x", 3, 512, strides=[2, 2]))
    y = net.op("Relu", net.conv(y, 512, 512))
    y = net.op("Relu", net.conv(y, 512, 2048, 1))
    y = net.op("Relu", net.conv(y, 2048, 512, 1))
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model({"x": ("N", 3, 28, 28)}, net.op("Gemm", flat, net.weight(512, 10)))


def cases(folder: Path, samples: int) -> Iterator[tuple[str, Path, Path]]:
    """Yield names, models and files of inputs."""
    for network in shared_networks():
        if network.present and network.name.startswith("mobilenetv2"):
            data = folder / "photos.npz"
            np.savez(
                data, **{Session(network.path).inputs[0].name: network.calibration()[:samples]}
            )
            yield network.name, network.path, data
    inputs = np.random.default_rng(0).standard_normal((samples, 3, 28, 28), np.float32)
    np.savez(folder / "noise.npz", x=inputs)
    onnx.save(wide(), folder / "wide.onnx")
    yield "wide", folder / "wide.onnx", folder / "noise.npz"


def row(name: str, model: Path, data: Path, samples: int, folder: Path) -> str:
    """Measure one network."""
    report = folder / "report.json"
    spent = command([
        "sensitivity", str(model), "--data", str(data), "--samples", str(samples), "--method",
        "reconstruction", "--time-limit", "7200", "--json", str(report), "--quiet",
    ])  # fmt: skip
    if spent is None:
        return f"{name:20} failed"
    groups = json.loads(report.read_text())["groups"]
    rebuilt = [g for g in groups if g["method"] == "reconstruction"]
    return (
        f"{name:20} {samples:7d} {len(rebuilt):3d}/{len(groups):<3d}"
        f" {max(g['channels'] for g in rebuilt):7d}"
        f" {spent.cpu:8.0f} s {spent.memory:6.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS')}")
    print(
        f"{'network':20} {'samples':>7} {'groups':>7} {'widest':>7} {'CPU time':>10} {'memory':>10}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, model, data in cases(Path(folder), given.samples):
            if not given.nets or name in given.nets:
                print(row(name, model, data, given.samples, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
