"""Build an architecture with random weights, as a module of positional tensors in and out."""

import zlib

import numpy as np
import torch
import transformers
from shapes import BATCH, FIRST_WORD, VOCAB, Architecture, Input
from transformers import masking_utils
from weights import randomise, settle

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
