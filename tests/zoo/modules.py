"""Build an architecture with random weights, as a module of positional tensors in and out."""

import zlib

import numpy as np
import torch
import transformers
from shapes import BATCH, FIRST_WORD, VOCAB, Architecture, Input
from transformers import masking_utils

# Looks for several documents packed in one row. The example has none and the answer is then None,
# but a traced graph keeps the search, by an operator that the TorchScript exporter cannot write.
masking_utils.find_packed_sequence_indices = lambda position_ids: None

SETTLING_BATCH = 16


class Positional(torch.nn.Module):
    """Positional tensors in, a tuple of plain tensors out; the names stay outside the graph."""

    def __init__(self, model: torch.nn.Module, inputs: tuple[str, ...], outputs: tuple[str, ...]):
        super().__init__()
        self.model, self.inputs, self.outputs = model, inputs, outputs

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, tensors, strict=True)), return_dict=True)
        return tuple(found[name] for name in self.outputs)


def seed(name: str) -> int:
    """A seed that is the same in every process, unlike ``hash``."""
    return zlib.crc32(name.encode())


def build(architecture: Architecture) -> Positional:
    """The model in eval mode, on eager attention, with every number of it randomised."""
    torch.manual_seed(seed(architecture.name))
    kind = getattr(transformers, architecture.model)
    config = kind.config_class(**architecture.config, attn_implementation="eager")
    model = kind(config).eval()
    randomise(model)
    names = tuple(i.name for i in architecture.inputs)
    module = Positional(model, names, architecture.outputs).eval()
    settle(module, example(architecture, SETTLING_BATCH))
    return module


@torch.no_grad()
def randomise(model: torch.nn.Module) -> None:
    """Add noise to every parameter.

    Fresh biases are zeros and fresh norms are ones: exporters merge or drop such tensors, and a
    wrong cut of one would not show. Matrices get noise by their fan-in, which keeps activations
    of order one through any depth.
    """
    for tensor in model.parameters():
        fan_in = tensor[0].numel() if tensor.dim() > 1 else 0
        scale = min(0.1, fan_in**-0.5) if fan_in else 0.1
        tensor.add_(torch.randn_like(tensor) * scale)


@torch.no_grad()
def settle(module: Positional, arguments: tuple[torch.Tensor, ...]) -> None:
    """Give every BatchNormalization the statistics of its own input, then a little noise.

    With statistics that know nothing of the weights, a deep net of convolutions answers every
    image alike, and such a net hides errors.
    """
    norms = [m for m in module.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        module(*arguments)
    for norm in norms:
        norm.eval()
        mean, variance = norm.running_mean, norm.running_var
        if mean is not None and variance is not None:
            mean.add_(torch.randn_like(mean) * variance.sqrt() * 0.1)
            variance.mul_(torch.rand_like(variance) + 0.5)


def filled(item: Input, batch: int, generator: np.random.Generator) -> np.ndarray:
    """Normal numbers, words of the vocabulary, or a mask that hides the end of the last sample."""
    shape = (batch, *item.shape[1:])
    if item.kind == "float":
        return generator.standard_normal(shape, dtype=np.float32)
    if item.kind == "ids":
        return generator.integers(FIRST_WORD, VOCAB, shape, dtype=np.int64)
    mask = np.ones(shape, np.int64)
    mask[-1, -3:] = 0
    return mask


def feed(architecture: Architecture, batch: int = BATCH) -> dict[str, np.ndarray]:
    """The example feed: the same in every process."""
    generator = np.random.default_rng(seed(architecture.name))
    return {item.name: filled(item, batch, generator) for item in architecture.inputs}


def example(architecture: Architecture, batch: int = BATCH) -> tuple[torch.Tensor, ...]:
    """The example feed as torch tensors, in the order of the inputs."""
    return tuple(torch.from_numpy(array) for array in feed(architecture, batch).values())
