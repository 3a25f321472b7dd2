"""All channels from a few backward passes, checked against a few exact removals.

A channel's loss changes the output by about -x g, summed over what its exits read. Random signs on
the outputs turn all channels' changes into vectors of one number per sample and cotangent, whose
sums and norms stand for those of the true changes.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Group
from onnxprune.progress import Progress
from onnxprune.runtime.session import Feeds, batch_size
from onnxprune.sensitivity import perturbation
from onnxprune.sensitivity.agreement import Ranks, compare
from onnxprune.sensitivity.gradient.doubt import doubtful, probes
from onnxprune.sensitivity.gradient.masked import Masked
from onnxprune.sensitivity.gradient.vectors import Sketches, sketch
from onnxprune.sensitivity.levels import measured_levels
from onnxprune.sensitivity.order import greedy_order
from onnxprune.sensitivity.request import Request
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity

__all__ = ["measure"]

Scores = NDArray[np.float64]


def measure(
    asked: Request, *, cotangents: int | None = None, check: bool = True, seed: int = 0
) -> Sensitivity:
    """Measure groups by reverse-mode sketches of what each channel's loss does to the output.

    Groups that an operator without a rule cuts off from the outputs are perturbed instead; so are
    those that the check finds ranked badly, and what takes next to no time.

    Parameters
    ----------
    asked : Request
        ``jobs`` is for what falls back; without narrower widths there is no curve.
    cotangents : int, optional
        Per sample; 4 by default, up to 8 where samples are few.
    check : bool
        Whether a few channels are removed exactly, to say how well the ranking agrees.
    seed : int

    Returns
    -------
    Sensitivity
        With ``agreement``: the rank correlations with the exact removals.
    """
    deadline, rng = time.monotonic() + asked.time_limit, np.random.default_rng(seed)
    batches, groups = asked.batches, asked.groups
    made = sketch(
        asked.view, asked.trace, asked.coupling, groups, batches.fit,
        outputs=asked.outputs, count=cotangents, checked=check, rng=rng,
    )  # fmt: skip
    exact = _Exact(asked)
    known = [g for g in groups if g.name in made.vectors]
    probed = exact.probed(known, made, rng) if check and known else {}
    agreement = compare(probed) if probed else None
    if agreement is not None and agreement.pooled is not None:
        asked.progress.note(f"gradient: {_said(agreement)}")
    found = exact.outright(doubtful(known, probed, asked.work), deadline) if probed else {}
    found |= exact.results([g for g in known if g.name not in found], made, deadline)
    runs = made.passes + exact.runs
    if slow := [g for g in groups if g.name not in made.vectors]:
        _tell(slow, made, asked.progress)
        left = max(deadline - time.monotonic(), 0.0)
        rest = perturbation.measure(replace(asked, groups=slow, time_limit=left))
        found |= rest.groups
        runs += rest.runs
    every = {g.name: found[g.name] for g in groups}
    return Sensitivity(every, sum(map(batch_size, batches.fit)), runs, agreement)


def _tell(slow: Sequence[Group], made: Sketches, progress: Progress) -> None:
    """Say which groups are measured the slow way, and why."""
    for why in dict.fromkeys(made.missing[g.name] for g in slow):
        names = ", ".join(g.name for g in slow if made.missing[g.name] == why)
        progress.note(f"gradient: no derivative ({why}); measured by perturbation: {names}")


def _said(ranks: Ranks) -> str:
    inside = f", {ranks.median:.3f} inside a group" if ranks.median is not None else ""
    return f"rank correlation with exact removals {ranks.pooled:.3f}{inside}"


@dataclass
class _Exact:
    """What is measured by really taking channels away: probes and curves."""

    asked: Request
    runs: int = 0

    def _masked(self, groups: Sequence[Group], feeds: Sequence[Feeds]) -> Masked:
        asked = self.asked
        return Masked(asked.view, asked.trace, asked.coupling, groups, asked.outputs, feeds)

    def probed(
        self, groups: Sequence[Group], made: Sketches, rng: np.random.Generator
    ) -> dict[str, tuple[Scores, Scores]]:
        """Remove a few channels of each group: exact scores and estimates on the same samples."""
        masked, counts = self._masked(groups, [made.first]), probes(groups)
        pairs = {}
        for group in groups:
            channels = rng.permutation(group.size)[: counts[group.name]]
            vectors = made.vectors[group.name][channels, : made.columns[group.name]]
            exact = np.array([masked.error(group, [int(c)]) for c in channels])
            pairs[group.name] = (exact, (vectors.astype(np.float64) ** 2).sum(axis=1))
            self.runs += len(channels)
        return pairs

    def outright(self, groups: Sequence[Group], deadline: float) -> dict[str, GroupSensitivity]:
        """Perturb all channels of some groups; what time cuts short is left out."""
        left = (deadline - time.monotonic()) / 2  # the rest is for curves
        if not groups or left <= 0:
            return {}
        made = perturbation.measure(replace(self.asked, groups=groups, time_limit=left))
        self.runs += made.runs
        found = {name: group for name, group in made.groups.items() if group.samples is None}
        names = ", ".join(found)
        if found:
            self.asked.progress.note(
                f"gradient: ranks too unlike the exact ones, or next to no "
                f"work: measured by perturbation: {names}"
            )
        return found

    def results(
        self, groups: Sequence[Group], made: Sketches, deadline: float
    ) -> Iterator[tuple[str, GroupSensitivity]]:
        """Order every group's channels and measure its curve."""
        feeds, widths = self.asked.batches.select, self.asked.widths
        levels = {g.name: measured_levels(widths.get(g.name, ()), g.size) for g in groups}
        narrowed = [g for g in groups if len(levels[g.name]) > 1]
        masked = self._masked(narrowed, feeds) if narrowed else None
        for group in groups:
            table = made.vectors[group.name]
            order = group.balanced(greedy_order(table))
            scores = (table.astype(np.float64) ** 2).sum(axis=1)
            kept = levels[group.name]
            errors = joint_errors(table, order)[group.size - kept]
            if masked is not None:
                errors = self._curve(masked, group, order, kept, errors, deadline)
                self.runs += len(kept) * len(feeds)
            errors = np.maximum.accumulate(errors)
            yield group.name, GroupSensitivity(order, scores, kept, errors, "gradient", table)

    def _curve(
        self,
        masked: Masked,
        group: Group,
        order: NDArray[np.int64],
        widths: NDArray[np.int64],
        sketched: NDArray[np.float64],
        deadline: float,
    ) -> NDArray[np.float64]:
        """Measure the widths from the narrowest cut on; past the deadline the sketch goes on."""
        errors, factor = np.zeros(len(widths)), 1.0
        for place, width in enumerate(widths.tolist()):
            if place > 1 and time.monotonic() > deadline:
                errors[place] = factor * sketched[place]
                continue
            errors[place] = masked.error(group, order[: group.size - width].tolist())
            factor = errors[place] / sketched[place] if sketched[place] > 0 else 1.0
        return errors


def joint_errors(table: NDArray[np.float32], order: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the squared norm of the summed change of the first k channels, for every k."""
    sums = np.cumsum(table[order].astype(np.float64), axis=0)
    return np.concatenate([[0.0], (sums**2).sum(axis=1)])
