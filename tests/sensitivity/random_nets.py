"""Random networks of convolutions, adds, concats, pools, linear layers and recurrent ones."""

import numpy as np
import onnx

from tests.nets import IMAGES, Net


class _Maker:
    """Grows a network from its input, one random piece at a time."""

    def __init__(self, seed: int) -> None:
        self.rng, self.net = np.random.default_rng(seed), Net(1000 + seed)
        self.y, self.size = "x", 3

    def pick(self, *choices: object) -> object:
        return choices[int(self.rng.integers(len(choices)))]

    def bend(self, x: str) -> str:
        """Bend, with something that is silent at times more often than not."""
        op = self.pick("Relu", "Relu", "Clip", "Tanh", "HardSwish", "Identity")
        if op == "Clip":
            limits = self.net.const(np.float32(0)), self.net.const(np.float32(1.5))
            return self.net.op("Clip", x, *limits)
        return self.net.op(str(op), x)

    def layer(self, x: str, size: int, width: int) -> str:
        """Convolve and bend; biases well below zero silence some channels on some samples."""
        y = self.net.conv(x, size, width, int(self.rng.choice([1, 3])))
        shift = self.net.const(self.rng.normal(-1, 1, (width, 1, 1)).astype(np.float32))
        return self.bend(self.net.op("Add", y, shift))

    def conv(self) -> None:
        width = int(self.rng.integers(3, 7))
        self.y, self.size = self.layer(self.y, self.size, width), width

    def depthwise(self) -> None:
        wide = 2 * self.size
        y = self.layer(self.y, self.size, wide)
        y = self.bend(self.net.conv(y, wide, wide, group=wide))
        self.y = self.net.conv(y, wide, self.size, 1)

    def residual(self) -> None:
        width = int(self.rng.integers(3, 7))
        inner = self.layer(self.y, self.size, width)
        self.y = self.net.op("Add", self.y, self.net.conv(inner, width, self.size))

    def concat(self) -> None:
        widths = self.rng.integers(2, 5, 2).tolist()
        parts = [self.layer(self.y, self.size, width) for width in widths]
        self.y, self.size = self.net.op("Concat", *parts, axis=1), sum(widths)

    def pool(self) -> None:
        op = str(self.pick("MaxPool", "AveragePool"))
        self.y = self.net.op(op, self.y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def gate(self) -> None:
        """Squeeze and excite."""
        seen = self.net.op("GlobalAveragePool", self.y)
        seen = self.layer(seen, self.size, 3)
        weights = self.net.op("Sigmoid", self.net.conv(seen, 3, self.size, 1))
        self.y = self.net.op("Mul", self.y, weights)

    def flat(self) -> str:
        """End in linear layers, over all pixels or their mean."""
        if self.rng.random() < 0.5:
            self.y = self.net.op("GlobalAveragePool", self.y)
        else:
            self.size *= 36
        y = self.net.op("Flatten", self.y)
        y = self.bend(self.net.op("Gemm", y, self.net.weight(self.size, 6), self.net.weight(6)))
        return self.net.op("Gemm", y, self.net.weight(3, 6), transB=1, alpha=0.5)

    def recurrent(self) -> str:
        """End in an LSTM over the pixels, and a linear layer on its last state."""
        rows = self.net.op("Reshape", self.y, self.net.const(np.array([0, 0, 36], np.int64)))
        steps = self.net.op("Transpose", rows, perm=[2, 0, 1])
        weights = self.net.weight(1, 20, self.size), self.net.weight(1, 20, 5)
        _, last, _ = self.net.ops(3, "LSTM", steps, *weights, hidden_size=5)
        state = self.net.op("Squeeze", last, self.net.const(np.array([0], np.int64)))
        return self.net.linear(state, 5, 3)


def random_net(seed: int) -> onnx.ModelProto:
    """Make a network of two to five pieces and an end.

    Parameters
    ----------
    seed : int

    Returns
    -------
    ModelProto
    """
    maker = _Maker(seed)
    maker.conv()
    pieces = [maker.conv, maker.depthwise, maker.residual, maker.concat, maker.pool, maker.gate]
    for number in maker.rng.integers(len(pieces), size=int(maker.rng.integers(1, 5))).tolist():
        pieces[number]()
    end = maker.recurrent if maker.rng.random() < 0.3 else maker.flat
    return maker.net.model(IMAGES, end())
