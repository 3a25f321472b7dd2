"""What other packages and onnxprune reach without retraining: same network, data and MACs.

    uv pip install --group rivals
    python tests/benchmarks/rivals.py [--net resnet20] [--macs 0.7 0.5 0.4] [--method NAME ...]

torch-pruning cuts the network rebuilt in torch from the file's weights (plain, and with its
BatchNormalization statistics estimated anew), once with the same share of every layer and once with
all layers competing; onnxsim.pruning and onnxprune cut the file. All use the same calibration
inputs and no labels, and are scored on others by onnxruntime, with the paired difference to the
original and its 95 % interval. Multiply-accumulates are counted by onnxprune for all of them.
Torch-pruning and onnxsim are given the share whose multiply-accumulates come nearest.
"""

import argparse
import copy
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnxsim.pruning
import torch
from scoring import Start, macs, score
from shared_data import Inputs, Network, shared_networks
from torch_networks import rebuilt
from torch_rivals import METHODS, SCOPES, Model, Rival, reestimated

from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.runtime.session import Session

NETS = {
    # torch needs BatchNormalization as nodes, onnxsim needs it folded: the same weights
    "resnet20": ("resnet20_cifar10_ts", "resnet20_cifar10_tsbn"),
    "mobilenetv2": ("mobilenetv2_tf2_ts", "mobilenetv2_tf2_ts"),
}
_TRIES = 8
_BATCH = 64
Job = Callable[[Path], None]


def torch_jobs(
    network: Network, inputs: Inputs, ratio: float, given: argparse.Namespace
) -> Iterator[tuple[str, Job]]:
    """Yield each method of torch-pruning, plain and repaired, as a job that writes a file."""
    samples = torch.from_numpy(inputs)
    methods = [m for m in METHODS if m in given.method]
    model = rebuilt(network.path, inputs) if methods else None
    for method in methods:
        for scope in given.scope:
            rival = Rival(model, samples, method, scope, given.streams)
            cuts: list[Model] = []

            def plain(target: Path, rival: Rival = rival, cuts: list[Model] = cuts) -> None:
                cuts.append(rival.cut(ratio))
                export(cuts[0], samples, target)

            def repaired(target: Path, cuts: list[Model] = cuts) -> None:
                export(reestimated(cuts[0], samples), samples, target)

            yield f"torch-pruning {method}, {scope}", plain
            yield f"torch-pruning {method}, {scope} + BN", repaired


def export(model: Model, samples: torch.Tensor, target: Path) -> None:
    """Write a torch network as ONNX."""
    torch.onnx.export(
        model, (samples[:1],), target, dynamo=False, opset_version=17,
        input_names=["input"], dynamic_axes={"input": {0: "batch"}},
    )  # fmt: skip


def onnxsim_jobs(
    network: Network, inputs: Inputs, ratio: float, given: argparse.Namespace
) -> Iterator[tuple[str, Job]]:
    """Yield onnxsim's structured methods as jobs that write a file."""
    file = onnx.load(network.path)
    batches = [{"input": part} for part in np.array_split(inputs, max(1, len(inputs) // _BATCH))]
    methods = {
        "structured": onnxsim.pruning.apply_structured_pruning,
        "wanda": partial(onnxsim.pruning.apply_structured_wanda_pruning, calibration_data=batches),
    }
    for name, method in methods.items():
        for scope in given.scope if name in given.method else ():
            cut = partial(method, global_sparsity=scope == "global")
            yield f"onnxsim {name}, {scope}", partial(nearest, file, cut, inputs, ratio)


def nearest(
    file: onnx.ModelProto,
    cut: Callable[..., onnx.ModelProto],
    inputs: Inputs,
    ratio: float,
    target: Path,
) -> None:
    """Write the cut of a file whose multiply-accumulates come nearest to a ratio."""
    onnx.save(file, target)
    whole = macs(target, inputs)
    low, high, best = 0.0, 1.0, (1.0, file)
    for _ in range(_TRIES):
        share = (low + high) / 2
        found = cut(copy.deepcopy(file), sparsity=share)
        onnx.save(found, target)
        left = macs(target, inputs) / whole
        best = min(best, (abs(left - ratio), found), key=lambda b: b[0])
        low, high = (share, high) if left > ratio else (low, share)
    onnx.save(best[1], target)


def ours(network: Network, inputs: Inputs, ratio: float, target: Path) -> None:
    """Run onnxprune's main job."""
    data = target.with_suffix(".npz")
    np.savez(data, **{Session(network.path).inputs[0].name: inputs})
    run(network.path, target, Options(data=data, macs=ratio))


def row(network: Network, inputs: Inputs, name: str, job: Job) -> str:
    """Do a job and format what came of it, a failure included."""
    start = Start.now()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        try:
            job(target)
            spent = start.spent()
            left = macs(target, inputs) / macs(network.path, inputs)
            return f"{name:40} {left:5.3f} {score(network, target):52} {spent}"
        except Exception as error:
            return f"{name:40} failed: {type(error).__name__}: {str(error).splitlines()[0][:90]}"


def table(net: str, given: argparse.Namespace) -> Iterator[str]:
    """Yield a network's rows."""
    known = {n.name: n for n in shared_networks()}
    folded, kept = (known[name] for name in NETS[net])
    if not (folded.present and kept.present):
        yield f"absent: {folded.path}"
        return
    inputs = folded.calibration()[: given.samples]
    yield f"{net}: {len(inputs)} samples to calibrate on"
    for ratio in given.macs:
        jobs = [
            *torch_jobs(kept, inputs, ratio, given),
            *onnxsim_jobs(folded, inputs, ratio, given),
        ]
        if "ours" in given.method:
            jobs.append(("onnxprune", partial(ours, folded, inputs, ratio)))
        for name, job in jobs:
            yield row(folded, inputs, name, job)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    every = (*METHODS, "structured", "wanda", "ours")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", nargs="+", choices=list(NETS), default=["resnet20"])
    parser.add_argument("--macs", type=float, nargs="+", default=[0.7, 0.5, 0.4])
    parser.add_argument("--method", nargs="+", choices=every, default=every)
    parser.add_argument("--scope", nargs="+", choices=SCOPES, default=SCOPES)
    parser.add_argument("--streams", action="store_true", help="let torch-pruning cut streams too")
    parser.add_argument("--samples", type=int, default=Options().samples)
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    print(f"{'method':40} MACs  {'score':52} {'time':>6} {'CPU s':>6}")
    for net in given.net:
        for line in table(net, given):
            print(line, flush=True)
    packages = ("torch-pruning", "onnxsim", "torch", "onnx", "onnxruntime", "numpy")
    print(f"\n{platform.machine()}, " + ", ".join(f"{p} {version(p)}" for p in packages))


if __name__ == "__main__":
    main()
