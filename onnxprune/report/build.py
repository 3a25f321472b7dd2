"""Gather what the stages found into one report value."""

import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx

from onnxprune import __version__
from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.model.cost import Cost, CostModel
from onnxprune.model.view import build_view
from onnxprune.options import Options
from onnxprune.report.inspection import frozen_axes
from onnxprune.report.values import (
    BenchReport,
    Figures,
    GroupChange,
    Latency,
    Ratios,
    RemovedPositions,
)
from onnxprune.rewrite.keeps import Keeps
from onnxprune.runtime.session import RUNTIME_VERSION, Feeds
from onnxprune.runtime.trace import trace

__all__ = [
    "cost_of",
    "figures",
    "group_changes",
    "obstacles",
    "options_used",
    "ratios",
    "removed_positions",
    "versions",
]


def cost_of(model: onnx.ModelProto, base: Path, feed: Feeds) -> Cost:
    """Count a model afresh, from its own shapes."""
    view = build_view(model, base)
    return CostModel(view, trace(view, feed)).total


def figures(cost: Cost, size: int, latency: Latency | None) -> Figures:
    """Round a cost to what it counts."""
    return Figures(round(cost.params), round(cost.macs), size, latency)


def ratios(before: Figures, after: Figures, timed: BenchReport | None) -> Ratios:
    """Divide after by before; latency as the bench says."""

    def ratio(name: str) -> float:
        return float(getattr(after, name)) / max(float(getattr(before, name)), 1.0)

    return Ratios(
        ratio("params"),
        ratio("macs"),
        ratio("bytes"),
        timed.ratio if timed else None,
        timed.interval if timed else None,
        timed.clock if timed else None,
    )


def removed_positions(found: Analysis, keeps: Keeps) -> tuple[RemovedPositions, ...]:
    """List every axis that was cut, in the original's names and index."""
    constants = found.view.uses
    entries = {
        RemovedPositions(
            found.view.original(axis.value),
            axis.axis,
            tuple(np.flatnonzero(~mask).tolist()),
            axis.value in constants,
        )
        for axis, mask in keeps.items()
    }
    return tuple(sorted(entries, key=lambda e: (e.value, e.axis, e.positions)))


def group_changes(
    groups: Sequence[Group],
    removed: Sequence[tuple[Group, Sequence[int]]],
    methods: Mapping[str, str],
) -> tuple[GroupChange, ...]:
    """List all groups with their channels before and after."""
    gone = {group.name: len(channels) for group, channels in removed}
    return tuple(
        GroupChange(
            g.name,
            g.kind,
            g.size,
            g.size - gone.get(g.name, 0),
            g.exact,
            methods.get(g.name, "plan"),
        )
        for g in groups
    )


def options_used(options: Options) -> dict[str, object]:
    """Return all options, defaults included."""
    return {name: str(v) if isinstance(v, Path) else v for name, v in asdict(options).items()}


def versions() -> dict[str, str]:
    """Return the versions that the figures depend on."""
    return {
        "onnxprune": __version__,
        "onnx": onnx.__version__,
        "onnxruntime": RUNTIME_VERSION,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


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
