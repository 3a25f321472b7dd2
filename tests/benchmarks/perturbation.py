"""Exact perturbation against a session per channel: how fast.

    python tests/benchmarks/perturbation.py [--nets NAME ...] [--rounds 3] [--samples 32]

Networks of the shapes of ResNet-18, MobileNetV2 and a four-layer transformer with random
weights, 32 samples unless told otherwise, all channels. Both ways are timed on random channels of
every group, one after the other in random order, and extrapolated to all channels; what a group
takes once (sessions, cached activations) counts for the fast way. Naive is: edit the weights, make
a session of the serialized model, run it on up to 32 samples at once; the exact way takes as many
at once as the command does. One thread, process CPU time, medians over rounds. Columns: ``all
run``, the ratio when samples that a channel is silent on are run all the same, and channels one by
one where samples are few; ``heard``, the share of (channel, sample) pairs that are run; ``limit``,
what the removals cannot do without over the time taken: multiply-accumulates of what lies
downstream, of the first readers one channel's share, of those behind a normalization none, at the
peak of matrix products that is measured in the same round; ``no pad``, the same without products
with padding, which small maps here do without.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from gradient import Problem, look, mobilenet2, resnet18, seconds, transformer

from onnxprune.coupling.groups import Group
from onnxprune.model.view import Node
from onnxprune.runtime.carried import carried
from onnxprune.runtime.delta import shortened
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import RUNTIME_VERSION, Session, batch_size
from onnxprune.sensitivity.batching import samples_at_once
from onnxprune.sensitivity.measurer import FEW, Measurer
from onnxprune.sensitivity.request import Batches, Request
from tests.nets import Net

_CHANNELS = {"naive": 2, "exact": 10, "whole": 3}  # that are timed per group and round, each way


def measurer(problem: Problem) -> Measurer:
    found = problem.found
    seen = found.view, found.traces[0], found.coupling, found.coupling.groups
    size = samples_at_once(found)
    feeds = list(found.samples.feeds(range(len(found.samples)), size))
    return Measurer(Request(*seen, Batches(feeds, []), problem.outputs))


def fast(
    measuring: Measurer, number: int, channels: list[int], *, skip: bool
) -> tuple[float, float]:
    """CPU seconds of all channels of a group, from those of a few, and how many samples ran."""
    measuring.few = skip and sum(map(batch_size, measuring.batches.fit)) <= FEW
    group = measuring.asked.groups[number]
    ready, cached, stacks = [], [], []
    once = seconds(lambda: ready.append(measuring.prepare(group)))
    every = sum(batch_size(feed) for feed in measuring.batches.fit)
    cuts = [measuring.masks(group, [channel]) for channel in range(group.size)]
    once += seconds(
        lambda: stacks.append(measuring.stack(ready[0], measuring.batches.fit[0], cuts))
    )
    if stacks[0] is not None:
        count = stacks[0].count
        spent = seconds(lambda: [measuring.fit.vector(0, o) for o in stacks[0].run(cuts[:count])])
        return once + spent * -(-group.size // count), float(every * group.size)
    for batch, feed in enumerate(measuring.batches.fit):
        once += seconds(
            lambda b=batch, f=feed: cached.append(measuring.removals(ready[0], group, b, f))
        )

    def one(channel: int) -> None:
        mask = measuring.masks(group, [channel])
        for batch, (removals, loud) in enumerate(cached):
            heard = loud[:, channel] if skip and loud is not None else None
            measuring.fit.vector(batch, removals.without(mask, heard))

    one(channels[0])  # the first run allocates
    spent = float(np.mean([seconds(lambda c=c: one(c)) for c in channels]))
    heard = [
        float(batch_size(feed) * group.size) if loud is None else float(loud.sum())
        for feed, (_, loud) in zip(measuring.batches.fit, cached, strict=True)
    ]
    return once + spent * group.size, sum(heard)


def filled(problem: Problem, node: Node) -> float:
    """Share of a convolution's products that are not with its padding."""
    if node.op_type != "Conv":
        return 1.0
    shapes = problem.found.traces[0].shapes
    before, kernel = (shapes[value][2:] for value in node.inputs[:2])
    after, given = shapes[node.outputs[0]][2:], node.attributes
    pads = given.get("pads", [0] * 2 * len(kernel))
    strides, steps = (given.get(k, [1] * len(kernel)) for k in ("strides", "dilations"))
    share = 1.0
    for k, size in enumerate(before):
        places = np.arange(after[k])[:, None] * strides[k] + np.arange(kernel[k]) * steps[k]
        share *= float(((places >= pads[k]) & (places < pads[k] + size)).mean())
    return share


def floor(problem: Problem, group: Group) -> np.ndarray:
    """Multiply-accumulates that one channel's removal takes, per sample: what lies downstream of
    it in full, of its first readers the one channel's share, nothing of linear layers that it is
    carried to through a normalization; and without padding's."""
    found, view = problem.found, problem.found.view
    axes = [m.axis for m in group.members if m.axis in found.coupling.contracts]
    gated = gate(view, found.traces[0], found.coupling, axes)
    shapes = found.traces[0].shapes
    known = set(carried(shortened(gated, shapes), shapes).known.values())
    sizes, exits = found.coupling.collected.sizes, found.coupling.contracts
    share = {
        number: m.positions[0].size / sizes[m.axis]
        for m in group.members
        for number, _ in exits.get(m.axis, ())
    }
    waiting, seen = list(share), set(share)
    while waiting:
        for value in view.by_index[waiting.pop()].outputs:
            new = {edge.node for edge in view.consumers.get(value, ())} - seen
            seen |= new
            waiting.extend(new)
    macs: dict[str, float] = {}
    for term in found.costs.terms:
        macs[term.node] = macs.get(term.node, 0.0) + term.cost.macs
    total = np.zeros(2)
    for number, node in ((number, view.by_index[number]) for number in seen):
        least = macs.get(node.name, 0.0) * (
            share.get(number, 0.0) if known & {*node.outputs} else 1.0
        )
        total += least, least * filled(problem, node)
    return total


def peak() -> float:
    """Multiply-accumulates per CPU second of the best of a few matrix products."""
    best = 0.0
    rng = np.random.default_rng(0)
    for m, k, n in ((512, 512, 512), (512, 64, 384), (512, 256, 1024), (128, 960, 160)):
        net = Net(1)
        product = net.op("MatMul", "x", net.weight(k, n))
        session = Session(net.model({"x": (m, k)}, product))
        x = rng.standard_normal((m, k)).astype(np.float32)
        for _ in range(5):
            spent = seconds(lambda s=session, x=x: [s.run({"x": x}) for _ in range(20)])
            best = max(best, 20 * m * k * n / spent)
    return best


def speed_round(problem: Problem, measuring: Measurer, rng: np.random.Generator) -> np.ndarray:
    """CPU seconds of the naive way, the exact one, and the exact one that runs every sample; the
    share of samples that run; the seconds that the exact one cannot do without, twice."""
    total = dict.fromkeys((*_CHANNELS, "heard"), 0.0)
    least = np.zeros(2)
    best = peak()
    for number, group in enumerate(problem.found.coupling.groups):
        for way in rng.permutation(list(_CHANNELS)).tolist():
            picks = rng.choice(group.size, min(_CHANNELS[way], group.size), replace=False).tolist()
            if way == "naive":
                spent = [seconds(lambda g=group, c=c: problem.naive(g, int(c))) for c in picks]
                total[way] += group.size * float(np.mean(spent))
                continue
            spent, heard = fast(measuring, number, picks, skip=way == "exact")
            total[way] += spent
            if way == "exact":
                total["heard"] += heard
                least += heard * floor(problem, group) / best
    total["heard"] /= problem.channels * sum(batch_size(feed) for feed in problem.feeds)
    return np.array([*total.values(), *least])


def speed_row(problem: Problem, rounds: int, rng: np.random.Generator) -> str:
    measuring = measurer(problem)
    times = np.array([speed_round(problem, measuring, rng) for _ in range(rounds)])
    naive, exact, whole, heard, least, bare = times.T
    ratios = naive / exact
    return (
        f"{problem.name:12} {problem.channels:6d} {len(problem.found.coupling.groups):4d}"
        f" {np.median(naive):8.0f} s {np.median(exact):7.1f} s {np.median(ratios):6.1f}x"
        f" ({min(ratios):.1f}-{max(ratios):.1f}) {np.median(naive / whole):8.1f}x"
        f" {np.median(heard):6.2f} {np.median(least / exact):6.2f}"
        f" {np.median(bare / exact):6.2f}"
        f" {np.median(exact) / problem.forward():7.0f}"
    )


def speed(names: list[str], rounds: int, samples: int) -> Iterator[str]:
    first = f"{samples} samples"
    yield (
        f"{first:12} {'chan.':>6} {'grp':>4} {'naive*':>10} {'exact*':>9} {'ratio':>7}"
        f" (range)    all run {'heard':>6} {'limit':>6} {'no pad':>6} {'passes':>7}"
    )
    rng = np.random.default_rng(0)
    for make in (resnet18, mobilenet2, transformer):
        if names and make.__name__ not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(make(), path)
            problem = look(make.__name__, path, None, samples)
        yield speed_row(problem, rounds, rng)
    yield f"* extrapolated from random channels of every group and round: {_CHANNELS}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=32)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}, one thread, CPU time")
    for line in speed(given.nets, given.rounds, given.samples):
        print(line, flush=True)


if __name__ == "__main__":
    main()
