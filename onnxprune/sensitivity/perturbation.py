"""Exact perturbation of many groups: who measures what, and in how much time."""

import time
from collections.abc import Callable, Mapping, Sequence

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.runtime.session import batch_size
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.levels import measured_levels
from onnxprune.sensitivity.measurer import Batches, Measurer, Setting
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from onnxprune.sensitivity.workers import spread

__all__ = ["measure"]

_SHARE = 0.8  # of the time limit that planned channel runs may take; the rest is for curves


def measure(
    view: View,
    trace: Trace,
    coupling: Coupling,
    groups: Sequence[Group],
    batches: Batches,
    widths: Mapping[str, Sequence[int]],
    *,
    outputs: Sequence[str],
    work: Mapping[str, float],
    time_limit: float,
    progress: Progress,
    jobs: int = 1,
    done: Callable[[str, GroupSensitivity], None] | None = None,
) -> Sensitivity:
    """Measure groups by exact perturbation, one channel at a time.

    Parameters
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    groups : sequence of Group
    batches : Batches
    widths : mapping of group name to kept widths
        That the group may be narrowed to; at most eight of them are measured.
    outputs : sequence of str
        Values whose change counts.
    work : mapping of group name to float
        What perturbing all channels of a group takes, in units of its own.
    time_limit : float
        Seconds. Each group gets its share by work, and what groups before it left over. A group
        that does not fit is ordered from fewer samples, or by activation importance if not even
        one batch can be perturbed.
    progress : Progress
    jobs : int
        Processes of one thread; the figures do not depend on it.
    done : callable, optional
        Told each group as soon as it is measured.

    Returns
    -------
    Sensitivity
    """
    levels = {g.name: measured_levels(widths[g.name], g.size) for g in groups}
    ordered = tuple(sorted(groups, key=lambda g: work[g.name]))
    setting = Setting(view, trace, coupling, ordered, batches, levels, tuple(outputs))
    shares = _Shares([work[group.name] for group in ordered], _SHARE * time_limit, jobs)
    found: dict[str, GroupSensitivity] = {}
    runs = 0
    results = spread(Measurer, setting, len(ordered), shares.give, jobs)
    for number, (result, count) in progress.track(results, len(ordered), "groups"):
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
