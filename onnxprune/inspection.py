"""What can be cut, how much of the model that covers, and what stands in the way of the rest."""

from collections.abc import Iterator, Sequence

from onnxprune.analysis import Analysis
from onnxprune.coupling import couple
from onnxprune.coupling.groups import Group
from onnxprune.coupling.relations import Axis
from onnxprune.coupling.solver import Frozen
from onnxprune.model.weights import inputs_of, parameter_counts, plain
from onnxprune.progress import Progress
from onnxprune.report.inspected import Coverage, FrozenAxis, GroupInfo, Inspection
from onnxprune.rewrite.alone import objections

__all__ = ["frozen_axes", "half", "inspect_groups", "obstacles"]

# The operators whose weights a cut is meant to shrink.
WEIGHTED = (
    "Attention",
    "Conv",
    "ConvTranspose",
    "Einsum",
    "GRU",
    "Gather",
    "Gemm",
    "LSTM",
    "MatMul",
    "MoE",
    "RNN",
)

_BOUND = "no channel can go alone: each is bound to others, or its group failed its proof"
_UNBIND = "another layout in the export, or a finer reading of how its axes are split and joined"


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
    cuts = ((g, half(g)) for g in progress.track(groups, len(groups), "groups"))
    reasons = objections(found, cuts) if verify else ("" for _ in groups)
    for group, reason in zip(groups, reasons, strict=True):
        if not reason:
            good.append(group)
        else:
            warnings.append(f"{group.name} cannot be cut: {reason}")
        infos.append(_info(found, group, not reason if verify else None))
    if verify and groups and (remark := found.verifier.remark()):
        warnings.append(remark)
    total = found.costs.total
    return Inspection(
        source=str(found.model.path),
        params=round(total.params),
        macs=round(total.macs),
        bytes=found.model.bytes,
        opset=found.view.opset,
        groups=infos,
        frozen=frozen_axes(found, good),
        coverage=_coverage(found, good),
        dims=found.dims,
        warnings=warnings,
    )


def half(group: Group) -> list[int]:
    """Return every other channel, equally many of each block."""
    order = group.balanced(range(group.size)).reshape(-1, group.step)
    return sorted(order[::2].ravel().tolist())


def _info(found: Analysis, group: Group, verified: bool | None) -> GroupInfo:
    sizes = found.coupling.collected.sizes
    gone = {m.axis.plain: 1 - m.count / sizes[m.axis] for m in group.members if m.axis in sizes}
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
    params, macs = _share(found, groups)
    exact_params, exact_macs = _share(found, [g for g in groups if g.exact])
    return Coverage(params, macs, exact_params, exact_macs)


def _share(found: Analysis, groups: Sequence[Group]) -> tuple[float, float]:
    """Share of weighted operators' parameters and MACs that some of the groups can shrink."""
    whole, missing = (list(_uncovered(found, some).values()) for some in ((), groups))
    shares = []
    for kind in range(2):
        total = sum(cost[kind] for cost in whole)
        shares.append(1 - sum(cost[kind] for cost in missing) / total if total else 0.0)
    return shares[0], shares[1]


def _uncovered(found: Analysis, groups: Sequence[Group]) -> dict[str, tuple[float, float]]:
    """Parameters and MACs of each weight, by its name in the file, that no group shrinks.

    MACs of an operator that multiplies two constants count for the first of them.
    """
    axes = {m.axis.plain for group in groups for m in group.members}
    shrunk = {found.view.original(axis.value) for axis in axes}
    counts = parameter_counts(found.view)
    read = _weights(found)
    names = {found.view.original(value) for values in read.values() for value in values}
    params = {name: 0.0 if name in shrunk else counts.get(name, 0.0) for name in names}
    macs = dict.fromkeys(params, 0.0)
    for term in found.costs.terms:
        if read.get(term.node) and not any(axis in axes for axis in term.axes):
            macs[found.view.original(read[term.node][0])] += term.cost.macs
    return {name: (params[name], macs[name]) for name in params}


def _weights(found: Analysis) -> dict[str, list[str]]:
    """The constants of rank >= 2 that each weighted operator reads, also through Transpose.

    A weight that is computed from none (ConstantOfShape) stands for itself; the file holds no
    parameter of it.
    """
    counts = parameter_counts(found.view)
    constants, shapes = found.coupling.collected.constants, found.traces[0].shapes
    read: dict[str, list[str]] = {}
    for node in found.view.nodes:
        for value in inputs_of(node) if plain(node).op_type in WEIGHTED else ():
            stored = [
                v
                for v in _sources(found, value)
                if found.view.constant(v).ndim >= 2 and found.view.original(v) in counts
            ]
            if not stored and value in constants and value in found.view.producers:
                stored = [value] if len(shapes.get(value, ())) >= 2 else []
            read.setdefault(node.name, []).extend(stored)
    return read


def _sources(found: Analysis, value: str) -> Iterator[str]:
    if found.view.is_constant(value):
        yield value
    elif value in found.coupling.collected.constants and value in found.view.producers:
        for inner in found.view.producers[value].inputs:
            yield from _sources(found, inner)


def frozen_axes(found: Analysis, groups: Sequence[Group]) -> list[FrozenAxis]:
    """Return the frozen axes of weights with what froze them, what costs most coverage first.

    Kernel sizes and other places that hold no channels are left out.

    Parameters
    ----------
    found : Analysis
    groups : sequence of Group
        Those that can be cut: a weight that one of them shrinks costs no coverage.

    Returns
    -------
    list of FrozenAxis
    """
    missing = _uncovered(found, groups)
    listed = []
    for value in dict.fromkeys(v for values in _weights(found).values() for v in values):
        cost = missing[found.view.original(value)]
        axes = [Axis(value, number) for number in range(2)]
        reasons = {axis: found.coupling.frozen.get(axis) for axis in axes}
        if any(cost) and not any(reasons.values()):
            reasons[axes[0]] = Frozen(_BOUND, _UNBIND, axes[0])
        listed += [_frozen_axis(found, a, why, cost) for a, why in reasons.items() if why]
    return sorted(listed, key=lambda f: (-f.macs, -f.params))


def _frozen_axis(
    found: Analysis, axis: Axis, why: Frozen, missing: tuple[float, float]
) -> FrozenAxis:
    node = found.coupling.collected.blame.get(why.axis)
    return FrozenAxis(
        value=found.view.original(axis.value),
        axis=axis.axis,
        node=node.name if node else "",
        op=node.op_type if node else "",
        reason=why.reason,
        source=(found.view.original(why.axis.value), why.axis.axis),
        unlock=why.unlock,
        params=round(missing[0]),
        macs=round(missing[1]),
    )


def _of_interface(found: Analysis) -> str:
    """Say so where the interface alone stands in the way."""
    groups = couple(found.view, found.traces[0], change_interface=True).groups
    return f"; --allow-interface-change frees {len(groups)} groups" if groups else ""


def obstacles(found: Analysis) -> str:
    """Say in one line what freezes most of the weights, operators before the interface.

    Where nothing can be cut at all, say too what would free the first of them.
    """
    cost: dict[str, tuple[bool, float, int]] = {}
    unlocks: dict[str, str] = {}
    for frozen in frozen_axes(found, found.coupling.groups):
        named = not frozen.op or frozen.op in frozen.reason
        what = frozen.reason if named else f"{frozen.op}: {frozen.reason}"
        hopeless = not frozen.op or frozen.unlock.startswith("nothing")
        unlocks[what] = "" if hopeless else f" (to free the first: {frozen.unlock})"
        _, macs, params = cost.get(what, (False, 0.0, 0))
        cost[what] = (bool(frozen.op), macs + frozen.macs, params + frozen.params)
    most = sorted(cost, key=lambda what: cost[what], reverse=True)[:3]
    if not most:
        return "it has no weight that a cut shrinks"
    advice = "" if found.coupling.groups else unlocks[most[0]] or _of_interface(found)
    return f"in the way: {'; '.join(most)}{advice}"
