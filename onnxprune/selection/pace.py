"""How long a model will take under any cut: its operators' times, corrected on whole models."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain

from onnxprune.analysis import Analysis
from onnxprune.bench.cache import recall, remember
from onnxprune.bench.operators import Operator, find_operators
from onnxprune.bench.sweep import fill, operator_timer
from onnxprune.bench.table import LatencyTable, load_table
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps
from onnxprune.coupling.relations import Axis
from onnxprune.errors import UsageError
from onnxprune.model.cost import CostModel, Term, fractions
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.selection.correction import corrected
from onnxprune.selection.parts import Parts

__all__ = ["Pace", "paced"]

_SURE = 0.1  # relative error of the corrected sum that goes without saying
_STALE = 0.05  # and from which the operators are timed anew
_RETAKES = 2


@dataclass(frozen=True, slots=True, eq=False)
class Pace:
    """A model's predicted latency.

    Attributes
    ----------
    profiles : tuple of tuple of Term
        Times of the parts at each profile's sizes.
    totals : tuple of float
        Their sums: the latency of the original.
    steps : mapping of Axis to int
        Widths that pay are multiples of these.
    table : LatencyTable
        Also how its times add up in this model.
    here : bool
        Whether the table is this machine's, so that a measurement can hold it to its word.
    notes : tuple of str
        What the user should know.
    """

    profiles: tuple[tuple[Term, ...], ...]
    totals: tuple[float, ...]
    steps: Mapping[Axis, int]
    table: LatencyTable
    here: bool
    notes: tuple[str, ...]

    @property
    def terms(self) -> list[Term]:
        """Times whose sum shrinks as the ratios of all profiles do on average."""
        totals = self.totals
        return [
            replace(term, cost=term.cost * (sum(totals) / len(totals) ** 2 / total))
            if len(totals) > 1
            else term
            for terms, total in zip(self.profiles, totals, strict=True)
            for term in terms
        ]

    def left(self, found: Analysis) -> "Pace":
        """Return the pace of what a model without some branches still runs."""
        nodes = {node.name for node in found.view.nodes}

        def runs(term: Term) -> bool:
            return term.node in nodes if term.node else _written(found, term)

        profiles = (tuple(filter(runs, terms)) for terms in self.profiles)
        return replace(self, profiles=tuple(profiles))

    def worst(self, keeps: Keeps) -> float:
        """Return the highest of the profiles' predicted ratios under a cut."""
        kept = fractions(keeps)
        return max(
            sum(t.cost.latency * t.left([kept.get(a, 1.0) for a in t.axes]) for t in terms) / total
            for terms, total in zip(self.profiles, self.totals, strict=True)
        )


def _written(found: Analysis, term: Term) -> bool:
    return not term.axes or term.axes[0].value in found.stated.shapes


def paced(
    found: Analysis, groups: Sequence[Group], options: Options, progress: Progress
) -> tuple[Analysis, Pace | None]:
    """Let a model's costs include its predicted latency, where a latency or no ratio is asked for.

    With no ratio at all, the fastest model is searched that a drop allows.

    Parameters and errors as in :func:`set_pace`, and UsageError for a table of no use.

    Returns
    -------
    Analysis
        With the times among its costs and the steps of its axes.
    Pace or None
    """
    others = (options.macs, options.params, options.size)
    if options.latency is None and any(ratio is not None for ratio in others):
        if options.latency_table is not None:
            msg = "--latency-table serves --latency, or no ratio at all; add one or leave it out"
            raise UsageError(msg)
        return found, None
    pace = set_pace(found, groups, options, progress)
    costs = CostModel(found.view, found.stated, pace.terms)
    return replace(found, costs=costs, steps=pace.steps), pace


def set_pace(
    found: Analysis, groups: Sequence[Group], options: Options, progress: Progress
) -> Pace:
    """Measure the operators of a model (or look them up), and correct their sum on whole models.

    All of it at the sizes of every profile.

    Parameters
    ----------
    found : Analysis
    groups : sequence of Group
        That may be narrowed.
    options : Options
    progress : Progress

    Returns
    -------
    Pace

    Raises
    ------
    InputError
        If the given table cannot be read.
    UsageError
        If the cache folder that was asked for cannot be written.
    """
    progress.stage("table")
    operators = [list(find_operators(found.view, p.stated)) for p in found.timed_at()]
    free = {member.axis.plain for group in groups for member in group.members}
    notes = []
    if options.latency_table is not None:
        table = load_table(options.latency_table)
        machine = table.machine.get("cpu", "another machine")
        notes.append(
            f"latency is predicted from {options.latency_table}, measured on {machine}; "
            "the times measured here are another machine's"
        )
        added = _Sum(found, operators, free, table)
    else:
        added = _measured(found, groups, operators, free, options, progress)
        if not added.error <= _SURE:
            notes.append(
                f"the latency table is off by up to {added.error:.0%} on whole models: "
                "the search may take more tries"
            )
    unknown = sum(part.unknown for part in added.parts)
    if unknown:
        count = sum(map(len, operators))
        notes.append(f"{unknown} of {count} operators are not in the latency table")
    terms = [tuple(part.terms(by)) for part, by in zip(added.parts, added.fits, strict=True)]
    totals = tuple(sum(term.cost.latency for term in part) for part in terms)
    here = options.latency_table is None
    return Pace(tuple(terms), totals, added.steps, added.table, here, tuple(notes))


class _Sum:
    """A table, and how its times add up in a model at every profile's sizes."""

    def __init__(
        self,
        found: Analysis,
        operators: Sequence[Sequence[Operator]],
        free: set[Axis],
        table: LatencyTable,
    ) -> None:
        self.table = table
        self.profiles = found.timed_at()
        self.parts = [
            Parts(found, profile.stated, own, table)
            for profile, own in zip(self.profiles, operators, strict=True)
        ]
        self.steps: dict[Axis, int] = {}
        for axis, step in chain.from_iterable(part.steps(free).items() for part in self.parts):
            self.steps[axis] = max(self.steps.get(axis, 1), step)
        sha = found.model.sha256
        self.fits = [table.fit_of(sha, profile.dims) for profile in self.profiles]
        self.error = max(by.error for by in self.fits)

    def correct(self, found: Analysis, groups: Sequence[Group], options: Options) -> None:
        """Hold the sum to the clock, on the model and some cuts of it."""
        feeds = [profile.feed for profile in self.profiles]
        self.fits = corrected(found, groups, self.parts, feeds, self.steps, options)
        for profile, by in zip(self.profiles, self.fits, strict=True):
            self.table = self.table.with_fit(found.model.sha256, profile.dims, by)
        self.error = max(by.error for by in self.fits)


def _measured(
    found: Analysis,
    groups: Sequence[Group],
    operators: Sequence[Sequence[Operator]],
    free: set[Axis],
    options: Options,
    progress: Progress,
) -> _Sum:
    """Measure what this machine's table lacks; all anew where it does not fit whole models."""
    known = recall(options.cache, threads=options.threads, provider=options.provider)
    fill_ = partial(
        fill,
        operators=list(chain(*operators)),
        free=lambda operator: [axis in free for axis in operator.axes],
        timer=operator_timer(options.threads, options.provider),
        time_limit=options.time_limit,
        progress=progress,
    )
    half = time.monotonic() + options.time_limit / 2
    best = _Sum(found, operators, free, fill_(known))
    best.correct(found, groups, options)
    for _ in range(_RETAKES):
        if best.error <= _STALE or time.monotonic() > half:
            break
        # Whatever else the machine did meanwhile, or when the table was made, only adds time.
        taken = fill_(LatencyTable(known.machine))
        again = _Sum(found, operators, free, best.table.lowered(taken))
        again.correct(found, groups, options)
        if not again.error < best.error:
            break
        best = again
    if best.table.entries != known.entries or best.table.pays != known.pays:
        remember(best.table, options.cache)
    return best
