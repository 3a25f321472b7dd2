"""Networks with control flow as torch writes them: by TorchScript, and by dynamo."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop


class Cell(nn.Module):
    """An Elman cell written by hand, so that no exporter sees an RNN in it."""

    def __init__(self) -> None:
        super().__init__()
        self.u, self.v = nn.Linear(12, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.u(x) + self.v(h))


class Unrolled(nn.Module):
    """A for loop over time: TorchScript makes it a Loop."""

    def __init__(self) -> None:
        super().__init__()
        self.inn, self.cell, self.out = nn.Linear(8, 12), Cell(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inn(x))
        h = torch.zeros(x.shape[0], 16)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.out(h)


class Voice(nn.Module):
    """A voice detector in small: one encoder per sampling rate in an If, an LSTM behind them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = (
            nn.Sequential(
                nn.Conv1d(1, 12, k, stride=k // 2, padding=k // 2),
                nn.ReLU(),
                nn.Conv1d(12, 16, 3, padding=1),
                nn.ReLU(),
            )
            for k in (16, 8)
        )
        self.lstm, self.out = nn.LSTM(16, 12, batch_first=True), nn.Linear(12, 1)

    def forward(self, x: Tensor, rate: int, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = x.unsqueeze(1)
        y = self.wide(x) if rate == 16000 else self.narrow(x)
        y, (h, c) = self.lstm(y.transpose(1, 2), (h, c))
        return torch.sigmoid(self.out(torch.relu(y)).mean(1)), h, c


class Cond(nn.Module):
    """A torch.cond on the data, with a layer in either branch."""

    def __init__(self) -> None:
        super().__init__()
        self.inn, self.out = nn.Linear(8, 12), nn.Linear(16, 4)
        self.a, self.b = nn.Linear(12, 16), nn.Linear(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inn(x))

        def positive(x: Tensor) -> Tensor:
            return torch.relu(self.a(x))

        def negative(x: Tensor) -> Tensor:
            return torch.sigmoid(self.b(x))

        return self.out(torch.cond(x.sum() > 20, positive, negative, (x,)))


class While(nn.Module):
    """A while_loop that counts to five."""

    def __init__(self) -> None:
        super().__init__()
        self.inn, self.v, self.out = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        def step(i: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return i + 1, torch.tanh(self.v(h))

        start = (torch.tensor(0), torch.relu(self.inn(x)))
        return self.out(while_loop(lambda i, _: i < 5, step, start)[1])


class Scanned(nn.Module):
    """A scan over time that gives out every state."""

    def __init__(self) -> None:
        super().__init__()
        self.inn, self.cell, self.out = nn.Linear(8, 12), Cell(), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        def step(h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.cell(x, h)
            return h, h.clone()

        x = torch.relu(self.inn(x))
        return self.out(scan(step, torch.zeros(x.shape[1], 16), x, dim=0)[1])


def _script(make: Callable[[], nn.Module], path: str, inputs: dict[str, Tensor], **more) -> None:
    torch.manual_seed(0)
    torch.onnx.export(
        torch.jit.script(make().eval()),
        tuple(inputs.values()),
        path,
        input_names=list(inputs),
        dynamo=False,
        **more,
    )


def _dynamo(make: Callable[[], nn.Module], path: str, x: Tensor) -> None:
    torch.manual_seed(0)
    torch.onnx.export(make().eval(), (x,), path, dynamo=True, external_data=False, verbose=False)


def export(folder: str) -> None:
    """Write all networks of this file."""
    x = torch.randn(2, 6, 8)
    axes = {"x": {0: "n", 1: "t"}}
    _script(Unrolled, f"{folder}/torchscript_loop.onnx", {"x": x}, dynamic_axes=axes)
    state = torch.zeros(1, 2, 12)
    feed = {"x": torch.randn(2, 256), "rate": torch.tensor(16000), "h": state, "c": state}
    axes = {"x": {0: "n"}, "h": {1: "n"}, "c": {1: "n"}}
    _script(Voice, f"{folder}/torchscript_voice.onnx", feed, dynamic_axes=axes)
    _dynamo(Cond, f"{folder}/dynamo_cond.onnx", torch.randn(2, 8))
    _dynamo(While, f"{folder}/dynamo_while.onnx", torch.randn(2, 8))
    _dynamo(Scanned, f"{folder}/dynamo_scan.onnx", torch.randn(6, 2, 8))
