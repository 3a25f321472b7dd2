"""Random numbers for the weights and statistics of a torch module."""

import torch


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
def settle(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
    """Give every BatchNormalization the statistics of its own input, then a little noise.

    With statistics that know nothing of the weights, a deep net of convolutions answers every
    image alike, and such a net hides errors. The noise lets no norm enlarge on average: a hundred
    that do, and the answer of a net with gates is its own rounding.
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
            variance.mul_(torch.rand_like(variance) + 0.7)
