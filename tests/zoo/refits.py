"""Which layers a refit can solve for, and which it can only lead to the original's statistics.

    python tests/zoo/refits.py FILE.onnx ...

Counts the operators with a weight in which some group lies, by what recovery does with them, and
their mean share of a model's multiply-accumulates. Nothing is cut.
"""

import argparse
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from onnxprune.analysis import Analysis, analyse
from onnxprune.errors import OnnxPruneError
from onnxprune.layers.recurrent import find_recurrences
from onnxprune.layers.rows import weight_blocks
from onnxprune.layers.sites import Site, find_sites
from onnxprune.model.view import Node
from onnxprune.model.weights import inputs_of, is_weight, plain
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.recovery.refit import _WIDEST

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


def fate(found: Analysis, node: Node, sites: dict[int, Site], solved: set[int]) -> str:
    """Say what recovery does with a layer."""
    site = sites.get(node.index)
    if node.index in solved:
        return "solved for"
    if site is None:
        return "left: in a body" if node.owner >= 0 else f"left: {node.op_type}"
    value = node.inputs[site.weight.slot]
    shared = found.view.is_constant(value) and len(found.view.uses[value].edges) > 1
    wide = weight_blocks(site, site.weight_in(found.view)).shape[1] > _WIDEST
    if not (shared or wide):
        return "solved for"
    what = "shared" if shared else "wide"
    return f"statistics: {what}" if site.bias is not None else f"left: {what}, without a bias"


def fates(found: Analysis) -> tuple[Counter[str], dict[str, float]]:
    """Count the layers of a model by fate, and sum their shares of its work."""
    sites = {
        s.node.index: s for s in find_sites(found.view, found.traces[0], found.coupling.collected)
    }
    solved = {layer.node.index for layer in find_recurrences(found.view)}
    free = {m.axis.plain.value for g in found.coupling.groups for m in g.members}
    work: Counter[str] = Counter()
    for term in found.costs.terms:
        work[term.node] += term.cost.macs
    count: Counter[str] = Counter()
    share: dict[str, float] = defaultdict(float)
    for node in found.view.nodes:
        held = any(is_weight(found.view, value) for value in inputs_of(node) if value)
        cut = not free.isdisjoint((*node.inputs, *node.outputs))
        if plain(node).op_type in WEIGHTED and held and cut and work[node.name]:
            name = fate(found, node, sites, solved)
            count[name] += 1
            share[name] += work[node.name] / sum(work.values())
    return count, share


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    layers: Counter[str] = Counter()
    shares: Counter[str] = Counter()
    models: Counter[str] = Counter()
    looked = 0
    for path in parser.parse_args(arguments).files:
        try:
            count, share = fates(analyse(path, Options(), Silent()))
        except OnnxPruneError as error:
            print(f"{path}: {error}")
            continue
        looked += 1
        layers += count
        models += Counter(dict.fromkeys(count, 1))
        for name, part in share.items():
            shares[name] += part
    print(f"{looked} models")
    for name, number in layers.most_common():
        part = shares[name] / looked
        print(f"{number:6} layers, {part:7.2%} of the work, in {models[name]:4} models: {name}")


if __name__ == "__main__":
    main()
