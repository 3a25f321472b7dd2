"""Train a torch network on the digits; the same seed gives the same weights."""

from collections.abc import Callable

import torch
from digits import LAYOUTS, SEED, Part
from torch import Tensor, nn
from torch.nn import functional

BATCH = 64


def trained(
    build: Callable[[], nn.Module], part: Part, layout: str, epochs: int, rate: float
) -> nn.Module:
    """Build and train a network with AdamW on one learning-rate cycle.

    Parameters
    ----------
    build : callable
        Makes the network, its weights drawn after seeding.
    part : Part
        What it learns from.
    layout : str
        A key of ``LAYOUTS``: how the network reads a sample.
    epochs : int
        Passes over the samples.
    rate : float
        Peak learning rate.

    Returns
    -------
    nn.Module
        In evaluation mode, on the CPU.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    network = build()
    images, labels = torch.from_numpy(part.laid_out("images")), torch.from_numpy(part.labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.05)
    batches = len(labels) // BATCH
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(labels))
        for chosen in order[: batches * BATCH].split(BATCH):
            scores = network(moved(images[chosen]).reshape(-1, *LAYOUTS[layout]))
            loss = functional.cross_entropy(scores, labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            cycle.step()
    return network.eval()


def moved(images: Tensor) -> Tensor:
    """Turn, scale and shift each image a little at random; 997 samples are few.

    Parameters
    ----------
    images : float32 tensor of shape (n, 1, 8, 8)

    Returns
    -------
    Tensor
        Of the same shape: up to 11 degrees turned, 10 % scaled, half a pixel shifted.
    """
    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.4
    scale = 1 + (torch.rand(n) - 0.5) * 0.2
    shift = (torch.rand(n, 2) - 0.5) * 0.25
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    matrices = torch.stack(
        [
            torch.stack([cosine, -sine, shift[:, 0]], dim=1),
            torch.stack([sine, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
