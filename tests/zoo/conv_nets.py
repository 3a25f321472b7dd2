"""Convolutional networks written out in torch, small: the ways their channels are wired count."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LABELS = 10


def conv(cin: int, cout: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Sequential:
    """Convolution, normalisation, activation."""
    return nn.Sequential(
        nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False), nn.BatchNorm2d(cout), nn.SiLU()
    )


def head(c: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, LABELS))


class ShuffleUnitV1(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1; the stride-2 unit concatenates its shortcut."""

    def __init__(self, cin: int, cout: int, groups: int, stride: int):
        super().__init__()
        inner, made = cout // 4, cout - cin if stride == 2 else cout
        self.groups, self.stride = groups, stride
        self.reduce = nn.Conv2d(cin, inner, 1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.depth = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.depth_norm = nn.BatchNorm2d(inner)
        self.expand = nn.Conv2d(inner, made, 1, groups=groups, bias=False)
        self.expand_norm = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.reduce(x)))
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = self.expand_norm(self.expand(self.depth_norm(self.depth(y))))
        if self.stride == 2:
            return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))
        return F.relu(x + y)


def shufflenet_v1() -> nn.Module:
    units = [(24, 96, 2), (96, 96, 1), (96, 192, 2), (192, 192, 1)]
    return nn.Sequential(
        conv(3, 24, 3, 2), *(ShuffleUnitV1(a, b, 3, s) for a, b, s in units), head(192)
    )


class Res2(nn.Module):
    """Split, convolve each part with the sum of the one before, concatenate."""

    def __init__(self, c: int, scale: int = 4):
        super().__init__()
        self.enter, self.leave = conv(c, c, 1), conv(c, c, 1)
        self.parts = nn.ModuleList(conv(c // scale, c // scale) for _ in range(scale - 1))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.enter(x).chunk(self.scale, 1)
        found, last = [first], torch.zeros_like(first)
        for part, piece in zip(self.parts, rest, strict=True):
            last = part(piece + last)
            found.append(last)
        return x + self.leave(torch.cat(found, 1))


def res2net_small() -> nn.Module:
    return nn.Sequential(conv(3, 32, 3, 2), Res2(32), conv(32, 48, 3, 2), Res2(48), head(48))


class Dense(nn.Module):
    """Pre-activation layers, each of which reads all before it."""

    def __init__(self, c: int, growth: int, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(c + i * growth),
                nn.ReLU(),
                nn.Conv2d(c + i * growth, 4 * growth, 1, bias=False),
                nn.BatchNorm2d(4 * growth),
                nn.ReLU(),
                nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def densenet_small() -> nn.Module:
    return nn.Sequential(
        conv(3, 16, 3, 2),
        Dense(16, 8, 3),
        conv(40, 24, 1),
        nn.AvgPool2d(2),
        Dense(24, 8, 3),
        head(48),
    )


class Inception(nn.Module):
    """Four branches side by side."""

    def __init__(self, c: int):
        super().__init__()
        self.a = conv(c, 16, 1)
        self.b = nn.Sequential(conv(c, 12, 1), conv(12, 24, 3))
        self.c = nn.Sequential(conv(c, 8, 1), conv(8, 16, 3), conv(16, 16, 3))
        self.d = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(c, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x), self.c(x), self.d(x)], 1)


def inception_small() -> nn.Module:
    return nn.Sequential(conv(3, 24, 3, 2), Inception(24), Inception(64), head(64))


class UNet(nn.Module):
    """Encoder and decoder with skips that are concatenated; transposed convolutions go up."""

    def __init__(self, up: str = "transposed"):
        super().__init__()
        self.down = nn.ModuleList([conv(3, 12), conv(12, 24), conv(24, 48)])
        rise = {
            "transposed": lambda a, b: nn.ConvTranspose2d(a, b, 2, 2),
            "bilinear": lambda a, b: nn.Sequential(
                nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(a, b, 1)
            ),
        }[up]
        self.up = nn.ModuleList([rise(48, 24), rise(24, 12)])
        self.merge = nn.ModuleList([conv(48, 24), conv(24, 12)])
        self.out = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, layer in enumerate(self.down):
            x = layer(x)
            if i < 2:
                skips.append(x)
                x = F.max_pool2d(x, 2)
        for rise, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), rise(x)], 1))
        return self.out(x)


class C2f(nn.Module):
    """YOLOv8's block: split, a chain of bottlenecks, everything concatenated."""

    def __init__(self, cin: int, cout: int, n: int = 2):
        super().__init__()
        c = cout // 2
        self.enter, self.leave = conv(cin, 2 * c, 1), conv((2 + n) * c, cout, 1)
        self.blocks = nn.ModuleList(nn.Sequential(conv(c, c), conv(c, c)) for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class SPPF(nn.Module):
    """One pool used three times over."""

    def __init__(self, c: int):
        super().__init__()
        self.enter, self.leave = conv(c, c // 2, 1), conv(2 * c, c, 1)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        a = self.pool(x)
        b = self.pool(a)
        return self.leave(torch.cat([x, a, b, self.pool(b)], 1))


class Yolo(nn.Module):
    """YOLOv8 in small, with the decoding head: DFL, anchors, sigmoid scores in one output."""

    BINS, CLASSES, SIDE = 16, 6, 64

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), C2f(32, 32))
        self.p4 = nn.Sequential(conv(32, 48, 3, 2), C2f(48, 48))
        self.p5 = nn.Sequential(conv(48, 64, 3, 2), C2f(64, 64, 1), SPPF(64))
        self.up, self.down = C2f(112, 48, 1), conv(48, 48, 3, 2)
        self.deep = C2f(112, 64, 1)
        self.boxes = nn.ModuleList(
            nn.Sequential(conv(c, 32), conv(32, 32), nn.Conv2d(32, 4 * self.BINS, 1))
            for c in (48, 64)
        )
        self.scores = nn.ModuleList(
            nn.Sequential(conv(c, 24), conv(24, 24), nn.Conv2d(24, self.CLASSES, 1))
            for c in (48, 64)
        )
        self.dfl = nn.Conv2d(self.BINS, 1, 1, bias=False)
        places = [
            (i + 0.5, j + 0.5, s) for s in (8, 16) for i in range(64 // s) for j in range(64 // s)
        ]
        self.register_buffer("anchors", torch.tensor([(j, i) for i, j, _ in places]).T[None])
        self.register_buffer("strides", torch.tensor([float(s) for _, _, s in places])[None, None])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        four = self.p4(x)
        five = self.p5(four)
        n4 = self.up(torch.cat([F.interpolate(five, scale_factor=2.0), four], 1))
        n5 = self.deep(torch.cat([self.down(n4), five], 1))
        maps = [
            torch.cat([box(f), score(f)], 1)
            for f, box, score in zip((n4, n5), self.boxes, self.scores, strict=True)
        ]
        both = torch.cat([m.flatten(2) for m in maps], 2)
        box, score = both.split((4 * self.BINS, self.CLASSES), 1)
        n, _, a = box.shape
        spread = box.view(n, 4, self.BINS, a).transpose(2, 1).softmax(1)
        left, right = self.dfl(spread).view(n, 4, a).chunk(2, 1)
        low, high = self.anchors - left, self.anchors + right
        decoded = torch.cat([(low + high) / 2, high - low], 1) * self.strides
        return torch.cat([decoded, score.sigmoid()], 1)


class Focus(nn.Module):
    """YOLOX's stem: four strided slices, concatenated; YOLOv5's C3 blocks behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = conv(12, 24)
        self.left, self.right = conv(24, 12, 1), conv(24, 12, 1)
        self.block = nn.Sequential(conv(12, 12, 1), conv(12, 12))
        self.merge, self.sppf, self.head = conv(24, 32, 1), SPPF(32), head(32)

    def forward(self, x: Tensor) -> Tensor:
        parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        x = self.enter(torch.cat(parts, 1))
        left = self.left(x)
        x = self.merge(torch.cat([left + self.block(left), self.right(x)], 1))
        return self.head(self.sppf(x))


class Aspp(nn.Module):
    """DeepLab: atrous branches beside a pooled one, upsampled to the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.low = conv(3, 16, 3, 2), conv(16, 8, 1)
        self.deep = nn.Sequential(conv(16, 32, 3, 2), conv(32, 48))
        self.rates = nn.ModuleList(
            nn.Sequential(nn.Conv2d(48, 16, 3, padding=d, dilation=d), nn.ReLU()) for d in (1, 2, 4)
        )
        self.one = conv(48, 16, 1)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(48, 16, 1), nn.ReLU())
        self.project, self.last = conv(80, 24, 1), conv(32, 24)
        self.out = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        size, x = x.shape[2:], self.stem(x)
        low, x = self.low(x), self.deep(x)
        pooled = F.interpolate(self.pooled(x), size=x.shape[2:], mode="bilinear")
        x = self.project(torch.cat([self.one(x), *(r(x) for r in self.rates), pooled], 1))
        x = F.interpolate(x, size=low.shape[2:], mode="bilinear")
        x = self.out(self.last(torch.cat([x, low], 1)))
        return F.interpolate(x, size=size, mode="bilinear")


class Espcn(nn.Module):
    """Super-resolution: DepthToSpace twice, between convolutions and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.body = conv(3, 24), nn.Sequential(conv(24, 24), conv(24, 24))
        self.wide, self.last = nn.Conv2d(24, 64, 3, padding=1), conv(16, 12)
        self.out, self.shuffle = nn.Conv2d(12, 12, 3, padding=1), nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + self.body(x)
        return self.shuffle(self.out(self.last(self.shuffle(self.wide(x)))))


class Grn(nn.Module):
    """ConvNeXt V2's block with its response normalisation written out."""

    def __init__(self, c: int):
        super().__init__()
        self.depth, self.norm = nn.Conv2d(c, c, 7, padding=3, groups=c), nn.LayerNorm(c)
        self.wide, self.back = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)
        self.gamma = nn.Parameter(torch.randn(4 * c))
        self.beta = nn.Parameter(torch.randn(4 * c))

    def forward(self, x: Tensor) -> Tensor:
        y = F.gelu(self.wide(self.norm(self.depth(x).permute(0, 2, 3, 1))))
        size = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        return x + self.back(y).permute(0, 3, 1, 2)


def convnext_v2_small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), Grn(16), nn.Conv2d(16, 32, 2, 2), Grn(32), head(32)
    )


class OptionA(nn.Module):
    """The CIFAR ResNet whose shortcuts are strided and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16)
        self.a = nn.Sequential(conv(16, 32, 3, 2), nn.Conv2d(32, 32, 3, padding=1))
        self.b = nn.Sequential(conv(32, 32), nn.Conv2d(32, 32, 3, padding=1))
        self.head = head(32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)) + self.a(x))
        return self.head(F.relu(x + self.b(x)))


class Raft(nn.Module):
    """RAFT in small: feature maps, all-pairs correlation, a convolutional GRU unrolled twice."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 24, 3, 2), conv(24, 32, 3, 2), nn.Conv2d(32, 32, 1))
        self.context = nn.Sequential(conv(3, 24, 3, 2), conv(24, 32, 3, 2), nn.Conv2d(32, 48, 1))
        self.motion = conv(66, 24, 3)
        self.z, self.r, self.q = (nn.Conv2d(24 + 24 + 24, 24, 3, padding=1) for _ in range(3))
        self.flow = nn.Sequential(conv(24, 16), nn.Conv2d(16, 2, 3, padding=1))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        a, b = self.features(first), self.features(second)
        n, c, h, w = a.shape
        pairs = torch.matmul(a.flatten(2).transpose(1, 2), b.flatten(2)) / c**0.5
        pairs = pairs.transpose(1, 2).reshape(n, h * w, h, w)
        state, inputs = self.context(first).split(24, 1)
        state, inputs = torch.tanh(state), torch.relu(inputs)
        flow = pairs[:, :2] * 0
        for _ in range(2):
            x = torch.cat([inputs, self.motion(torch.cat([pairs, flow], 1))], 1)
            both = torch.cat([state, x], 1)
            z, r = torch.sigmoid(self.z(both)), torch.sigmoid(self.r(both))
            q = torch.tanh(self.q(torch.cat([r * state, x], 1)))
            state = (1 - z) * state + z * q
            flow = flow + self.flow(state)
        return flow


class Fpn(nn.Module):
    """RetinaNet in small: lateral sums, one head shared by all levels."""

    def __init__(self) -> None:
        super().__init__()
        self.c3, self.c4 = nn.Sequential(conv(3, 16, 3, 2), conv(16, 24, 3, 2)), conv(24, 48, 3, 2)
        self.l3, self.l4 = nn.Conv2d(24, 32, 1), nn.Conv2d(48, 32, 1)
        self.head = nn.Sequential(conv(32, 32), nn.Conv2d(32, 3 * 5, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        c3 = self.c3(x)
        c4 = self.l4(self.c4(c3))
        p3 = self.l3(c3) + F.interpolate(c4, size=c3.shape[2:], mode="nearest")
        found = []
        for level in (p3, c4):
            y = self.head(level)
            n, _, h, w = y.shape
            found.append(y.view(n, 3, 5, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, 5))
        return torch.cat(found, 1)


class Sd(nn.Module):
    """A diffusion U-Net's blocks: GroupNorm, SiLU, attention over places, skips."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(4, 32, 3, padding=1)
        self.norm1, self.conv1 = nn.GroupNorm(8, 32), nn.Conv2d(32, 48, 3, padding=1)
        self.norm2, self.qkv = nn.GroupNorm(8, 48), nn.Conv2d(48, 144, 1)
        self.proj, self.norm3 = nn.Conv2d(48, 48, 1), nn.GroupNorm(16, 80)
        self.out = nn.Conv2d(80, 4, 3, padding=1)
        self.time = nn.Linear(16, 48)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        skip = self.enter(x)
        x = self.conv1(F.silu(self.norm1(skip))) + self.time(F.silu(time))[:, :, None, None]
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm2(x)).view(n, 3, c, h * w).unbind(1)
        weights = (q.transpose(1, 2) @ k / c**0.5).softmax(-1)
        x = x + self.proj((v @ weights.transpose(1, 2)).view(n, c, h, w))
        return self.out(F.silu(self.norm3(torch.cat([x, skip], 1))))


class Hourglass(nn.Module):
    """Pose: two stacked hourglasses with heatmaps fed back; an inner value is an output."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, 24, 3, 2))
        self.inner = nn.ModuleList(nn.Sequential(conv(24, 32), conv(32, 24)) for _ in range(2))
        self.maps = nn.ModuleList(nn.Conv2d(24, 5, 1) for _ in range(2))
        self.back = nn.Conv2d(5, 24, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, found = self.stem(x), []
        for inner, maps in zip(self.inner, self.maps, strict=True):
            y = x + F.interpolate(inner(F.max_pool2d(x, 2)), scale_factor=2.0)
            found.append(maps(y))
            x = x + self.back(found[-1])
        return found[0], found[1]


class ArcFace(nn.Module):
    """A face network: scaled residuals, PReLU, and cosine scores against normalised weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.PReLU(24))
        self.block = nn.Sequential(nn.Conv2d(24, 16, 1), nn.PReLU(1), nn.Conv2d(16, 24, 1))
        self.embed = nn.Sequential(nn.Flatten(), nn.Linear(24 * 64, 32), nn.BatchNorm1d(32))
        self.weight = nn.Parameter(torch.randn(LABELS, 32))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.embed(x + 0.17 * self.block(x))
        return F.linear(F.normalize(x), F.normalize(self.weight)) * 16


class TwoStream(nn.Module):
    """Video: 3d convolutions, and 1d ones over what they pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU(), nn.MaxPool3d(2)
        )
        self.deep = nn.Sequential(nn.Conv3d(16, 24, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU())
        self.time, self.out = nn.Conv1d(24, 32, 3, padding=1), nn.Linear(32, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.deep(self.body(x)).mean((3, 4))
        return self.out(F.relu(self.time(x)).amax(2))
