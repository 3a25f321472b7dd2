"""Ask every network for a measured latency, and print what was reached or why it was refused.

    python tests/benchmarks/latency_targets.py [--latency 0.7] [--only NAME] [--rival] [--peers]

Prints per network the measured ratio with its 99 % interval, whose upper end must keep the ratio,
or the refusal; the MACs ratio beside the latency ratio; the drop on samples held out.
``--rival`` cuts by MACs alone until the latency is the same, and prints its drop beside ours.
``--peers`` prints how MACs turn into time for Torch-Pruning's widths (needs torch and
torch-pruning): networks of random weights, exported before and after.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from shared_data import Network, own_networks, shared_networks

from onnxprune.bench.machine import machine
from onnxprune.bench.measure import measure
from onnxprune.errors import OnnxPruneError
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.report.values import Report
from onnxprune.runtime.session import RUNTIME_VERSION, Session

_CLOSE = 0.02  # of the latency ratio: near enough to compare drops


def pruned(network: Network, folder: Path, **choices: object) -> Report:
    """Run the main job once."""
    name = Session(load(network.path).path).inputs[0].name
    data = folder / "inputs.npz"
    np.savez(data, **{name: network.calibration()})
    options = Options(data=data, **choices)  # type: ignore[arg-type]
    return run(network.path, folder / "out.onnx", options, force=True)


def told(report: Report) -> str:
    """Say what was reached."""
    low, high = report.ratios.latency_interval or (float("nan"),) * 2
    drop = "" if report.drop is None else f"{report.drop.metric} {report.drop.value:.4f}"
    found = report.ratios
    return f"latency {found.latency:.3f} ({low:.3f}-{high:.3f})  MACs {found.macs:.3f}  {drop}"


def target(network: Network, ratio: float, folder: Path, given: argparse.Namespace) -> Report | str:
    """Ask for a latency; return the report or the refusal."""
    try:
        return pruned(
            network, folder, latency=ratio, cache=given.cache, time_limit=given.time_limit
        )
    except OnnxPruneError as error:
        return f"exit {error.exit_code}: {error}"


def rival(
    network: Network, latency: float, folder: Path, given: argparse.Namespace
) -> Report | str:
    """Cut by MACs alone; bisect their ratio for the latency that ours has."""
    low, high, best = 0.1, 1.0, "no ratio of MACs comes near"
    for _ in range(given.tries):
        middle = (low + high) / 2
        try:
            report = pruned(network, folder, macs=middle, time_limit=given.time_limit)
        except OnnxPruneError:
            low = middle
            continue
        reached = report.ratios.latency or 1.0
        if abs(reached - latency) <= _CLOSE:
            return report
        low, high = (middle, high) if reached < latency else (low, middle)
        best = f"nearest: {told(report)}"
    return best


def peers(ratios: Sequence[float]) -> Iterator[str]:
    """Prune a ResNet-20 with Torch-Pruning to ratios of MACs, and time the exports."""
    import torch
    import torch_pruning
    from peer_networks import resnet20

    example = torch.randn(1, 3, 32, 32)
    feed = {"input": example.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, ratio in enumerate((1.0, *ratios)):
            torch.manual_seed(0)
            model = resnet20().eval()
            whole, _ = torch_pruning.utils.count_ops_and_params(model, example)
            while torch_pruning.utils.count_ops_and_params(model, example)[0] > ratio * whole:
                torch_pruning.pruner.MagnitudePruner(
                    model, example, pruning_ratio=0.02,
                    importance=torch_pruning.importance.MagnitudeImportance(p=1),
                    ignored_layers=[model.head],
                ).step()  # fmt: skip
            now, _ = torch_pruning.utils.count_ops_and_params(model, example)
            paths.append(Path(folder) / f"{number}.onnx")
            torch.onnx.export(
                model, example, paths[-1], input_names=["input"], dynamo=False, opset_version=17
            )
            if number:
                found = measure([paths[0], paths[-1]], [feed], names=["whole", "pruned"])
                low, high = found.interval or (float("nan"),) * 2
                name = f"torch-pruning {torch_pruning.__version__}, ResNet-20"
                took = f"latency {found.ratio:.3f} ({low:.3f}-{high:.3f})"
                yield f"{name}: MACs {now / whole:.3f}, {took}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.7])
    parser.add_argument("--only", default="")
    parser.add_argument("--rival", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--tries", type=int, default=5)
    parser.add_argument("--time-limit", type=float, default=Options().time_limit)
    parser.add_argument("--cache", type=Path)
    given = parser.parse_args(arguments)
    for network in (*own_networks(), *shared_networks()):
        if given.only not in network.name or not network.present:
            continue
        for ratio in given.latency:
            start = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                ours = target(network, ratio, Path(folder), given)
                line = ours if isinstance(ours, str) else told(ours)
                seconds = time.monotonic() - start
                print(f"{network.name:24} {ratio:.2f}  {line}  {seconds:.0f} s", flush=True)
                if given.rival and not isinstance(ours, str):
                    other = rival(network, ours.ratios.latency or ratio, Path(folder), given)
                    line = other if isinstance(other, str) else told(other)
                    print(f"{'  by MACs alone':24} {'':4}  {line}", flush=True)
    for line in peers((0.9, 0.8, 0.7, 0.5)) if given.peers else ():
        print(line, flush=True)
    facts = machine(1, "CPUExecutionProvider")
    print(
        f"\n{facts['cpu']}, {facts['cores']} cores, load {facts['load average']}, "
        f"python {platform.python_version()}, onnx {onnx.__version__}, "
        f"onnxruntime {RUNTIME_VERSION}"
    )


if __name__ == "__main__":
    main()
