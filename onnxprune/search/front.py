"""The front: what can be had between the original and the far end, each point with its plan."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.documents import dumps
from onnxprune.errors import BudgetError, UsageError
from onnxprune.model.files import write_text
from onnxprune.quality.drop import drop_interval
from onnxprune.search.candidate import Candidate, Workshop
from onnxprune.search.path import nested_plans
from onnxprune.selection.budget import Budget, farthest

__all__ = ["Point", "check_folder", "front", "undominated", "write_front"]

_MOST = 8  # points that are made
_COSTS = ("latency", "bytes", "macs", "params")


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A candidate with everything that a person chooses by.

    Attributes
    ----------
    candidate : Candidate
    ratios : mapping of quantity to ratio
        Latency as measured against the original, the others as counted.
    latency_interval : (low, high) or None
    drop : float
        On the certifying samples.
    drop_interval : (low, high) or None
    """

    candidate: Candidate
    ratios: dict[str, float]
    latency_interval: tuple[float, float] | None
    drop: float
    drop_interval: tuple[float, float] | None

    def entry(self, plan: str, metric: str) -> dict[str, object]:
        """Return what the front's file says of it."""
        return {
            "plan": plan,
            **self.ratios,
            "latency_interval": self.latency_interval and list(self.latency_interval),
            "metric": metric,
            "drop": self.drop,
            "drop_interval": self.drop_interval and list(self.drop_interval),
        }


def front(workshop: Workshop, chosen: Candidate) -> list[Point]:
    """Cut, repair, judge and time plans along a path; leave out what another point beats.

    Parameters
    ----------
    workshop : Workshop
    chosen : Candidate
        That is written: a point, too. Where it lacks residual branches, there are points on the
        path without these as well.

    Returns
    -------
    list of Point
        The fastest last.
    """
    end = farthest(workshop.found.costs.total, "latency" if workshop.pace else "macs")
    points = [_point(workshop, chosen)]
    for shop in workshop.and_shortened(chosen):
        plans = nested_plans(shop, shop.left(end))
        places = np.linspace(0, len(plans) - 1, _MOST) if plans else ()
        for number in sorted({round(place) for place in places}):
            try:
                candidate = shop.finished(shop.make(*plans[number]))
            except BudgetError:  # a group could not be proven, and the others are not enough
                continue
            points.append(_point(workshop, candidate))
    return sorted(undominated(points), key=lambda point: -point.ratios["latency"])


def check_folder(folder: Path) -> None:
    """Refuse, before minutes of work, a folder that cannot be made.

    Raises
    ------
    UsageError
    """
    if folder.exists() or not folder.absolute().parent.is_dir():
        what = "exists already" if folder.exists() else "lies in a folder that does not exist"
        msg = f"--pareto {folder} {what}; name a new folder"
        raise UsageError(msg)


def write_front(workshop: Workshop, chosen: Candidate, folder: Path) -> None:
    """Write the front's table and its plans into a new folder, all or nothing."""
    points = front(workshop, chosen)
    names = [f"plan-{number:02}.json" for number in range(1, len(points) + 1)]
    rows = [p.entry(n, workshop.judge.metric) for p, n in zip(points, names, strict=True)]
    table = {"format": "onnxprune-front/1", "model": str(workshop.found.model.path), "points": rows}
    draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    draft.mkdir()
    try:
        for point, name in zip(points, names, strict=True):
            made = point.candidate
            workshop.plan(made.settled, made.recovered).save(draft / name)
        write_text(draft / "front.json", dumps(table))
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _point(workshop: Workshop, candidate: Candidate) -> Point:
    found = workshop.found
    overhead = max(found.model.bytes - found.costs.total.bytes, 0.0)
    counted = Budget(dict.fromkeys(("bytes", "macs", "params"), 1.0), found.costs.total, overhead)
    saved = candidate.settled.selection.allocation.saved
    saved += found.costs.total - candidate.settled.found.costs.total  # with whole branches
    timed = candidate.timed or workshop.time(candidate.settled, candidate.recovered.model)
    held = workshop.held(candidate)
    return Point(
        candidate,
        {"latency": timed.ratio or 1.0, **counted.reached(saved)},
        timed.interval,
        held.drop,
        drop_interval(held),
    )


def undominated(points: Sequence[Point]) -> list[Point]:
    """Keep the points that no other one equals or beats in every cost and in the drop."""

    def figures(point: Point) -> list[float]:
        return [*(point.ratios[name] for name in _COSTS), point.drop]

    kept: list[Point] = []
    for number, point in enumerate(points):
        mine = figures(point)
        beaten = any(
            all(a <= b for a, b in zip(figures(other), mine, strict=True))
            and (figures(other) != mine or place < number)
            for place, other in enumerate(points)
            if place != number
        )
        if not beaten:
            kept.append(point)
    return kept
