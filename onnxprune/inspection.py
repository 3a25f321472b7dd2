"""What can be cut, how much of the model that covers, and what stands in the way of the rest."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis
from onnxprune.model.weights import inputs_of, parameter_counts, plain
from onnxprune.progress import Progress
from onnxprune.report.values import Coverage, FrozenAxis, GroupInfo, Inspection
from onnxprune.rewrite.prove import attempt
from onnxprune.rewrite.verify import TOLERANCE

__all__ = ["frozen_axes", "inspect_groups", "obstacles"]

# The operators whose weights a cut is meant to shrink.
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Gather")


def inspect_groups(
    found: Analysis, groups: Sequence[Group], *, verify: bool, progress: Progress
) -> Inspection:
    """Cut every group alone to half, verify it, and add up what the good ones cover.

    Parameters
    ----------
    found : Analysis
    groups : sequence of Group
    verify : bool
        Whether to cut; without it every group counts.
    progress : Progress

    Returns
    -------
    Inspection
    """
    infos, good, warnings = [], [], []
    for group in progress.track(groups, len(groups), "groups"):
        error, reason = attempt(found, [(group, range(0, group.size, 2))]) if verify else (0.0, "")
        if error <= TOLERANCE:
            good.append(group)
        else:
            warnings.append(f"{group.name} cannot be cut: {reason}")
        infos.append(_info(found, group, error <= TOLERANCE if verify else None))
    total = found.costs.total
    return Inspection(
        source=str(found.model.path),
        params=round(total.params),
        macs=round(total.macs),
        bytes=found.model.bytes,
        opset=found.view.opset,
        groups=infos,
        frozen=list(frozen_axes(found)),
        coverage=_coverage(found, good),
        dims=found.dims,
        warnings=warnings,
    )


def _info(found: Analysis, group: Group, verified: bool | None) -> GroupInfo:
    sizes = found.coupling.collected.sizes
    gone = {m.axis: 1 - m.positions.size / sizes[m.axis] for m in group.members if m.axis in sizes}
    saved = found.costs.saved(gone)
    members = [
        (found.view.original(m.axis.value), m.axis.axis, m.positions.shape[1])
        for m in group.members
    ]
    return GroupInfo(
        group.name,
        group.kind,
        group.size,
        round(saved.params),
        round(saved.macs),
        group.exact,
        members,
        verified,
    )


def _coverage(found: Analysis, groups: Sequence[Group]) -> Coverage:
    def share(chosen: Sequence[Group]) -> tuple[float, float]:
        axes = {m.axis for g in chosen for m in g.members}
        return _covered(found, axes)

    params, macs = share(groups)
    exact_params, exact_macs = share([g for g in groups if g.exact])
    return Coverage(params, macs, exact_params, exact_macs)


def _covered(found: Analysis, axes: set[Axis]) -> tuple[float, float]:
    """Share of weighted operators' parameters and MACs that some axis of ``axes`` can shrink."""
    weights = weight_values(found)
    values = {axis.value for axis in axes}
    counts = parameter_counts(found.view)
    sizes = {found.view.original(v): counts[found.view.original(v)] for v in weights}
    covered = {found.view.original(v) for v in weights if v in values}
    nodes = {n.name: n for n in found.view.nodes}
    macs = {
        t: t.cost.macs
        for t in found.costs.terms
        if t.node and _weighted(found, nodes[t.node].inputs)
    }
    shrunk = sum(cost for term, cost in macs.items() if any(axis in axes for axis in term.axes))
    whole = sum(sizes.values())
    return (
        sum(sizes[v] for v in covered) / whole if whole else 0.0,
        shrunk / sum(macs.values()) if macs else 0.0,
    )


def _weighted(found: Analysis, inputs: Sequence[str]) -> bool:
    return any(value in found.coupling.collected.constants for value in inputs)


def weight_values(found: Analysis) -> list[str]:
    """Return the constants of rank >= 2 that weighted operators read, also through Transpose."""
    wanted: dict[str, None] = {}
    for node in found.view.nodes:
        if plain(node).op_type in WEIGHTED:
            for value in inputs_of(node):
                wanted.update(dict.fromkeys(_sources(found, value)))
    counts = parameter_counts(found.view)
    return [
        v for v in wanted if found.view.constant(v).ndim >= 2 and found.view.original(v) in counts
    ]


def _sources(found: Analysis, value: str) -> Iterator[str]:
    if found.view.is_constant(value):
        yield value
    elif value in found.coupling.collected.constants and value in found.view.producers:
        for inner in found.view.producers[value].inputs:
            yield from _sources(found, inner)


def frozen_axes(found: Analysis) -> Iterator[FrozenAxis]:
    """Yield the frozen axes of weights, with the operator that froze them.

    Kernel sizes and other places that hold no channels are left out.
    """
    for value in weight_values(found):
        for number in range(2):
            axis = Axis(value, number)
            why = found.coupling.frozen.get(axis)
            if why is None:
                continue
            node = found.coupling.collected.blame.get(why.axis)
            source = found.view.original(why.axis.value)
            yield FrozenAxis(
                value=found.view.original(value),
                axis=number,
                node=node.name if node else "",
                op=node.op_type if node else "",
                reason=f"{why.reason} ({source}, axis {why.axis.axis})",
                unlock=why.unlock,
            )


def obstacles(found: Analysis) -> str:
    """Say in one line which operators freeze most of the weights."""
    weight: dict[str, int] = defaultdict(int)
    for frozen in frozen_axes(found):
        what = (
            f"{frozen.op}: {frozen.reason.split(' (')[0]}"
            if frozen.op
            else frozen.reason.split(" (")[0]
        )
        weight[what] += 1
    most = sorted(weight, key=lambda what: -weight[what])[:3]
    return f"frozen are axes by {', '.join(most)}" if most else "no axis is frozen"
