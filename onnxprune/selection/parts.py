"""What a model's time is made of: operators of the latency table, and what the others write."""

from collections.abc import Sequence
from math import prod

import numpy as np

from onnxprune.analysis import Analysis
from onnxprune.bench.fit import Fit
from onnxprune.bench.operators import Operator
from onnxprune.bench.table import Entry, LatencyTable, Pays
from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.model.cost import Cost, Term, fractions
from onnxprune.model.view import Node
from onnxprune.runtime.trace import Trace

__all__ = ["Parts"]

# Views of the same memory, and what is done inside a convolution.
_FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape"})
_FUSED = frozenset({"BatchNormalization", "Relu", "Clip", "LeakyRelu", "HardSigmoid"})


class Parts:
    """The operators of a model with their entries, and what the others write."""

    def __init__(
        self,
        found: Analysis,
        stated: Trace,
        operators: Sequence[Operator],
        table: LatencyTable,
    ) -> None:
        known = {o.signature: table.entries.get(o.signature) for o in operators}
        self.unknown = sum(known[o.signature] is None for o in operators)
        rates = [e.whole / o.macs for o in operators if (e := known[o.signature]) and o.macs]
        rate = float(np.median(rates)) if rates else 1.0
        self.operators = [(o, known[o.signature] or _guess(o, rate)) for o in operators]
        timed = {o.node.index for o in operators}
        self.others = [
            (axes, float(prod(stated.shapes[axes[0].value])))
            for node in found.view.nodes
            if node.index not in timed and not _is_free(found, node)
            for value in node.outputs
            if (axes := _axes(stated, value))
        ]

    def terms(self, by: Fit) -> list[Term]:
        """Price the parts; the original's latency is their sum."""
        return [
            *(
                Term(o.node.name, Cost(0, 0, 0, by.scale * entry.whole), o.axes, entry.left)
                for o, entry in self.operators
            ),
            *(Term("", Cost(0, 0, 0, by.per_element * size), axes) for axes, size in self.others),
            Term("", Cost(0, 0, 0, by.fixed), ()),
        ]

    def features(self, keeps: Keeps) -> tuple[float, float]:
        """Return the table's sum and the elements that the others write, under a cut."""
        kept = fractions(keeps)
        table = sum(
            entry.whole * entry.left([kept.get(axis, 1.0) for axis in o.axes])
            for o, entry in self.operators
        )
        written = sum(s * prod(kept.get(axis, 1.0) for axis in axes) for axes, s in self.others)
        return table, written

    def steps(self, free: set[Axis]) -> dict[Axis, int]:
        """Return what every axis's width should be a multiple of: the largest of its readers'."""
        found: dict[Axis, int] = {}
        for operator, entry in self.operators:
            for axis, step in zip(operator.axes, entry.pays.steps, strict=True):
                if axis in free:
                    found[axis] = max(found.get(axis, 1), step)
        return found


def _guess(operator: Operator, rate: float) -> Entry:
    """Take an operator that the table does not know to be as fast as the others."""
    levels = tuple((width,) for width in operator.widths)
    time = np.full((1,) * len(levels), max(rate * operator.macs, 1.0))
    return Entry(levels, time, Pays((1,) * len(levels)))


def _axes(stated: Trace, value: str) -> tuple[Axis, ...]:
    shape = stated.shapes.get(value, ()) if value else ()
    return tuple(Axis(value, number) for number in range(len(shape)))


def _is_free(found: Analysis, node: Node) -> bool:
    if node.op_type in _FREE:
        return True
    before = found.view.producers.get(node.inputs[0]) if node.inputs else None
    return (
        node.op_type in _FUSED
        and before is not None
        and before.op_type in {"Conv", "BatchNormalization"}
    )
