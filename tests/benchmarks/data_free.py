"""What is left of a network's accuracy when it is pruned without any data.

    python tests/benchmarks/data_free.py [NAME ...] [--macs 0.7 0.5]

Prints accuracy on labelled inputs that no way saw, at the same MACs: the smallest weights (L1) of
every layer removed alike; the tool on made-up inputs as they are, cut only and refitted; and with
BatchNormalizations retuned to these inputs.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
from scoring import outputs
from shared_data import Network, own_networks, shared_networks

from onnxprune import pipeline
from onnxprune.analysis import Analysis, analyse
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import by_position, keep_masks
from onnxprune.model.cost import fractions
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.recovery.retune import lifelike
from onnxprune.rewrite.prove import prove
from onnxprune.search import stages
from onnxprune.selection.widths import allowed_widths

_NAMES = ("digits_resnet_bn", "digits_resnet", "digits_vit", "resnet20_cifar10_tsbn")
_RATIOS = (0.7, 0.5)


def untimed(models: Sequence[object], _feeds: object, **choices: object) -> BenchReport:
    """Stand in for the clock: nothing here depends on time."""
    one = Latency(1.0, 1.0, 1.0)
    figures = (0.9, (0.8, 1.0), "wall", None, None, "faster")
    names = [str(name) for name in choices["names"]]  # type: ignore[attr-defined]
    return BenchReport(names, [one] * len(models), *figures, 6, 10, 1, "cpu", {}, {}, [])


def accuracy(model: Path, network: Network) -> float:
    """Share of right classes on the labelled inputs."""
    inputs, labels = network.score()
    assert labels is not None
    scored = np.concatenate([_scores(batch) for batch in outputs(model, inputs)])
    return float((scored.argmax(axis=-1) == labels).mean())


def _scores(found: list[np.ndarray]) -> np.ndarray:
    return next(array for array in reversed(found) if array.dtype.kind == "f")


def magnitude(found: Analysis, group: Group) -> np.ndarray:
    """L1 norm of all weights that a channel has, each tensor's share of its own sum."""
    sizes, total = found.coupling.collected.sizes, np.zeros(group.size)
    for member in group.members:
        value = member.axis.value
        if member.axis in sizes and found.view.is_constant(value):
            if found.view.constant(value).ndim < 2:
                continue
            rows = np.abs(by_position(found.view.constant(value), member.axis, sizes[member.axis]))
            norm = rows.astype(float).sum(axis=1)[member.positions].sum(axis=1)
            total += norm / max(norm.sum(), 1e-12)
    return total


def smallest(found: Analysis, ratio: float) -> onnx.ModelProto:
    """Cut the same share of every group, smallest weights first, down to a ratio of the MACs."""
    sizes = found.coupling.collected.sizes
    orders = {g.name: g.balanced(np.argsort(magnitude(found, g))) for g in found.coupling.groups}
    removed: list[tuple[Group, list[int]]] = []
    for share in np.linspace(0.02, 0.95, 94):
        removed = []
        for group in found.coupling.groups:
            widths = [w for w in allowed_widths(group, 1, sizes) if w >= group.size * (1 - share)]
            removed.append((group, list(orders[group.name][: group.size - min(widths)])))
        saved = found.costs.saved(fractions(keep_masks(removed, sizes))).macs
        if 1 - saved / found.costs.total.macs <= ratio:
            break
    return prove(found, removed).model


def ways(network: Network, ratio: float) -> Iterator[float]:
    """Yield the accuracies of `_WAYS`."""
    found = analyse(network.path, Options(), Silent())
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.onnx"
        onnx.save(smallest(found, ratio), target)
        yield accuracy(target, network)
        for retune, recover in ((False, False), (False, True), (True, False), (True, True)):
            pipeline.lifelike = lifelike if retune else lambda found: found
            options = Options(macs=ratio, recover=recover)
            pipeline.run(network.path, target, options, force=True)
            yield accuracy(target, network)


_WAYS = ("smallest", "cut", "refit", "retuned, cut", "retuned, refit")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=_NAMES)
    parser.add_argument("--macs", nargs="*", type=float, default=_RATIOS)
    given = parser.parse_args(arguments)
    stages.measure = untimed
    networks = {n.name: n for n in [*own_networks(), *shared_networks()] if n.present}
    print(f"{'network':24} MACs original " + " ".join(f"{way:>14}" for way in _WAYS))
    for name in (name for name in given.names if name in networks):
        original = accuracy(networks[name].path, networks[name])
        for ratio in given.macs:
            print(f"{name:24} {ratio:4.2f} {original:8.1%}", end=" ", flush=True)
            for found in ways(networks[name], ratio):
                print(f"{found:14.1%}", end=" ", flush=True)
            print()


if __name__ == "__main__":
    main()
