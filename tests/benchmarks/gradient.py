"""The gradient method against session-per-channel perturbation: how fast, and how right.

    python tests/benchmarks/gradient.py [--only speed|quality] [--nets NAME ...] [--rounds 3]

Speed: networks of the shapes of ResNet-18, MobileNetV2 and a four-layer transformer with random
weights, 32 samples, all channels. Naive perturbation (edit the weights, make a session of the
serialized model, run it) is timed on two random channels per group and round and extrapolated to
all channels.
Quality: the trained networks of the repository and, where they are there, of ../shared. Scores
from up to 256 samples are compared with exact removals on the same samples, for channels drawn at
random over the whole network. One thread, process CPU time, methods interleaved, medians.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from scipy.stats import spearmanr
from shared_data import Network, own_networks, shared_networks

from onnxprune.analysis import Analysis, analyse
from onnxprune.coupling.groups import Group
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.runtime.session import RUNTIME_VERSION, Feeds, Session, with_outputs
from onnxprune.sensitivity.effort import effort
from onnxprune.sensitivity.gradient.masked import Masked
from onnxprune.sensitivity.gradient.measure import measure
from onnxprune.sensitivity.request import Batches, Request
from onnxprune.sensitivity.values import Sensitivity
from tests.nets import Net
from tests.sensitivity.naive import zeroed

_BATCH = 32


@dataclass(frozen=True)
class Problem:
    """A model, looked at, with its samples."""

    name: str
    found: Analysis
    feeds: list[Feeds]

    @property
    def outputs(self) -> tuple[str, ...]:
        return float_frontier(self.found.view, self.found.traces[0])

    @property
    def channels(self) -> int:
        return sum(g.size for g in self.found.coupling.groups)

    def sketch(
        self, progress: Silent, *, check: bool, cotangents: int | None = None
    ) -> Sensitivity:
        asked = self.request(groups=self.found.coupling.groups, progress=progress)
        return measure(asked, check=check, cotangents=cotangents)

    def request(self, groups: Sequence[Group], progress: Silent) -> Request:
        """Ask for groups, on all samples, without curves."""
        found = self.found
        return Request(
            view=found.view,
            trace=found.traces[0],
            coupling=found.coupling,
            groups=groups,
            batches=Batches(self.feeds, []),
            outputs=self.outputs,
            work={g.name: effort(found, g) for g in groups},
            progress=progress,
        )

    def forward(self) -> float:
        """CPU seconds of one plain pass over all samples."""
        session = Session(with_outputs(self.found.view.model, self.outputs))
        session.run(self.feeds[0])
        return seconds(lambda: [session.run(feed) for feed in self.feeds])

    def naive(self, group: Group, channel: int) -> None:
        """Take one channel away the slow way."""
        model = with_outputs(zeroed(self.found, group, channel), self.outputs)
        session = Session(model.SerializeToString())  # as one would: the whole file each time
        for feed in self.feeds:
            session.run(feed)


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def look(name: str, path: Path, data: Path | None, samples: int) -> Problem:
    options = Options(macs=0.5, samples=samples, data=data)
    found = analyse(path, options, Silent())
    many = range(len(found.samples))
    return Problem(name, found, list(found.samples.feeds(many, _BATCH)))


# The shapes of well-known networks, with random weights.


def resnet18() -> onnx.ModelProto:
    net = Net(1)
    y = net.op("Relu", net.conv("x", 3, 64, 7, strides=[2, 2]))
    y = net.op("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    size = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            inner = net.op("Relu", net.conv(y, size, width, strides=[stride] * 2))
            inner = net.conv(inner, width, width)
            if stride > 1:
                weight, bias = net.weight(width, size, 1, 1), net.weight(width)
                y = net.op("Conv", y, weight, bias, strides=[2, 2])
            y, size = net.op("Relu", net.op("Add", y, inner)), width
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model({"x": ("N", 3, 64, 64)}, net.op("Gemm", flat, net.weight(512, 10)))


def mobilenet2() -> onnx.ModelProto:
    net = Net(2)
    limits = net.const(np.float32(0)), net.const(np.float32(6))

    def relu6(x: str) -> str:
        return net.op("Clip", x, *limits)

    y, size = relu6(net.conv("x", 3, 32, strides=[2, 2])), 32
    settings = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                (6, 160, 3, 2), (6, 320, 1, 1))  # fmt: skip
    for factor, width, count, stride in settings:
        for block in range(count):
            inner, wide = y, size * factor
            if factor > 1:
                inner = relu6(net.conv(inner, size, wide, 1))
            step = [stride if not block else 1] * 2
            inner = relu6(net.conv(inner, wide, wide, group=wide, strides=step))
            inner = net.conv(inner, wide, width, 1)
            y = net.op("Add", y, inner) if block else inner
            size = width
    y = relu6(net.conv(y, size, 1280, 1))
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model({"x": ("N", 3, 64, 64)}, net.op("Gemm", flat, net.weight(1280, 10)))


def transformer() -> onnx.ModelProto:
    net = Net(3)
    rows = net.const(np.array([0, 0, 4, 64], np.int64))
    flat = net.const(np.array([0, 0, 256], np.int64))

    def normal(x: str) -> str:
        scale = net.const(np.ones(256, np.float32))
        return net.op("LayerNormalization", x, scale, net.weight(256), axis=-1)

    def heads(x: str, order: list[int]) -> str:
        return net.op("Transpose", net.op("Reshape", net.linear(x, 256, 256), rows), perm=order)

    y = "x"
    for _ in range(4):
        x = normal(y)
        q, k, v = heads(x, [0, 2, 1, 3]), heads(x, [0, 2, 3, 1]), heads(x, [0, 2, 1, 3])
        scores = net.op("Mul", net.op("MatMul", q, k), net.const(np.float32(0.125)))
        mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
        mixed = net.op("Reshape", net.op("Transpose", mixed, perm=[0, 2, 1, 3]), flat)
        y = net.op("Add", y, net.linear(mixed, 256, 256))
        x = net.linear(normal(y), 256, 1024)
        bent = net.op("Erf", net.op("Div", x, net.const(np.float32(np.sqrt(2)))))
        bent = net.op("Mul", x, net.op("Add", bent, net.const(np.float32(1))))
        x = net.op("Mul", bent, net.const(np.float32(0.5)))
        y = net.op("Add", y, net.linear(x, 1024, 256))
    pooled = net.op("ReduceMean", normal(y), axes=[1], keepdims=0)
    return net.model({"x": ("N", 64, 256)}, net.op("Gemm", pooled, net.weight(256, 10)))


def speed_row(problem: Problem, rounds: int, rng: np.random.Generator) -> str:
    """Time naive probes, the plain pass, the sketch alone and with its check, interleaved."""
    groups = problem.found.coupling.groups
    kinds: dict[str, list[float]] = {k: [] for k in ("naive", "forward", "alone", "checked")}

    def naive() -> float:
        total = 0.0
        for group in groups:
            picks = rng.choice(group.size, min(2, group.size), replace=False)
            spent = [seconds(lambda g=group, c=c: problem.naive(g, int(c))) for c in picks]
            total += float(np.mean(spent)) * group.size
        return total

    work = {
        "naive": naive,
        "forward": problem.forward,
        "alone": lambda: seconds(lambda: problem.sketch(Silent(), check=False)),
        "checked": lambda: seconds(lambda: problem.sketch(Silent(), check=True)),
    }
    for _ in range(rounds):
        for kind in rng.permutation(list(work)).tolist():
            kinds[kind].append(work[kind]())
    mid = {k: float(np.median(v)) for k, v in kinds.items()}
    ratios = np.array(kinds["naive"]) / np.array(kinds["alone"])
    return (
        f"{problem.name:22} {problem.channels:6d} {len(groups):4d} {mid['naive']:8.0f} s"
        f" {mid['alone']:7.2f} s {mid['naive'] / mid['alone']:7.0f}x"
        f" ({ratios.min():.0f}-{ratios.max():.0f})"
        f" {mid['alone'] / mid['forward']:6.1f} {mid['naive'] / mid['checked']:7.0f}x"
        f" {mid['checked'] / mid['forward']:6.1f}"
    )


def speed(names: list[str], rounds: int) -> Iterator[str]:
    yield (
        f"{'32 samples':22} {'chan.':>6} {'grp':>4} {'naive*':>10} {'sketch':>9} {'ratio':>8}"
        " (range)  passes  with its check  passes"
    )
    rng = np.random.default_rng(0)
    for make in (resnet18, mobilenet2, transformer):
        if names and make.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(make(), path)
            yield speed_row(look(make.__name__, path, None, 32), rounds, rng)
    yield "* extrapolated from two random channels per group and round"


def quality_row(network: Network, samples: int, channels: int) -> str:
    """Compare scores with exact removals of random channels on the same samples."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "inputs.npz"
        name = Session(network.path).inputs[0].name
        np.savez(data, **{name: network.calibration()[:samples]})
        problem = look(network.name, network.path, data, samples)
    start = time.process_time()
    measured = problem.sketch(Silent(), check=True)
    spent = time.process_time() - start
    alone = problem.sketch(Silent(), check=False)
    groups = problem.found.coupling.groups
    rng = np.random.default_rng(1)
    every = [(g, c) for g in groups for c in range(g.size)]
    picks = [every[i] for i in rng.permutation(len(every))[:channels]]
    seen = problem.found.view, problem.found.traces[0], problem.found.coupling
    masked = Masked(*seen, groups, problem.outputs, problem.feeds)
    exact = np.array([masked.error(g, [c]) for g, c in picks])
    said = [np.array([m.groups[g.name].scores[c] for g, c in picks]) for m in (alone, measured)]
    timed = [picks[i] for i in rng.permutation(len(picks))[:6]]
    naive = float(np.mean([seconds(lambda g=g, c=c: problem.naive(g, c)) for g, c in timed]))
    least = seconds(lambda: problem.sketch(Silent(), check=False, cotangents=1))
    ranks = inside(picks, exact, said[1])
    weakest = min(groups, key=lambda g: ranks.get(g.name, 2.0))
    count = sum(len(next(iter(f.values()))) for f in problem.feeds)
    ratios = (naive * len(every) / cost for cost in (spent, least, 2 * problem.forward()))
    outright = sum(m.method == "perturbation" for m in measured.groups.values())
    return (
        f"{network.name:24} {count:4d} {len(every):6d} {len(picks):5d}"
        f" {spearmanr(exact, said[0]).statistic:7.3f} {spearmanr(exact, said[1]).statistic:7.3f}"
        f" {np.nanmean([*ranks.values()]) if ranks else np.nan:7.3f}"
        f" {whole_group(masked, weakest, measured, channels) if ranks else '':29}"
        f" {outright:3d}/{len(groups):<3d}"
        f" {spent:7.2f} s {' '.join(f'{ratio:7.0f}x' for ratio in ratios)}"
    )


def inside(
    picks: Sequence[tuple[Group, int]], exact: np.ndarray, said: np.ndarray
) -> dict[str, float]:
    """Rank correlations inside groups of which there are enough channels."""
    names = np.array([g.name for g, _ in picks])
    return {
        n: float(spearmanr(exact[names == n], said[names == n]).statistic)
        for n in dict.fromkeys(names.tolist())
        if (names == n).sum() >= 6
    }


def whole_group(masked: Masked, group: Group, measured: Sensitivity, most: int) -> str:
    """Rank correlation over the first so many channels of a group; of the exact scores of halves
    of the samples; how much the scores vary; how many these are."""
    parts = np.array([masked.errors(group, [c]) for c in range(min(group.size, most))])
    exact = parts.sum(axis=1)
    rank = spearmanr(exact, measured.groups[group.name].scores[: len(exact)]).statistic
    halves = spearmanr(parts[:, ::2].sum(axis=1), parts[:, 1::2].sum(axis=1)).statistic
    spread = np.subtract(*np.log10(np.quantile(exact[exact > 0], [0.9, 0.1])))
    return f"{rank:7.3f} {halves:7.3f} {spread:6.1f} {len(exact):5d}"


def quality(names: list[str], samples: int, channels: int) -> Iterator[str]:
    yield (
        f"{'network':24} {'n':>4} {'chan.':>6} {'probe':>5} {'alone':>7} {'rho':>7} {'in grp':>7}"
        f" {'worst*':>7} {'halves':>7} {'spread':>6} {'size':>5} {'exact':>7}"
        f" {'takes':>9} {'naive**':>8} {'one***':>8} {'most':>8}"
    )
    for network in (*own_networks(), *shared_networks()):
        if network.path.exists() and (not names or network.name in names):
            big = network.path.stat().st_size > 5e6
            yield quality_row(network, samples, channels // 4 if big else channels)
    yield "alone: without the groups that are measured exactly after the check (exact: how many)"
    yield "* of groups with six probes or more the weakest by these; all its channels: rank"
    yield "  correlation, that of the exact scores of halves of the samples with one another,"
    yield "  decades between the tenths with the highest and the lowest scores, channels"
    yield "** times as long: the same samples, extrapolated from six random channels"
    yield "*** with one cotangent per sample, nothing checked; then, if a pass back took no longer"
    yield "  than one forward, and nothing else any time: more than that nothing can save"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=["speed", "quality"])
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--channels", type=int, default=240)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}, one thread, CPU time")
    if given.only != "quality":
        for line in speed(given.nets, given.rounds):
            print(line, flush=True)
    if given.only != "speed":
        for line in quality(given.nets, given.samples, given.channels):
            print(line, flush=True)


if __name__ == "__main__":
    main()
