"""How long coupling takes: all groups of a network found, by its number of nodes.

    python tests/benchmarks/coupling_speed.py [MODEL.onnx ...]

Without models: chains of residual, grouped and attention blocks of about 500 and 5,000 nodes.
Prints process CPU seconds (median of three) of what follows the traced run.
"""

import platform
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from onnxprune.analysis import analyse
from onnxprune.coupling import couple
from onnxprune.model.view import View, build_view
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.runtime.trace import Trace, trace
from tests.coupling.nets import Net, feeds

_WIDTH, _HEADS = 64, 4


def convolutions(nodes: int) -> onnx.ModelProto:
    """Residual blocks with grouped convolutions and squeeze-and-excitation."""
    net = Net()
    x = net.conv(net.input("n", 3, 6, 6), 3, _WIDTH, 3)
    while len(net.nodes) < nodes:
        y = net.op("Relu", net.batch_norm(net.conv(x, _WIDTH, 2 * _WIDTH), 2 * _WIDTH))
        y = net.op("Relu", net.conv(y, 2 * _WIDTH, 2 * _WIDTH, 3, group=8))
        s = net.op("GlobalAveragePool", y)
        s = net.op("Sigmoid", net.conv(net.conv(s, 2 * _WIDTH, 8), 8, 2 * _WIDTH))
        x = net.op("Add", x, net.conv(net.op("Mul", y, s), 2 * _WIDTH, _WIDTH))
    net.output(net.conv(x, _WIDTH, 4))
    return net.model()


def attention(nodes: int) -> onnx.ModelProto:
    """Transformer blocks with their shapes computed in the graph."""
    net = Net()
    x = net.linear(net.input("n", "t", 8), 8, _WIDTH)

    def heads(y: str) -> str:
        sizes = [net.op("Slice", net.op("Shape", y), net.constant([i]), net.constant([i + 1]))
                 for i in (0, 1)]  # fmt: skip
        shape = net.op("Concat", *sizes, net.constant([_HEADS, _WIDTH // _HEADS]), axis=0)
        return net.op("Transpose", net.op("Reshape", y, shape), perm=[0, 2, 1, 3])

    while len(net.nodes) < nodes:
        y = net.op("LayerNormalization", x, net.weight(_WIDTH), net.weight(_WIDTH), axis=-1)
        q, k, v = (heads(net.linear(y, _WIDTH, _WIDTH)) for _ in range(3))
        scores = net.op("MatMul", q, net.op("Transpose", k, perm=[0, 1, 3, 2]))
        y = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
        y = net.reshape(net.op("Transpose", y, perm=[0, 2, 1, 3]), 0, -1, _WIDTH)
        x = net.op("Add", x, net.linear(y, _WIDTH, _WIDTH))
        y = net.op("Relu", net.linear(x, _WIDTH, 2 * _WIDTH))
        x = net.op("Add", x, net.linear(y, 2 * _WIDTH, _WIDTH))
    net.output(net.linear(x, _WIDTH, 4))
    return net.model()


def main(paths: list[str]) -> None:
    """Time the given models, or the chains."""
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"{'network':32} nodes groups seconds")
    for path in map(Path, paths):
        found = analyse(path, Options(), Silent())
        report(path.stem, found.view, found.traces[0])
    for make in () if paths else (convolutions, attention):
        for nodes in (500, 5000):
            model = make(nodes)
            view = build_view(model, Path())
            report(make.__name__, view, trace(view, feeds(model)[0]))


def report(name: str, view: View, seen: Trace) -> None:
    """Couple three times."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        coupling = couple(view, seen)
        seconds.append(time.process_time() - start)
    nodes = len(view.nodes)
    print(f"{name:32} {nodes:5} {len(coupling.groups):6} {median(seconds):7.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
