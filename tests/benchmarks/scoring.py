"""What a result lost on the scoring samples, which nothing was measured, fitted or chosen on."""

import resource
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from shared_data import Inputs, Network

from onnxprune.model.cost import CostModel
from onnxprune.model.view import build_view
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import trace

_BATCH = 50
Right = NDArray[np.bool_]


def outputs(path: Path, inputs: Inputs) -> list[list[np.ndarray]]:
    """Return all outputs, batch by batch."""
    session = Session(path)
    info = session.inputs[0]
    size = info.shape[0] if isinstance(info.shape[0], int) else _BATCH
    found = []
    for start in range(0, len(inputs), size):
        found.append(list(session.run({info.name: inputs[start : start + size]}).values()))
    return found


def classes(found: list[list[np.ndarray]]) -> NDArray[np.int64]:
    """Return the top class of the last float output."""
    scores = [next(a for a in reversed(batch) if a.dtype.kind == "f") for batch in found]
    return np.concatenate([s.argmax(axis=-1) for s in scores])


@cache
def original(network: Network) -> list[list[np.ndarray]]:
    """Return the outputs of the network itself on the scoring samples."""
    return outputs(network.path, network.score()[0])


def right(network: Network, target: Path) -> Right:
    """Say which of the labelled samples a model gets right."""
    inputs, labels = network.score()
    return classes(outputs(target, inputs)) == labels


def points(before: Right, after: Right) -> str:
    """Format the paired difference of two accuracies with its 95 % interval."""
    gap = after.astype(float) - before
    half = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
    return f"{gap.mean() * 100:+.1f} +- {half * 100:.1f} points"


def score(network: Network, target: Path) -> str:
    """Say what the result lost: accuracy, or each output's relative L2 if nothing is labelled."""
    inputs, labels = network.score()
    before, after = original(network), outputs(target, inputs)
    if labels is None:
        change = [
            np.sqrt(
                sum(((b[k] - a[k]) ** 2).sum() for a, b in zip(before, after, strict=True))
                / sum((a[k] ** 2).sum() for a in before)
            )
            for k in range(len(before[0]))
        ]
        return "relative L2 " + ", ".join(f"{c:.4f}" for c in change)
    was, now = classes(before) == labels, classes(after) == labels
    return f"{was.mean():6.1%} -> {now.mean():6.1%}  ({points(was, now)}, n={len(was)})"


def macs(path: Path, inputs: Inputs) -> float:
    """Count the multiply-accumulates of one sample, the same way for every method's results."""
    view = build_view(onnx.load(path), path)
    return CostModel(view, trace(view, {view.inputs[0]: inputs[:1]})).total.macs


@dataclass(frozen=True)
class Start:
    """When a piece of work began."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), time.process_time())

    def spent(self) -> str:
        """Seconds by the clock since, and seconds of processor time."""
        wall, cpu = time.monotonic() - self.wall, time.process_time() - self.cpu
        return f"{wall:6.0f} {cpu:6.0f}"


def peak_memory() -> float:
    """Return the most memory this process has had, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
