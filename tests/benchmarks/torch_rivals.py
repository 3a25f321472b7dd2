"""Torch-Pruning's methods: cut a torch network to a ratio of its multiply-accumulates.

Nothing here sees a label: the losses whose gradients Taylor and Hessian read are taken against the
network's own classes, as the calibration inputs have no others.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import nn
from torch_networks import MobileNetV2, ResNet20

Model = ResNet20 | MobileNetV2
Gradients = list[torch.Tensor]
METHODS = ("l2", "fpgm", "taylor", "hessian")
SCOPES = ("uniform", "global")
_BATCH = 64
_TRIES = 10
_DEEPEST = 0.9  # of a layer, where all layers compete: no layer may vanish
_APART = 128  # samples whose gradients are squared one by one


@dataclass(frozen=True)
class Rival:
    """A method of Torch-Pruning, ready to cut.

    ``scope`` is ``uniform`` (the same share of every layer) or ``global`` (all compete). Channels
    that shortcuts carry stay unless ``streams``: to cut them costs every method here more.
    """

    model: Model
    samples: torch.Tensor
    method: str
    scope: str
    streams: bool = False

    def cut(self, ratio: float) -> Model:
        """Return the cut whose multiply-accumulates come nearest to a ratio."""
        whole = macs(self.model, self.samples[:1])
        gradients = self._gradients()
        low, high, tried = 0.0, 1.0, []
        for _ in range(_TRIES):
            share = (low + high) / 2
            found = self._once(share, gradients)
            left = macs(found, self.samples[:1]) / whole
            tried.append((abs(left - ratio), found))
            low, high = (share, high) if left > ratio else (low, share)
        return min(tried, key=lambda t: t[0])[1]

    def _once(self, share: float, gradients: Gradients) -> Model:
        model = copy.deepcopy(self.model)
        for parameter, gradient in zip(model.parameters(), gradients, strict=False):
            parameter.grad = gradient.clone()
        head = [m for m in model.modules() if isinstance(m, nn.Linear)] or [model.steps["64"].conv]
        tp.pruner.BasePruner(
            model,
            self.samples[:1],
            importance=self._importance(),
            global_pruning=self.scope == "global",
            pruning_ratio=share,
            max_pruning_ratio=_DEEPEST if self.scope == "global" else 1.0,
            ignored_layers=head if self.streams else list(model.streams()),
        ).step()
        return model

    def _importance(self) -> Callable[[tp.Group], torch.Tensor]:
        kinds = {
            "l2": tp.importance.GroupMagnitudeImportance,
            "fpgm": tp.importance.FPGMImportance,
            "taylor": tp.importance.GroupTaylorImportance,
            "hessian": tp.importance.GroupHessianImportance,
        }
        found = kinds[self.method]()
        if isinstance(self.model, MobileNetV2):  # its BatchNormalizations are not the network's
            found.target_types = [nn.Conv2d]
        return found

    def _gradients(self) -> Gradients:
        """Return what the method reads as gradients: means over samples, or means of squares."""
        if self.method not in ("taylor", "hessian"):
            return []
        squared = self.method == "hessian"
        samples, size = (self.samples[:_APART], 1) if squared else (self.samples, _BATCH)
        parameters = list(self.model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for part in samples.split(size):
            scores = self.model(part)
            loss = nn.functional.cross_entropy(scores, scores.argmax(1), reduction="sum")
            for place, found in zip(total, torch.autograd.grad(loss, parameters), strict=True):
                place.add_(found**2 if squared else found)
        return [t / len(samples) for t in total]


def macs(model: nn.Module, sample: torch.Tensor) -> int:
    """Count the multiply-accumulates of convolutions and linear layers."""
    total = 0

    def add(layer: nn.Module, _: object, out: torch.Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    with torch.no_grad():
        model(sample)
    for hook in hooks:
        hook.remove()
    return total


def reestimated(model: Model, samples: torch.Tensor) -> Model:
    """Return the network with BatchNormalization statistics of what the samples cause in it."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean over all batches
    model.train()
    with torch.no_grad():
        for part in samples.split(_BATCH):
            model(part)
    return model.eval()
