"""Which axis of a value counts the samples: the one tied to axis 0 of the inputs."""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from onnxprune.coupling.relations import Axis, Positions, Relation, Tie
from onnxprune.model.view import View
from onnxprune.runtime.trace import Trace

__all__ = ["sample_axes"]


def sample_axes(view: View, trace: Trace, relations: Iterable[Relation]) -> dict[str, int]:
    """Follow axis 0 of the inputs through all operators that keep it as it is.

    Values that are left out (samples folded into another axis, a batch fixed at 1) only lose that
    samples are told apart: sums over samples with independent cotangents are right on average.

    Parameters
    ----------
    view : View
    trace : Trace
    relations : iterable of Relation

    Returns
    -------
    dict of value name to axis
    """
    ties: dict[Axis, list[Axis]] = defaultdict(list)
    for relation in relations:
        if isinstance(relation, Tie) and _same(relation.a_index, relation.b_index):
            ties[relation.a].append(relation.b)
            ties[relation.b].append(relation.a)
    waiting = [Axis(name, 0) for name in view.inputs if trace.shapes.get(name)]
    seen = set(waiting)
    while waiting:
        for other in ties[waiting.pop()]:
            if other not in seen:
                seen.add(other)
                waiting.append(other)
    sizes = {trace.shapes[name][0] for name in view.inputs if trace.shapes.get(name)}
    size = sizes.pop() if len(sizes) == 1 else 0
    return {
        a.value: a.axis
        for a in sorted(seen, reverse=True)
        if a.value in trace.shapes and trace.shapes[a.value][a.axis] == size
    }


def _same(a: Positions | None, b: Positions | None) -> bool:
    return a is None or b is None or bool((a == np.arange(len(a))).all() and (a == b).all())
