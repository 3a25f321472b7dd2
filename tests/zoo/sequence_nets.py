"""Networks of sequences written out in torch: recurrent, attending and scanning ones, small."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LABELS, FEATURES = 10, 20


class DeepSpeech(nn.Module):
    """Speech: convolutions over a spectrogram, stacked bidirectional LSTMs, scores per step."""

    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 8, 3, (2, 1), 1), nn.BatchNorm2d(8), nn.Hardtanh(0, 20)
        )
        self.rnn = kind(8 * FEATURES // 2, 24, 2, batch_first=True, bidirectional=True)
        self.norm, self.out = nn.LayerNorm(48), nn.Linear(48, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x[:, None]).flatten(1, 2).transpose(1, 2)
        return self.out(self.norm(self.rnn(x)[0])).log_softmax(-1)


class Crnn(nn.Module):
    """Text recognition: a convolutional stack flattened into a GRU, time first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(),
            nn.MaxPool2d((2, 1)), nn.Conv2d(24, 32, (4, 1)),
        )  # fmt: skip
        self.rnn, self.out = nn.GRU(32, 20, bidirectional=True), nn.Linear(40, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).squeeze(2).permute(2, 0, 1)
        return self.out(self.rnn(x)[0]).permute(1, 0, 2)


class LastState(nn.Module):
    """Classification by the last hidden state, and an Elman net behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(FEATURES, 24, batch_first=True)
        self.rnn, self.out = nn.RNN(24, 16, batch_first=True), nn.Linear(40, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x, (h, _) = self.lstm(x)
        return self.out(torch.cat([h[-1], self.rnn(x)[0][:, -1]], 1))


class Tacotron(nn.Module):
    """A recurrent encoder with convolutions, and a decoder that attends to it; cells unrolled."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv1d(FEATURES, 24, 5, padding=2), nn.BatchNorm1d(24), nn.ReLU()
        )
        self.rnn = nn.LSTM(24, 16, batch_first=True, bidirectional=True)
        self.cell = nn.GRUCell(32, 28)
        self.query, self.key, self.score = nn.Linear(28, 20), nn.Linear(32, 20), nn.Linear(20, 1)
        self.out = nn.Linear(60, FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        memory = self.rnn(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]
        context = memory.mean(1)
        state = torch.tanh(self.query.weight.sum(0))[None].expand(x.shape[0], -1)
        key, found = self.key(memory), []
        for _ in range(3):
            state = self.cell(context, state)
            weights = self.score(torch.tanh(key + self.query(state)[:, None])).softmax(1)
            context = (weights * memory).sum(1)
            found.append(self.out(torch.cat([state, context], 1)))
        return torch.stack(found, 1)


class Tcn(nn.Module):
    """WaveNet: dilated causal convolutions with gates, residual and skip sums."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(FEATURES, 24, 1)
        self.gates = nn.ModuleList(nn.Conv1d(24, 48, 2, dilation=d) for d in (1, 2, 4))
        self.stay = nn.ModuleList(nn.Conv1d(24, 24, 1) for _ in range(3))
        self.skip = nn.ModuleList(nn.Conv1d(24, 32, 1) for _ in range(3))
        self.out = nn.Sequential(
            nn.ReLU(), nn.Conv1d(32, 20, 1), nn.ReLU(), nn.Conv1d(20, LABELS, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.enter(x.transpose(1, 2)), 0
        for d, gate, stay, skip in zip((1, 2, 4), self.gates, self.stay, self.skip, strict=True):
            a, b = gate(F.pad(x, (d, 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            total, x = total + skip(y), x + stay(y)
        return self.out(total)


class Mamba(nn.Module):
    """A selective state space layer with its scan written out step by step."""

    def __init__(self, c: int = 24, state: int = 6, steps: int = 8):
        super().__init__()
        self.inner, self.state, self.rank = 2 * c, state, 3
        self.norm, self.enter = nn.LayerNorm(c), nn.Linear(c, 4 * c, bias=False)
        self.conv = nn.Conv1d(2 * c, 2 * c, 4, padding=3, groups=2 * c)
        self.select = nn.Linear(2 * c, self.rank + 2 * state, bias=False)
        self.step, self.leave = nn.Linear(self.rank, 2 * c), nn.Linear(2 * c, c, bias=False)
        self.decay = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(2 * c, 1))
        self.through = nn.Parameter(torch.ones(2 * c))
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        y, gate = self.enter(self.norm(x)).chunk(2, -1)
        y = F.silu(self.conv(y.transpose(1, 2))[..., : self.steps].transpose(1, 2))
        step, write, read = self.select(y).split((self.rank, self.state, self.state), -1)
        step = F.softplus(self.step(step))
        decay = torch.exp(-step[..., None] * torch.exp(self.decay))
        drive = step[..., None] * write[:, :, None] * y[..., None]
        state, found = torch.zeros_like(drive[:, 0]), []
        for t in range(self.steps):
            state = decay[:, t] * state + drive[:, t]
            found.append((state * read[:, t, None]).sum(-1))
        y = torch.stack(found, 1) + y * self.through
        return x + self.leave(y * F.silu(gate))


def mamba() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 24), Mamba(), Mamba(), nn.LayerNorm(24), nn.Linear(24, LABELS)
    )


class Experts(nn.Module):
    """Mixtral's experts, all of them run and mixed by the router's two largest scores."""

    def __init__(self, c: int = 32, inner: int = 48, experts: int = 4):
        super().__init__()
        self.enter, self.out = nn.Linear(FEATURES, c), nn.Linear(c, LABELS)
        self.router = nn.Linear(c, experts, bias=False)
        self.gate, self.up = (
            nn.ModuleList(nn.Linear(c, inner) for _ in range(experts)) for _ in "gu"
        )
        self.down = nn.ModuleList(nn.Linear(inner, c) for _ in range(experts))
        self.experts = experts

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        values, index = self.router(x).softmax(-1).topk(2, -1)
        mix = torch.zeros(*x.shape[:-1], self.experts).scatter(-1, index, values)
        parts = [
            mix[..., i : i + 1] * self.down[i](F.silu(self.gate[i](x)) * self.up[i](x))
            for i in range(self.experts)
        ]
        return self.out(x + torch.stack(parts).sum(0))


class Fused(nn.Module):
    """Encoder and decoder of torch's own transformer layers: DETR's queries on image features."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1)
        )
        encoder = nn.TransformerEncoderLayer(32, 4, 48, 0.0, batch_first=True)
        decoder = nn.TransformerDecoderLayer(32, 4, 56, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(encoder, 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(decoder, 2)
        self.queries = nn.Parameter(torch.randn(6, 32))
        self.places = nn.Parameter(torch.randn(64, 32))
        self.classes, self.boxes = (
            nn.Linear(32, 5),
            nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 4)),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.encoder(self.backbone(x).flatten(2).transpose(1, 2) + self.places)
        found = self.decoder(self.queries.expand(x.shape[0], -1, -1), memory)
        return self.classes(found), self.boxes(found).sigmoid()


class Conformer(nn.Module):
    """Speech: half feed-forwards, relative-free attention, gated depthwise convolution."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.enter = nn.Linear(FEATURES, c)
        self.ff1, self.ff2 = (
            nn.Sequential(nn.LayerNorm(c), nn.Linear(c, 2 * c), nn.SiLU(), nn.Linear(2 * c, c))
            for _ in "ab"
        )
        self.norm, self.qkv, self.proj = nn.LayerNorm(c), nn.Linear(c, 3 * c), nn.Linear(c, c)
        self.conv_norm, self.wide = nn.LayerNorm(c), nn.Conv1d(c, 2 * c, 1)
        self.depth = nn.Conv1d(c, c, 5, padding=2, groups=c)
        self.batch, self.narrow = nn.BatchNorm1d(c), nn.Conv1d(c, c, 1)
        self.out = nn.Linear(c, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = x + 0.5 * self.ff1(x)
        n, t, c = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, 4, c // 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, c)
        x = x + self.proj(y)
        y = F.glu(self.wide(self.conv_norm(x).transpose(1, 2)), 1)
        x = x + self.narrow(F.silu(self.batch(self.depth(y)))).transpose(1, 2)
        return self.out(x + 0.5 * self.ff2(x))


class Recommender(nn.Module):
    """Tabular: a deep and a cross branch, pairwise products, one score."""

    def __init__(self) -> None:
        super().__init__()
        self.deep = nn.Sequential(nn.Linear(FEATURES, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU())
        self.cross = nn.ModuleList(nn.Linear(FEATURES, FEATURES) for _ in range(2))
        self.out = nn.Linear(32 + FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self.cross:
            y = x * layer(y) + y
        return torch.sigmoid(self.out(torch.cat([self.deep(x), y], 1)))


class Vae(nn.Module):
    """An autoencoder with mean and variance heads; the mean is decoded."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(FEATURES, 40), nn.ELU(), nn.Linear(40, 24), nn.ELU())
        self.mean, self.spread = nn.Linear(24, 8), nn.Linear(24, 8)
        self.back = nn.Sequential(nn.Linear(8, 36), nn.LeakyReLU(), nn.Linear(36, FEATURES))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.enter(x)
        mean = self.mean(x)
        return self.back(mean), mean + torch.exp(self.spread(x))


class GraphNet(nn.Module):
    """Graph convolutions with the adjacency as an input, and attention over neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(FEATURES, 32), nn.Linear(32, 24)
        self.left, self.right, self.out = nn.Linear(24, 1), nn.Linear(24, 1), nn.Linear(24, LABELS)

    def forward(self, x: Tensor, near: Tensor) -> Tensor:
        x = F.relu(near.abs() @ self.first(x))
        x = self.second(x)
        weights = F.leaky_relu(self.left(x) + self.right(x).transpose(1, 2)).softmax(-1)
        return self.out(F.elu(weights @ x))


class PointNet(nn.Module):
    """Points: shared layers, a maximum over points, the whole beside each point."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(nn.Conv1d(3, 24, 1), nn.BatchNorm1d(24), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv1d(24, 48, 1), nn.ReLU())
        self.out = nn.Sequential(nn.Conv1d(72, 32, 1), nn.ReLU(), nn.Conv1d(32, LABELS, 1))

    def forward(self, x: Tensor) -> Tensor:
        local = self.local(x)
        whole = self.wide(local).amax(2, keepdim=True).expand(-1, -1, x.shape[2])
        return self.out(torch.cat([local, whole], 1))


class Linear(nn.Module):
    """Linear attention: keys and values are summed first, features by ELU."""

    def __init__(self, c: int = 32):
        super().__init__()
        self.enter, self.out = nn.Linear(FEATURES, c), nn.Linear(c, LABELS)
        self.q, self.k, self.v = (nn.Linear(c, c) for _ in "qkv")

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        n, t, c = x.shape
        q, k, v = (f(x).view(n, t, 4, c // 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = F.elu(q) + 1, F.elu(k) + 1
        y = q @ (k.transpose(2, 3) @ v) / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)
        return self.out(x + y.transpose(1, 2).reshape(n, t, c) / math.sqrt(c))
