"""The torch networks: small, but built from the parts of the large ones."""

import torch
from torch import Tensor, nn

CLASSES = 10


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Build a convolution without bias, padded to keep the size, and its BatchNormalization."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = convolution(inputs, outputs, 3, stride)
        self.second = convolution(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.shortcut(x))


def resnet() -> nn.Module:
    """Build a residual network of five blocks; input [n, 1, 8, 8]."""
    blocks = [(16, 16, 1), (16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]
    return nn.Sequential(
        convolution(1, 16, 3),
        nn.ReLU(),
        *(Residual(*block) for block in blocks),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, CLASSES),
    )


class SqueezeExcite(nn.Module):
    """A gate per channel, computed from the means of all channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(means))))


class Inverted(nn.Module):
    """Expand, depthwise, squeeze-excite, project; with a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.shortcut = inputs == outputs and stride == 1
        self.body = nn.Sequential(
            convolution(inputs, hidden, 1),
            nn.SiLU(),
            convolution(hidden, hidden, 3, stride, groups=hidden),
            nn.SiLU(),
            SqueezeExcite(hidden),
            convolution(hidden, outputs, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return x + y if self.shortcut else y


def mobile() -> nn.Module:
    """Build a depthwise-separable network of five blocks; input [n, 1, 8, 8]."""
    blocks = [(16, 24, 1), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 64, 2)]
    return nn.Sequential(
        convolution(1, 16, 3),
        nn.SiLU(),
        *(Inverted(*block) for block in blocks),
        convolution(64, 128, 1),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, CLASSES),
    )


class Attention(nn.Module):
    """Self-attention from plain matrix products, with query, key and value packed as one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.dim = heads, width // heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        packed = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.dim)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(query @ key.transpose(-2, -1) * self.dim**-0.5, dim=-1)
        return self.project((weights @ value).transpose(1, 2).reshape(batch, tokens, width))


class Layer(nn.Module):
    """A transformer layer that normalizes before attention and before the MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.think(x)


class VisionTransformer(nn.Module):
    """Sixteen patches of 2x2 pixels and a class token; input [n, 1, 8, 8]."""

    def __init__(self, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 17, width))
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], dim=1)
        return self.head(self.norm(self.layers(tokens + self.position))[:, 0])


class Recurrent(nn.Module):
    """Read the rows of an image one after the other, decide after the last; input [n, 8, 8]."""

    def __init__(self, cell: type[nn.LSTM] | type[nn.GRU], width: int = 64) -> None:
        super().__init__()
        self.cell = cell(8, width, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cell(x)
        return self.head(states[:, -1])
