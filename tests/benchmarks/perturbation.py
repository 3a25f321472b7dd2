"""Exact perturbation against a session per channel: how fast.

    python tests/benchmarks/perturbation.py [--nets NAME ...] [--rounds 3]

Networks of the shapes of ResNet-18, MobileNetV2 and a four-layer transformer with random
weights, 32 samples, all channels. Both ways are timed on random channels of every group, one after
the other in random order, and extrapolated to all channels; what a group takes once (sessions,
cached activations) counts for the fast way. Naive is: edit the weights, make a session, run it.
One thread, process CPU time, medians over rounds.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from gradient import Problem, look, mobilenet2, resnet18, seconds, transformer

from onnxprune.coupling.groups import Group
from onnxprune.runtime.session import RUNTIME_VERSION
from onnxprune.sensitivity.perturbation import Batches, Measurer, Setting

_CHANNELS = 2  # that are timed per group and round, each way


def measurer(problem: Problem) -> Measurer:
    found = problem.found
    groups = tuple(found.coupling.groups)
    batches = Batches(problem.feeds, [])
    levels = {g.name: np.array([g.size]) for g in groups}
    seen = found.view, found.traces[0], found.coupling
    return Measurer(Setting(*seen, groups, batches, levels, problem.outputs))


def fast(measuring: Measurer, group: Group, channels: list[int]) -> float:
    """CPU seconds of all channels of a group, from those of a few."""
    ready = []
    once = seconds(lambda: ready.append(measuring.prepare(group)))
    once += seconds(lambda: [ready[0].suffix.cache(ready[0].original, f) for f in feeds(measuring)])
    caches = [ready[0].suffix.cache(ready[0].original, feed) for feed in feeds(measuring)]

    def one(channel: int) -> None:
        mask = measuring.masks(group, [channel])
        for number, cache in enumerate(caches):
            measuring.fit.vector(number, ready[0].suffix.run(cache, mask))

    one(channels[0])  # the first run allocates
    spent = float(np.mean([seconds(lambda c=c: one(c)) for c in channels]))
    return once + spent * group.size


def feeds(measuring: Measurer) -> list[dict[str, np.ndarray]]:
    return list(measuring.batches.fit)


def speed_row(problem: Problem, rounds: int, rng: np.random.Generator) -> str:
    groups = problem.found.coupling.groups
    measuring = measurer(problem)
    ratios, totals = [], []
    for _ in range(rounds):
        total = {"naive": 0.0, "fast": 0.0}
        for group in groups:
            picks = rng.choice(group.size, min(_CHANNELS, group.size), replace=False).tolist()
            work = {
                "fast": lambda g=group, p=picks: fast(measuring, g, p),
                "naive": lambda g=group, p=picks: (
                    g.size
                    * float(np.mean([seconds(lambda c=c: problem.naive(g, int(c))) for c in p]))
                ),
            }
            for way in rng.permutation(list(work)).tolist():
                total[way] += work[way]()
        totals.append((total["naive"], total["fast"]))
        ratios.append(total["naive"] / total["fast"])
    naive, quick = np.median(totals, axis=0)
    forward = problem.forward()
    return (
        f"{problem.name:14} {problem.channels:6d} {len(groups):4d} {naive:8.0f} s {quick:8.1f} s"
        f" {np.median(ratios):6.1f}x ({min(ratios):.1f}-{max(ratios):.1f}) {quick / forward:8.0f}"
    )


def speed(names: list[str], rounds: int) -> Iterator[str]:
    yield f"{'32 samples':14} {'chan.':>6} {'grp':>4} {'naive*':>10} {'exact*':>10}  ratio  passes"
    rng = np.random.default_rng(0)
    for make in (resnet18, mobilenet2, transformer):
        if names and make.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(make(), path)
            problem = look(make.__name__, path, None, 32)
        yield speed_row(problem, rounds, rng)
    yield f"* extrapolated from {_CHANNELS} random channels of every group, in every round"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}, one thread, CPU time")
    for line in speed(given.nets, given.rounds):
        print(line, flush=True)


if __name__ == "__main__":
    main()
