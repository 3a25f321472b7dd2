"""Exact perturbation of many groups: who measures what, and in how much time."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from onnxprune.progress import Silent
from onnxprune.runtime.session import batch_size
from onnxprune.sensitivity.measurer import Measurer
from onnxprune.sensitivity.request import Request
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from onnxprune.sensitivity.workers import spread

__all__ = ["measure"]

_LEAST = 0.25  # of an even share, for what takes hardly any work but a session
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
    effort = {g.name: asked.work.get(g.name, 1.0) for g in asked.groups}
    ordered = sorted(asked.groups, key=lambda g: effort[g.name])
    work = [effort[group.name] for group in ordered]
    shares = _Shares(work, _SHARE * asked.time_limit, asked.jobs)
    found: dict[str, GroupSensitivity] = {}
    runs = 0
    each = replace(asked, groups=ordered, progress=Silent())  # a console goes to no other process
    results = spread(Measurer, each, len(ordered), shares.give, asked.jobs)
    for number, (result, count) in asked.progress.track(results, len(ordered), "groups"):
        found[ordered[number].name] = result
        runs += count
        if done is not None:
            done(ordered[number].name, result)
    samples = sum(map(batch_size, asked.batches.fit))
    return Sensitivity({g.name: found[g.name] for g in asked.groups}, samples, runs)


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
        least = _LEAST / (len(self._work) - number)
        return left * min(max(share, least) * self._jobs, 1.0)
