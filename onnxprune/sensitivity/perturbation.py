"""Exact perturbation of many groups: who measures what, and in how much time."""

import time
from collections.abc import Callable, Sequence

from onnxprune.runtime.session import batch_size
from onnxprune.sensitivity.levels import measured_levels
from onnxprune.sensitivity.measurer import Measurer, Setting
from onnxprune.sensitivity.request import Request
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from onnxprune.sensitivity.workers import spread

__all__ = ["measure"]

_SHARE = 0.8  # of the time limit that planned channel runs may take; the rest is for curves


def measure(
    asked: Request, *, done: Callable[[str, GroupSensitivity], None] | None = None
) -> Sensitivity:
    """Measure groups by exact perturbation, one channel at a time.

    Parameters
    ----------
    asked : Request
    done : callable, optional
        Told each group as soon as it is measured.

    Returns
    -------
    Sensitivity
    """
    groups, batches = asked.groups, asked.batches
    levels = {g.name: measured_levels(asked.widths.get(g.name, ()), g.size) for g in groups}
    ordered = tuple(sorted(groups, key=lambda g: asked.work[g.name]))
    setting = Setting(
        asked.view, asked.trace, asked.coupling, ordered, batches, levels, tuple(asked.outputs)
    )
    work = [asked.work[group.name] for group in ordered]
    shares = _Shares(work, _SHARE * asked.time_limit, asked.jobs)
    found: dict[str, GroupSensitivity] = {}
    runs = 0
    results = spread(Measurer, setting, len(ordered), shares.give, asked.jobs)
    for number, (result, count) in asked.progress.track(results, len(ordered), "groups"):
        found[ordered[number].name] = result
        runs += count
        if done is not None:
            done(ordered[number].name, result)
    samples = sum(map(batch_size, batches.fit))
    return Sensitivity({g.name: found[g.name] for g in groups}, samples, runs)


class _Shares:
    """Parts of the time by work: what earlier groups leave over, later ones may take."""

    def __init__(self, work: Sequence[float], seconds: float, jobs: int) -> None:
        self._work, self._jobs = work, jobs
        self._remaining = sum(work)
        self._end = time.monotonic() + seconds

    def give(self, number: int) -> float:
        """Return the seconds that a group may take from now on."""
        left = max(self._end - time.monotonic(), 0.0)
        share = self._work[number] / max(self._remaining, 1e-9)
        self._remaining -= self._work[number]
        return left * min(share * self._jobs, 1.0)
