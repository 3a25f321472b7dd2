"""Networks as torch-pruning takes them, cut to a ratio of their multiply-accumulates and timed.

ResNet-20 and MobileNetV2 carry the weights of their files; the digits networks are built anew with
random weights, which decide nothing but which channels go.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch_pruning as tp
from shared_data import ROOT, Network
from torch import nn

from onnxprune.bench.measure import measure
from onnxprune.bench.values import BenchReport

_STEP = 0.02  # share of each layer that goes at once


def peer_of(network: Network) -> tuple[nn.Module | None, torch.Tensor | None]:
    """Return a network in torch and an input for it; None where there is none."""
    inputs = network.calibration()
    if "resnet20" in network.name or "mobilenetv2" in network.name:
        from torch_networks import rebuilt

        # Only this export names its weights as torch did.
        named = network.name.replace("_ts", "_tsbn").replace("bnbn", "bn").replace("dynamo", "tsbn")
        path = network.path.with_stem(named if "resnet20" in named else network.name)
        return rebuilt(path, inputs), torch.from_numpy(inputs[:1])
    sys.path.insert(0, str(ROOT / "models"))
    import networks

    known: dict[str, Callable[[], nn.Module]] = {
        "digits_resnet": networks.resnet,
        "digits_resnet_bn": networks.resnet,
        "digits_resnet_dynamo": networks.resnet,
        "digits_mobile": networks.mobile,
        "digits_vit": networks.VisionTransformer,
    }
    if network.name not in known:
        return None, None
    torch.manual_seed(0)
    return known[network.name]().eval(), torch.from_numpy(inputs[:1])


def time_pruned(
    model: nn.Module, example: torch.Tensor, ratio: float, folder: Path
) -> tuple[float, BenchReport]:
    """Cut a network by the magnitude of its weights, and time its export against the whole's.

    Returns
    -------
    float
        The ratio of multiply-accumulates that was reached, as torch-pruning counts them.
    BenchReport
    """
    whole, before = folder / "whole.onnx", tp.utils.count_ops_and_params(model, example)[0]
    _export(model, example, whole)
    head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1:]
    head = head or [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1:]
    while (now := tp.utils.count_ops_and_params(model, example)[0]) > ratio * before:
        tp.pruner.MagnitudePruner(
            model, example, pruning_ratio=_STEP, ignored_layers=head,
            importance=tp.importance.MagnitudeImportance(p=1),
        ).step()  # fmt: skip
    _export(model, example, folder / "pruned.onnx")
    feed = {"input": example.numpy()}
    paths = [whole, folder / "pruned.onnx"]
    return now / before, measure(paths, [feed], names=["whole", "pruned"])


def _export(model: nn.Module, example: torch.Tensor, target: Path) -> None:
    torch.onnx.export(
        model, (example,), target, input_names=["input"], dynamo=False, opset_version=17
    )
