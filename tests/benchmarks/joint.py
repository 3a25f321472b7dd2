"""The damage of removing a random fifth of all channels, as single channels predict it.

    python tests/benchmarks/joint.py [--nets NAME ...] [--draws 200] [--samples 128]

Fifths of the channels of all groups together are drawn at random and really taken away (behind
gates, nothing refitted); their damage is the relative squared change of the output. Rank
correlations over the draws, with their standard errors, of that and

- scores: the sum of what each channel costs alone;
- vectors: the squared norm of the sum of each channel's change of the output;
- thinned: the same from single changes in the network thinned by a fifth (`Expansion`);
- halves: no prediction, but how the true damages on one half of the samples rank those on the
  other: nothing measured on some samples can do better on others.

``damage`` is the mean over the draws (1: the output is lost), ``spread`` its relative deviation.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from gradient import Problem, look
from numpy.typing import NDArray
from scipy.stats import rankdata
from shared_data import Network, own_networks, shared_networks

from onnxprune.coupling.keeps import keep_masks
from onnxprune.progress import Silent
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import RUNTIME_VERSION, Session, with_outputs
from onnxprune.sensitivity.joint import expand
from onnxprune.sensitivity.output import OutputChange
from onnxprune.sensitivity.perturbation import measure

_SHARE = 0.2
_LARGE = 1e6  # bytes of a model that is looked at only if it is named
Floats = NDArray[np.float64]
Gone = dict[str, list[int]]


def problem_of(network: Network, samples: int) -> Problem:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "inputs.npz"
        name = Session(network.path).inputs[0].name
        np.savez(data, **{name: network.calibration()[:samples]})
        return look(network.name, network.path, data, samples)


def drawn(problem: Problem, draws: int, rng: np.random.Generator) -> list[Gone]:
    groups = [g for g in problem.found.coupling.groups if g.exact]
    every = [(g.name, c) for g in groups for c in range(g.size)]
    chosen = []
    for _ in range(draws):
        gone: Gone = {g.name: [] for g in groups}
        for i in rng.permutation(len(every))[: int(_SHARE * len(every))]:
            gone[every[i][0]].append(every[i][1])
        chosen.append(gone)
    return chosen


def changes(problem: Problem, draws: Sequence[Gone]) -> tuple[Floats, NDArray[np.int64]]:
    """Take them away; shape (draws, dims), and the sample of each dimension."""
    found, groups = problem.found, problem.found.coupling.groups
    axes = [m.axis for g in groups for m in g.members]
    gated = gate(found.view, found.traces[0], found.coupling, axes)
    session = Session(with_outputs(gated.model, problem.outputs))

    def run(gone: Gone) -> list[dict[str, np.ndarray]]:
        pairs = [(g, gone.get(g.name, [])) for g in groups]
        masks = gated.feeds(keep_masks(pairs, found.coupling.collected.sizes))
        return [session.run({**feed, **masks}, problem.outputs) for feed in problem.feeds]

    change = OutputChange(run({}))
    batches = range(len(problem.feeds))
    moved = [
        np.concatenate([change.vector(n, out) for n, out in enumerate(run(gone))]) for gone in draws
    ]
    parity = np.concatenate([change.samples(n) % 2 for n in batches])
    return np.array(moved, np.float64), parity


def predictions(problem: Problem, draws: Sequence[Gone]) -> dict[str, Floats]:
    found = problem.found
    groups = [g for g in found.coupling.groups if g.exact]
    seen = (found.view, found.traces[0], found.coupling, groups)
    alone = measure(problem.request(groups, Silent())).groups
    thinned = expand(*seen, problem.feeds, outputs=problem.outputs, share=_SHARE)

    def summed(gone: Gone) -> Floats:
        parts = (
            alone[name].vectors[cs].astype(np.float64).sum(axis=0) for name, cs in gone.items()
        )
        return np.sum([*parts], axis=0)

    return {
        "scores": np.array([sum(alone[n].scores[cs].sum() for n, cs in g.items()) for g in draws]),
        "vectors": np.array([(summed(gone) ** 2).sum() for gone in draws]),
        "thinned": np.array([thinned.error(gone) for gone in draws]),
    }


def ranked(first: Floats, second: Floats) -> str:
    """Rank correlation and its standard error over resampled draws."""
    rng = np.random.default_rng(0)
    a, b = rankdata(first), rankdata(second)
    many = []
    for _ in range(200):
        pick = rng.integers(0, len(a), len(a))
        many.append(np.corrcoef(rankdata(a[pick]), rankdata(b[pick]))[0, 1])
    return f"{np.corrcoef(a, b)[0, 1]:6.3f}+-{np.std(many):.3f}"


def row(network: Network, count: int, samples: int) -> str:
    problem = problem_of(network, samples)
    draws = drawn(problem, count, np.random.default_rng(0))
    moved, parity = changes(problem, draws)
    true = (moved**2).sum(axis=1)
    halves = [(moved[:, parity == half] ** 2).sum(axis=1) for half in range(2)]
    said = predictions(problem, draws)
    channels = sum(g.size for g in problem.found.coupling.groups if g.exact)
    cells = [*(ranked(true, each) for each in said.values()), ranked(*halves)]
    return (
        f"{network.name:20} {channels:5d} {true.mean():6.2f} {true.std() / true.mean():6.2f} "
        + " ".join(cells)
    )


def table(names: list[str], draws: int, samples: int) -> Iterator[str]:
    columns = ["scores", "vectors", "thinned", "halves"]
    heads = " ".join(f"{name:>13}" for name in columns)
    yield f"{'network':20} {'chan.':>5} {'damage':>6} {'spread':>6} {heads}"
    for network in (*own_networks(), *shared_networks()):
        small = network.present and network.path.stat().st_size < _LARGE
        if network.present and (network.name in names if names else small):
            yield row(network, draws, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nets", nargs="*", default=[])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--samples", type=int, default=128)
    given = parser.parse_args()
    print(f"onnxruntime {RUNTIME_VERSION}")
    for line in table(given.nets, given.draws, given.samples):
        print(line, flush=True)


if __name__ == "__main__":
    main()
