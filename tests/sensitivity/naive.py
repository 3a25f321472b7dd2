"""The slow way that the fast one must equal: change the file's weights, run all of it anew."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import keep_masks, per_block
from onnxprune.coupling.relations import Axis
from onnxprune.model.frontier import float_frontier
from onnxprune.rewrite.cut import cut
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.perturbation import measure
from onnxprune.sensitivity.request import Batches, Request
from onnxprune.sensitivity.values import Sensitivity

Outputs = list[dict[str, np.ndarray]]


def batches(found: Analysis, count: int = 4) -> Batches:
    """Two feeds of different size to perturb channels on, one of other samples for widths."""
    index = np.arange(4 * count)
    return Batches(
        fit=list(found.samples.feeds(index[: 2 * count - 1], count)),
        select=list(found.samples.feeds(index[2 * count : 3 * count], count)),
    )


def request(
    found: Analysis,
    groups: Sequence[Group],
    given: Batches,
    widths: Mapping[str, Sequence[int]],
    **choices: Any,
) -> Request:
    """Ask for groups, without a limit of time unless there is one among the choices."""
    asked = Request(
        view=found.view,
        trace=found.traces[0],
        coupling=found.coupling,
        groups=groups,
        batches=given,
        widths=widths,
        outputs=float_frontier(found.view, found.traces[0]),
        work={g.name: float(g.size) for g in groups},
    )
    return replace(asked, **choices)


def fast(
    found: Analysis, groups: Sequence[Group], given: Batches, *, time_limit: float = 1e6
) -> Sensitivity:
    """Measure with the package."""
    sizes = found.coupling.collected.sizes
    widths = {g.name: allowed_widths(g, 1, sizes) for g in groups}
    return measure(request(found, groups, given, widths, time_limit=time_limit))


def run_all(found: Analysis, model: onnx.ModelProto, feeds: Sequence[Feeds]) -> Outputs:
    """Run a whole model in a new session."""
    names = float_frontier(found.view, found.traces[0])
    session = Session(with_outputs(model, names))
    return [session.run(feed) for feed in feeds]


def distance(clean: Outputs, found: Outputs) -> float:
    """Root of the squared change over the squared deviation, averaged over the outputs."""
    total = 0.0
    for name in clean[0]:
        a, b = (np.concatenate([o[name].ravel() for o in side]) for side in (clean, found))
        a, b = a.astype(np.float64), b.astype(np.float64)
        total += ((b - a) ** 2).sum() / ((a - a.mean()) ** 2).sum() / len(clean[0])
    return float(np.sqrt(total))


def zeroed(found: Analysis, group: Group, channel: int) -> onnx.ModelProto:
    """Zero what reads one channel: slices of initializers, where there are some.

    Products of two activations (query times key) have none; there a Mul with zeros and ones
    stands in front of one of them.
    """
    model = onnx.ModelProto()
    model.CopyFrom(found.view.model)
    places = {m.axis: m.positions[channel] for m in group.members}
    done: set[int] = set()
    exits = [(n, c.axis) for a in places for n, c in found.coupling.contracts.get(a, ())]
    for node, axis in exits:
        if found.view.is_constant(axis.value):
            _zero_constant(found, model, axis, places[axis])
            done.add(node)
    waiting = [(node, axis) for node, axis in exits if node not in done]
    for node, axis in sorted(dict(waiting).items(), reverse=True):
        _mask_edge(found, model, node, axis, places[axis])
    return model


def _kept(found: Analysis, axis: Axis, places: np.ndarray) -> np.ndarray:
    """A mask without some places, in the rank of its value."""
    mask = np.ones(found.coupling.collected.sizes[axis], bool)
    mask[places] = False
    return per_block(axis, mask, found.traces[0].shapes[axis.value])


def _zero_constant(found: Analysis, model: onnx.ModelProto, axis: Axis, places: np.ndarray) -> None:
    name = found.view.original(axis.value)
    tensors = {t.name: t for t in model.graph.initializer}
    tensors |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    array = numpy_helper.to_array(tensors[name])
    array = array * _kept(found, axis, places).astype(array.dtype)
    tensors[name].CopyFrom(numpy_helper.from_array(array, tensors[name].name))


def _mask_edge(
    found: Analysis, model: onnx.ModelProto, node: int, axis: Axis, places: np.ndarray
) -> None:
    mask = _kept(found, axis, places).astype(found.traces[0].dtypes[axis.value])
    name = f"naive_{node}_{axis.axis}"
    model.graph.initializer.append(numpy_helper.from_array(mask, name))
    inputs = model.graph.node[node].input
    slot = list(inputs).index(axis.value)
    inputs[slot] = f"{name}_masked"
    mul = helper.make_node("Mul", [axis.value, name], [f"{name}_masked"])
    model.graph.node.insert(node, mul)


def narrowed(found: Analysis, group: Group, channels: Sequence[int]) -> onnx.ModelProto:
    """Really cut channels of one group."""
    keeps = keep_masks([(group, channels)], found.coupling.collected.sizes)
    return cut(found.view, found.coupling, found.traces, keeps)
