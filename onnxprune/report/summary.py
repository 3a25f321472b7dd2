"""Gather what the stages found into one report value."""

import platform
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import onnx

from onnxprune import __version__
from onnxprune.analysis import Analysis
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, named, narrow
from onnxprune.data.splits import Splits
from onnxprune.layers.branches import dead_nodes
from onnxprune.model.cost import Cost, CostModel
from onnxprune.model.files import LARGEST_PROTO
from onnxprune.model.functions import first_output
from onnxprune.model.peak import peak_activations
from onnxprune.model.scopes import graphs_of, numbered_nodes
from onnxprune.model.view import build_view
from onnxprune.model.weights import plain
from onnxprune.options import Options
from onnxprune.quality.values import Drop
from onnxprune.recovery.recover import Recovered
from onnxprune.report.values import (
    Figures,
    GroupChange,
    InterfaceChange,
    Ratios,
    RemovedPositions,
    Report,
)
from onnxprune.rewrite.collapse import collapse
from onnxprune.rewrite.prove import Proven
from onnxprune.runtime.session import RUNTIME_VERSION
from onnxprune.runtime.trace import trace
from onnxprune.selection.settle import Settled
from onnxprune.sensitivity.values import Sensitivity

__all__ = ["noise", "notes", "report", "synthetic", "types", "versions"]

_SYNTHETIC = (
    "no --data: measured on synthetic inputs, which say little about real ones; "
    "the drop on real inputs may be far larger"
)

_NO_KERNELS = (
    "onnxruntime does not run this model in its own types here: it was proven, measured and timed "
    "as its fp32 clone; the file keeps its types"
)
_LAYERS = ("Conv", "Gemm", "MatMul", "LSTM")
_NOT_REFITTED = (
    "{ops}: these layers are not refitted; weights behind DequantizeLinear are (quantize to QDQ)"
)


def synthetic(found: Analysis) -> list[str]:
    """Say loudly what synthetic inputs are worth."""
    return [_SYNTHETIC] if found.samples.synthetic else []


def types(found: Analysis) -> list[str]:
    """Say what the model's own types keep from being done."""
    said = []
    if not found.native:
        said.append(_NO_KERNELS)
    whole = [n.op_type for n in found.view.nodes if plain(n).data and plain(n).op_type in _LAYERS]
    rounded = sorted({op for op in whole if op not in _LAYERS})
    if rounded:
        said.append(_NOT_REFITTED.format(ops=", ".join(rounded)))
    return said


def noise(found: Analysis, proven: Proven) -> list[str]:
    """Say where rounding is so large that cuts were verified to less than usual."""
    remark = found.verifier.remark() if proven.keeps else ""
    return [remark] if remark else []


def notes(splits: Splits, settled: Settled, measured: Sensitivity) -> list[str]:
    """Say what the user should know about how the selection came about."""
    found = [f"{name} stays whole: {why}" for name, why in settled.proven.guilty.items()]
    if splits.shared:
        found.append("fewer than 4 samples: the same ones measured, selected and judged")
    if settled.selection.multiple_of < 4 and not settled.selection.steps:
        found.append("widths off multiples of 4 were needed: the result may not be faster")
    cheap = [g for g in measured.groups.values() if g.method == "activation"]
    if cheap:
        found.append(
            f"{len(cheap)} of {len(measured.groups)} groups were ordered by activation importance: "
            "perturbing each channel did not fit the time limit (--time-limit)"
        )
    if fewer := [g for g in measured.groups.values() if g.samples]:
        found.append(
            f"{len(fewer)} of {len(measured.groups)} groups were ordered from fewer samples than "
            "planned: the time was up (--time-limit)"
        )
    return found


def report(
    found: Analysis,
    proven: Proven,
    recovered: Recovered,
    timed: BenchReport,
    drop: Drop | None,
    options: Options,
    remarks: Sequence[str],
    measured: Sensitivity | None = None,
) -> Report:
    """Put everything together; the model is counted afresh, from its own shapes.

    Parameters
    ----------
    found : Analysis
    proven : Proven
    recovered : Recovered
        What is going to be written.
    timed : BenchReport
        Of the original and the result.
    drop : Drop
    options : Options
    remarks : sequence of str
    measured : Sensitivity, optional

    Returns
    -------
    Report
    """
    original = found.original
    before = _before(original, timed)
    after, inlined = _after(found, recovered.model, proven.keeps, timed)
    own = [*synthetic(found), *types(found), *noise(found, proven)]
    slow = [] if timed.verdict == "faster" else [f"the result is not faster: {timed.verdict}"]
    return Report(
        source=str(found.model.path),
        target=None,
        before=before,
        after=after,
        ratios=_ratios(before, after, timed),
        drop=drop,
        removed=_removed(found, proven.keeps),
        groups=_with_methods(_changes(found, proven.removed), measured),
        verified={"max_rel_error": proven.error, "samples": len(found.probes)},
        dims=found.dims,
        options={field.name: _said(options, field.name) for field in fields(options)},
        seconds={},
        seed=options.seed,
        versions=versions(),
        warnings=[*own, *remarks, *inlined, *timed.warnings, *slow],
        refitted=recovered.refitted,
        rotated=recovered.rotated,
        rescaled=_rescaled(found, proven.keeps),
        added=_added(original.view.model, recovered.model),
        profiles=timed.profiles,
        interface=_interface(found, proven.keeps),
        removed_nodes=_gone(found),
    )


def _said(options: Options, name: str) -> object:
    """Return an option as the report holds it: of arrays, only that they were given."""
    value = getattr(options, name)
    if isinstance(value, Path):
        return str(value)
    held = name in {"data", "labels"} and value is not None and not isinstance(value, str)
    return "(in memory)" if held else value


def _with_methods(groups: Sequence[GroupChange], measured: Sensitivity | None) -> list[GroupChange]:
    """Fill in how each group's channels were ordered."""
    methods = measured.groups if measured is not None else {}
    return [replace(g, method=methods[g.name].method) if g.name in methods else g for g in groups]


def _before(found: Analysis, timed: BenchReport) -> Figures:
    peak = peak_activations(found.view, found.stated)
    return _figures(found.costs.total, found.model.bytes, timed.latency_ms[0], peak)


def _after(
    found: Analysis, model: onnx.ModelProto, keeps: Keeps, timed: BenchReport
) -> tuple[Figures, list[str]]:
    """Count a model afresh; say which functions it no longer calls."""
    view = build_view(model, found.model.path)
    seen = trace(view, narrow(found.stated_feed(), keeps))
    cost = CostModel(view, seen).total
    size = found.model.bytes - round(found.original.costs.total.bytes - cost.bytes)
    collapsed = collapse(found.expansion, model)
    if collapsed.model.ByteSize() < LARGEST_PROTO:
        size = len(collapsed.model.SerializeToString())
    names = ", ".join(collapsed.inlined)
    notes = [f"calls of functions are written out where cuts ask for it: {names}"] if names else []
    return _figures(cost, size, timed.latency_ms[1], peak_activations(view, seen)), notes


def _figures(cost: Cost, size: int, latency: Latency | None, peak: int) -> Figures:
    return Figures(round(cost.params), round(cost.macs), size, latency, peak)


def _ratios(before: Figures, after: Figures, timed: BenchReport) -> Ratios:
    def ratio(name: str) -> float:
        return float(getattr(after, name)) / max(float(getattr(before, name)), 1.0)

    return Ratios(
        ratio("params"),
        ratio("macs"),
        ratio("bytes"),
        timed.ratio,
        timed.interval,
        timed.clock,
    )


def _removed(found: Analysis, keeps: Keeps) -> tuple[RemovedPositions, ...]:
    """List every axis that was cut, in the original's names and index."""
    entries = {
        RemovedPositions(
            found.view.original(axis.value),
            axis.axis,
            tuple(np.flatnonzero(~mask).tolist()),
            axis.value in found.view.uses,
            axis.by if axis.by >= 0 else None,
        )
        for axis, mask in named(keeps)
    }
    return tuple(sorted(entries, key=lambda e: (e.value, e.axis, e.positions)))


def _interface(found: Analysis, keeps: Keeps) -> tuple[InterfaceChange, ...]:
    """List what became of graph inputs and outputs, in their order."""
    cuts = named(keeps)
    return tuple(
        InterfaceChange(
            value,
            role,
            axis.axis,
            size := found.traces[0].shapes[value][axis.axis],
            int(mask.sum()) * size // len(mask),
            tuple(np.flatnonzero(mask).tolist()),
            axis.by if axis.by >= 0 else None,
        )
        for role, values in (("input", found.view.inputs), ("output", found.view.outputs))
        for value in values
        for axis, mask in cuts
        if axis.value == value
    )


def _rescaled(found: Analysis, keeps: Keeps) -> tuple[str, ...]:
    """Name the constants that make up for a changed statistic; the node, for an attribute."""
    names: dict[str, None] = {}
    nodes = found.view.by_index
    for undone in found.coupling.collected.rescaled:
        if undone.axis in keeps:
            for edge in undone.powers:
                names[found.view.original(nodes[edge.node].inputs[edge.slot])] = None
            if undone.epsilon is not None:
                names[nodes[undone.epsilon].name] = None
    return tuple(names)


def _added(before: onnx.ModelProto, after: onnx.ModelProto) -> tuple[str, ...]:
    """Name what the original does not have: biases, and shapes of layers that part in width."""

    def names(model: onnx.ModelProto) -> list[str]:
        initializers = (t.name for graph in graphs_of(model.graph) for t in graph.initializer)
        return [*initializers, *(v for node in numbered_nodes(model) for v in node.output)]

    known = set(names(before))
    return tuple(name for name in names(after) if name not in known)


def _gone(found: Analysis) -> tuple[str, ...]:
    """Name the nodes that went with whole branches, or as states are read where they are made."""
    left = {first_output(node) for node in found.expansion.source.graph.node}
    before = found.model.proto.graph.node
    joins = [n.name or first_output(n) for n in before if first_output(n) not in left]
    return (*joins, *(n.name for n in dead_nodes(found.original.view, found.view.model)))


def _changes(
    found: Analysis, removed: Sequence[tuple[Group, Sequence[int]]]
) -> tuple[GroupChange, ...]:
    """List all groups with their channels before and after; none where a whole branch went."""
    left = {group.name: group.size for group in found.coupling.groups}
    left |= {group.name: group.size - len(channels) for group, channels in removed}
    return tuple(
        GroupChange(g.name, g.kind, g.size, left.get(g.name, 0), g.exact, "plan")
        for g in found.original.coupling.groups
    )


def versions() -> dict[str, str]:
    """Return the versions of what figures depend on."""
    return {
        "onnxprune": __version__,
        "onnx": onnx.__version__,
        "onnxruntime": RUNTIME_VERSION,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
