"""Paddle networks by paddle2onnx; needs paddlepaddle, paddle2onnx, onnx<=1.17 and setuptools<81.

    python tests/zoo/paddle_nets.py [FOLDER] [--only NAME]

paddle2onnx pins an older onnx, so this wants an environment of its own (with onnxruntime).
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import paddle
import paddle2onnx
from paddle import nn
from paddle.nn import functional as F
from saving import Exported, Job, normal, run

LABELS = 10


def norm(cin: int, cout: int, k: int = 3, s: int = 1, g: int = 1) -> nn.Layer:
    return nn.Sequential(
        nn.Conv2D(cin, cout, k, s, k // 2, groups=g), nn.BatchNorm2D(cout), nn.Hardswish()
    )


class Lcnet(nn.Layer):
    """Depthwise separable with squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.d, self.p = norm(3, 16, 3, 2), norm(16, 16, 3, 1, 16), norm(16, 32, 1)
        self.s1, self.s2, self.out = nn.Conv2D(32, 8, 1), nn.Conv2D(8, 32, 1), nn.Linear(32, LABELS)

    def forward(self, x):
        x = self.p(self.d(self.a(x)))
        x = x * F.hardsigmoid(self.s2(F.relu(self.s1(F.adaptive_avg_pool2d(x, 1)))))
        return self.out(paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Resnet(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = norm(3, 16), norm(16, 24), nn.Conv2D(24, 16, 3, padding=1)
        self.out = nn.Linear(16, LABELS)

    def forward(self, x):
        x = self.a(x)
        x = F.relu(x + self.c(self.b(x)))
        return self.out(x.mean([2, 3]))


class Pan(nn.Layer):
    """PP-YOLO's neck: upsampling, concatenation, split CSP branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = norm(3, 16, 3, 2), norm(16, 24, 3, 2)
        self.l, self.r, self.m = norm(40, 16, 1), norm(40, 16, 1), norm(16, 16)
        self.out = nn.Conv2D(32, 7, 1)

    def forward(self, x):
        a = self.a(x)
        x = paddle.concat([F.interpolate(self.b(a), size=[16, 16]), a], 1)
        return F.sigmoid(self.out(paddle.concat([self.m(self.l(x)), self.r(x)], 1)))


class Attention(nn.Layer):
    """Paddle's own encoder layer."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.out = nn.Linear(12, 32), nn.Linear(32, LABELS)
        self.layer = nn.TransformerEncoderLayer(32, 4, 48, 0.0)

    def forward(self, x):
        return self.out(self.layer(self.enter(x)).mean(1))


class Ocr(nn.Layer):
    """PP-OCR's recogniser: convolutions and a bidirectional LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = norm(3, 16, 3, (2, 1)), norm(16, 24, 3, (2, 1))
        self.rnn = nn.LSTM(24, 16, direction="bidirect")
        self.out = nn.Linear(32, LABELS)

    def forward(self, x):
        x = self.b(self.a(x)).mean(2).transpose([0, 2, 1])
        return F.softmax(self.out(self.rnn(x)[0]))


class Mlp(nn.Layer):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(20, 48),
            nn.ReLU(),
            nn.LayerNorm(48),
            nn.Linear(48, 32),
            nn.GELU(),
            nn.Linear(32, LABELS),
        )

    def forward(self, x):
        return self.net(x)


NETS: dict[str, tuple[Callable[[], nn.Layer], tuple[int, ...]]] = {
    "p_lcnet": (Lcnet, (3, 32, 32)),
    "p_resnet": (Resnet, (3, 16, 16)),
    "p_pan": (Pan, (3, 32, 32)),
    "p_encoder": (Attention, (8, 12)),
    "p_ocr": (Ocr, (3, 8, 16)),
    "p_mlp": (Mlp, (20,)),
}


def export(name: str, build: Callable[[], nn.Layer], shape: tuple[int, ...]) -> Exported:
    paddle.seed(0)
    module = build()
    module.eval()
    rng = np.random.default_rng(0)
    tensors = (*module.parameters(), *(b for _, b in module.named_buffers() if b.ndim))
    for tensor in tensors:
        noise = np.abs(rng.standard_normal(tensor.shape)) * 0.1
        tensor.set_value(tensor.numpy() + noise.astype("float32"))
    data = normal(name, 2, *shape)
    expected = [module(paddle.to_tensor(data)).numpy()]
    spec = paddle.static.InputSpec([None, *shape], "float32", "x")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        paddle.jit.save(module, str(path), [spec])
        files = [str(path.with_suffix(end)) for end in (".json", ".pdiparams", ".onnx")]
        paddle2onnx.export(*files, opset_version=15, enable_onnx_checker=True)
        model = onnx.load(files[-1])
    return Exported(model, {model.graph.input[0].name: data}, expected)


def every() -> Iterator[Job]:
    for name, (build, shape) in NETS.items():
        yield name, "paddle", partial(export, name, build, shape)


if __name__ == "__main__":
    run(every(), __doc__)
