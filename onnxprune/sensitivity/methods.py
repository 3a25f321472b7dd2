"""Which method measures which groups, on how many samples, and what is known already."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune import __version__
from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, keep_masks
from onnxprune.data.splits import Splits, affordable, drawn
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.progress import Progress, Silent
from onnxprune.recovery.heads import proven_heads
from onnxprune.recovery.recover import enough, fitting
from onnxprune.recovery.refit import refit
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.session import RUNTIME_VERSION, Feeds, Session
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity import perturbation
from onnxprune.sensitivity.batching import samples_at_once
from onnxprune.sensitivity.effort import downstream, effort, samples_within
from onnxprune.sensitivity.gradient import measure as gradient
from onnxprune.sensitivity.narrowed import measure_narrowed
from onnxprune.sensitivity.request import Batches, Request
from onnxprune.sensitivity.store import Store, fingerprint
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from onnxprune.wording import counted

__all__ = ["Task", "measure_groups"]

_FEWEST, _ENOUGH = 8, 32  # samples that channels are perturbed on: ever, and before gradients
_SHARE = 0.5  # of the time limit that perturbing is planned to take
_PASSES = 4  # of what lies downstream of a group, for its curve
_SEEN = 32  # samples that curves are measured on at least


def measure_groups(
    found: Analysis, groups: Sequence[Group], splits: Splits, options: Options, progress: Progress
) -> Sensitivity:
    """Measure what every group's channels are worth, within the time limit.

    Raises
    ------
    UsageError
        If a cache that was asked for cannot be written.
    """
    progress.stage("measure")
    task = Task(found, tuple(groups), splits, options, progress)
    known = task.recalled()
    reasons = [f"{len(known)} groups from the cache"] if known else []
    left = [g for g in groups if g.name not in known]
    measured = Sensitivity({}, 0, 0)
    if left and task.refits:
        refitted = task.narrowed(left)
        known |= refitted
        if refitted:
            then = "are refitted after the cut" if options.recover else "are what was asked for"
            reasons.append(
                f"{counted(len(refitted), 'group')} by reconstruction: only linear and recurrent "
                f"layers read them (or dims of heads that may be turned), and these {then}"
            )
        left = [g for g in left if g.name not in refitted]
    if left:
        measured, why = task.rest(left)
        reasons.append(why)
    for reason in reasons if options.method == "auto" else ():
        progress.note(f"method: {reason}")
    every = {**known, **measured.groups}
    return replace(measured, groups={g.name: every[g.name] for g in groups}, reasons=tuple(reasons))


@dataclass(frozen=True, eq=False)
class Task:
    """Groups to be measured on some samples."""

    found: Analysis
    groups: tuple[Group, ...]
    splits: Splits
    options: Options
    progress: Progress

    @property
    def refits(self) -> bool:
        """Whether groups that linear layers read are ordered for a refit."""
        method = self.options.method
        chosen = method == "auto" and self.options.recover and enough(self.splits)
        return chosen or method == "reconstruction"

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Values whose change counts."""
        return tuple(float_frontier(self.found.view, self.found.traces[0]))

    @cached_property
    def widths(self) -> Mapping[str, Sequence[int]]:
        """What every group may be narrowed to."""
        sizes = self.found.coupling.collected.sizes
        return {g.name: allowed_widths(g, 1, sizes) for g in self.groups}

    @cached_property
    def size(self) -> int:
        """Samples per batch."""
        return samples_at_once(self.found)

    def batches(self, most: int | None = None) -> Batches:
        """Return the samples to fit and to select on, at most so many of each."""
        held = self.splits.select[: None if most is None else max(most, _FEWEST)]
        return Batches(self.feeds(self.splits.fit[:most]), self.feeds(held))

    def feeds(self, indices: NDArray[np.int64]) -> list[Feeds]:
        """Return samples in batches."""
        return list(self.found.samples.feeds(indices, self.size))

    @cached_property
    def store(self) -> Store | None:
        """Where groups are kept, if anywhere."""
        if self.options.cache is None:
            return None
        every = self.batches()
        options = self.options
        chosen = (options.method, options.recover, options.seed, options.allow_interface_change)
        settings = (*chosen, self.outputs, sorted(self.widths.items()))
        texts = (self.found.model.sha256, repr(settings), __version__, RUNTIME_VERSION)
        return Store(self.options.cache, fingerprint(texts, (*every.fit, *every.select)))

    def recalled(self) -> dict[str, GroupSensitivity]:
        """Return the groups that the cache knows; spoilt files are passed over."""
        known = {}
        for group in self.groups if self.store is not None else ():
            try:
                found = self.store.load(group) if self.store is not None else None
            except ValueError as error:
                self.progress.note(f"cache: what was kept of {group.name} is ignored: {error}")
                continue
            if found is not None:
                known[group.name] = found
        return known

    def _keep(self, name: str, found: GroupSensitivity) -> None:
        if self.store is not None:
            self.store.save(next(g for g in self.groups if g.name == name), found)

    def narrowed(self, groups: Sequence[Group]) -> dict[str, GroupSensitivity]:
        """Measure by reconstruction the groups that only linear and recurrent layers read."""
        macs, seed = self.found.costs.total.macs, self.options.seed
        fit = affordable(self.splits.fit, macs, seed)
        recovers = self.options.recover and enough(self.splits)
        carried = {m.axis.value for g in groups for m in g.members if g.kind == "head_dim"}
        heads = proven_heads(self.found, carried, self.feeds(fit), seed=seed) if recovers else []
        seen = measure_narrowed(
            self.found.view,
            self.found.traces[0],
            self.found.coupling,
            groups,
            Batches(self.feeds(fit), self.feeds(self._seen(groups))),
            outputs=self.outputs,
            seed=self.options.seed,
            progress=self.progress,
            refitted=self._refitted if recovers else None,
            heads=heads,
        )
        for name, group in seen.items():
            self._keep(name, group)
        return seen

    def _seen(self, groups: Sequence[Group]) -> NDArray[np.int64]:
        """Draw the samples that curves are measured on: fewer of large networks."""
        shares = sum(downstream(self.found, group) for group in groups)
        work = _PASSES * shares * self.found.costs.total.macs
        most = samples_within(self.options.time_limit, work)
        return drawn(self.splits.select, max(most, _SEEN), self.options.seed)

    def _refitted(
        self, group: Group, gone: NDArray[np.int64], nodes: Collection[int]
    ) -> tuple[onnx.ModelProto, Keeps] | None:
        """Cut channels of one group, and refit some layers."""
        found, progress = self.found, Silent()
        keeps = keep_masks([(group, gone)], found.coupling.collected.sizes)
        if {axis.value for axis in keeps} & {*found.view.inputs, *found.view.outputs}:
            return None  # the original's samples do not fit what is narrower outside as well
        try:
            model = cut(found.view, found.coupling, found.traces, keeps)
        except UnrepresentableError:
            return None
        seed = self.options.seed
        feeds = fitting(found, self.splits.fit, seed)
        made = refit(
            found.view, found.traces[0], found.coupling.collected, model, keeps, feeds,
            seed=seed, progress=progress, only=nodes,
        )  # fmt: skip
        return made.model, keeps

    def rest(self, groups: Sequence[Group]) -> tuple[Sensitivity, str]:
        """Perturb, or sketch by gradients what cannot be perturbed in time; also say why."""
        work = {group.name: effort(self.found, group) for group in groups}
        affordable = self._affordable(sum(work.values()))
        available = len(self.splits.fit)
        fits = affordable >= min(_ENOUGH, available)
        method = self.options.method
        if method == "gradient" or (method in {"auto", "reconstruction"} and not fits):
            why = f"{counted(len(groups), 'group')} by gradient on {counted(available, 'sample')}"
            why += "" if fits else f": there is time to perturb on {int(affordable)} only"
            measured = self._run(gradient.measure, groups, work, None)
            for name, group in measured.groups.items():
                self._keep(name, group)
            exact = sum(group.method == "perturbation" for group in measured.groups.values())
            return measured, why + (f"; {exact} of them perturbed after its check" if exact else "")
        count = int(np.clip(affordable, min(_FEWEST, available), available))
        why = f"{counted(len(groups), 'group')} by perturbation on {counted(count, 'sample')}"
        if method != "perturbation":
            why += ": exact, and fits the time limit"
        measure = partial(perturbation.measure, done=self._keep)
        return self._run(measure, groups, work, count), why

    def _run(
        self,
        measure: Callable[[Request], Sensitivity],
        groups: Sequence[Group],
        work: Mapping[str, float],
        count: int | None,
    ) -> Sensitivity:
        asked = Request(
            view=self.found.view,
            trace=self.found.traces[0],
            coupling=self.found.coupling,
            groups=groups,
            batches=self.batches(count),
            widths={g.name: self.widths[g.name] for g in groups},
            outputs=self.outputs,
            work=work,
            time_limit=self.options.time_limit,
            progress=self.progress,
            jobs=self.options.jobs,
        )
        return measure(asked)

    def _affordable(self, forwards: float) -> float:
        """Return on how many samples so many passes can be made in the time that is planned."""
        feed = next(iter(self.feeds(np.arange(min(_FEWEST, len(self.found.samples))))))
        session = Session(self.found.view.real)
        session.run(feed)
        start = time.process_time()
        session.run(feed)
        seconds = (time.process_time() - start) / _FEWEST
        allowed = _SHARE * self.options.time_limit * self.options.jobs
        return allowed / max(forwards * seconds, 1e-9)
