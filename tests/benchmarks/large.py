"""What a run takes on networks of full size: time, memory, and what comes out.

    uv pip install --group zoo
    python tests/benchmarks/large.py [--nets resnet18 ...] [--macs 0.6] [--samples 256]

ResNet-18 and -50, ViT-S and BERT-base as transformers defines them, with random weights whose
statistics are settled, exported by torch; 224 x 224 photos of ../shared (noise without them), or
rows of 64 random tokens. Each is pruned by the command line in a process of its own with all
defaults; times and the largest memory are those that the system counts for it. What random weights
lose says nothing about trained ones; it shows that the refit works at this size.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from process import command
from shared_data import shared_networks
from torch import nn

from onnxprune.runtime.session import RUNTIME_VERSION

Array = NDArray[np.generic]
_WORDS, _LENGTH = 30522, 64


class Head(nn.Module):
    """A network of transformers that answers with its pooled features' scores."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 100)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x).pooler_output.flatten(1))


def resnet(depths: list[int], widths: list[int], kind: str) -> nn.Module:
    config = transformers.ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=kind)
    return Head(transformers.ResNetModel(config), widths[-1])


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, attn_implementation="eager"
    )
    return Head(transformers.ViTModel(config), 384)


def bert() -> nn.Module:
    config = transformers.BertConfig(attn_implementation="eager")
    return Head(transformers.BertModel(config), 768)


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": lambda: resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic"),
    "vit_small": vit,
    "resnet50": lambda: resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
    "bert_base": bert,
}


def inputs(name: str, samples: int) -> Array:
    """Return photos or tokens."""
    rng = np.random.default_rng(0)
    if name.startswith("bert"):
        return rng.integers(0, _WORDS, (samples, _LENGTH))
    for network in shared_networks():
        if network.present and network.name.startswith("mobilenetv2"):
            return network.calibration()[:samples]
    return rng.standard_normal((samples, 3, 224, 224), np.float32)


def settled(net: nn.Module, x: torch.Tensor) -> nn.Module:
    """Give normalizations, biases and linear layers something of what training leaves."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
            elif weight.dim() == 2:
                weight.mul_(2.0)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = 1.0
        net(x)
    return net.eval()


def export(name: str, data: Array, path: Path) -> None:
    torch.manual_seed(0)
    net = settled(NETS[name]().eval(), torch.from_numpy(data[:32]))
    example = torch.from_numpy(data[:2])
    axes = {"x": {0: "batch"}}
    torch.onnx.export(
        net, (example,), path, input_names=["x"], dynamic_axes=axes, dynamo=False, opset_version=17
    )


def row(name: str, macs: float, samples: int, folder: Path) -> str:
    """Prune one network."""
    data = inputs(name, samples)
    np.savez(folder / "data.npz", x=data)
    export(name, data, folder / "in.onnx")
    report = folder / "report.json"
    spent = command([
        "run", str(folder / "in.onnx"), str(folder / "out.onnx"), "--data",
        str(folder / "data.npz"), "--macs", str(macs), "--force", "--json", str(report),
        "--quiet", "--metric", "relative_l2",
    ])  # fmt: skip
    if spent is None:
        return f"{name:10} failed"
    found = json.loads(report.read_text())
    size, drop = found["before"]["params"] / 1e6, found["drop"]
    return (
        f"{name:10} {size:6.1f} {found['after']['macs'] / found['before']['macs']:6.3f}"
        f" {drop['before_recovery']:8.3f} {drop['value']:8.3f}"
        f" {found['ratios']['latency']:8.3f} {spent.wall:7.0f} s"
        f" {spent.cpu:7.0f} s {spent.memory:6.1f} GiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="*", default=list(NETS), choices=list(NETS))
    parser.add_argument("--macs", type=float, default=0.6)
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}, load average {os.getloadavg()[0]:.1f}")
    print("network    params   MACs    unrefit  refitted  latency    wall      CPU      memory")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.nets:
            print(row(name, given.macs, given.samples, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
