"""How long a model will take under any cut: its operators' times, corrected on whole models."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.bench.cache import recall, remember
from onnxprune.bench.clock import race
from onnxprune.bench.fit import Fit, fit
from onnxprune.bench.operators import Operator, find_operators
from onnxprune.bench.sweep import fill, operator_timer
from onnxprune.bench.table import Entry, LatencyTable, Pays, load_table
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, keep_masks, narrow
from onnxprune.coupling.relations import Axis
from onnxprune.errors import UsageError
from onnxprune.model.cost import Cost, CostModel, Term, fractions
from onnxprune.model.view import Node
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.session import Feeds, RunFailedError
from onnxprune.runtime.trace import Trace
from onnxprune.selection.widths import paying_widths

__all__ = ["Pace", "paced"]

_CUTS = 4  # whole models that the sum is corrected on, beside the original
_SURE = 0.1  # relative error of the corrected sum that goes without saying
# Views of the same memory, and what is done inside a convolution.
_FREE = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Shape"})
_FUSED = frozenset({"BatchNormalization", "Relu", "Clip", "LeakyRelu", "HardSigmoid"})


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
    profiles = found.timed_at()
    operators = [list(find_operators(found.view, profile.stated)) for profile in profiles]
    free = {member.axis.plain for group in groups for member in group.members}
    table, notes = _table(list(chain(*operators)), free, options, progress)
    parts = [
        _Parts(found, profile.stated, own, table)
        for profile, own in zip(profiles, operators, strict=True)
    ]
    unknown = sum(part.unknown for part in parts)
    if unknown:
        count = sum(map(len, operators))
        notes.append(f"{unknown} of {count} operators are not in the latency table")
    steps: dict[Axis, int] = {}
    for axis, step in chain.from_iterable(part.steps(free).items() for part in parts):
        steps[axis] = max(steps.get(axis, 1), step)
    here = options.latency_table is None
    if here:
        feeds = [profile.feed for profile in profiles]
        fits = _corrected(found, groups, parts, feeds, steps, options)
        for profile, correction in zip(profiles, fits, strict=True):
            table = table.with_fit(found.model.sha256, profile.dims, correction)
        error = max(correction.error for correction in fits)
        if not error <= _SURE:
            notes.append(
                f"the latency table is off by up to {error:.0%} on whole models: "
                "the search may take more tries"
            )
    terms = [
        part.terms(table.fit_of(found.model.sha256, profile.dims))
        for part, profile in zip(parts, profiles, strict=True)
    ]
    totals = tuple(sum(term.cost.latency for term in part) for part in terms)
    return Pace(tuple(map(tuple, terms)), totals, steps, table, here, tuple(notes))


def _table(
    operators: Sequence[Operator], free: set[Axis], options: Options, progress: Progress
) -> tuple[LatencyTable, list[str]]:
    if options.latency_table is not None:
        table = load_table(options.latency_table)
        machine = table.machine.get("cpu", "another machine")
        return table, [
            f"latency is predicted from {options.latency_table}, measured on {machine}; "
            "the times measured here are another machine's"
        ]
    table = recall(options.cache, threads=options.threads, provider=options.provider)
    fuller = fill(
        table,
        operators,
        lambda operator: [axis in free for axis in operator.axes],
        operator_timer(options.threads, options.provider),
        time_limit=options.time_limit,
        progress=progress,
    )
    if len(fuller.entries) + len(fuller.pays) > len(table.entries) + len(table.pays):
        remember(fuller, options.cache)
    return fuller, []


class _Parts:
    """The operators of a model with their entries, and what the others write."""

    def __init__(
        self,
        found: Analysis,
        stated: Trace,
        operators: Sequence[Operator],
        table: LatencyTable,
    ) -> None:
        known = {o.signature: table.entries.get(o.signature) for o in operators}
        self.unknown = sum(known[o.signature] is None for o in operators)
        rates = [e.whole / o.macs for o in operators if (e := known[o.signature]) and o.macs]
        rate = float(np.median(rates)) if rates else 1.0
        self.operators = [(o, known[o.signature] or _guess(o, rate)) for o in operators]
        timed = {o.node.index for o in operators}
        self.others = [
            (axes, float(prod(stated.shapes[axes[0].value])))
            for node in found.view.nodes
            if node.index not in timed and not _is_free(found, node)
            for value in node.outputs
            if (axes := _axes(stated, value))
        ]

    def terms(self, by: Fit) -> list[Term]:
        """Price the parts; the original's latency is their sum."""
        return [
            *(
                Term(o.node.name, Cost(0, 0, 0, by.scale * entry.whole), o.axes, entry.left)
                for o, entry in self.operators
            ),
            *(Term("", Cost(0, 0, 0, by.per_element * size), axes) for axes, size in self.others),
            Term("", Cost(0, 0, 0, by.fixed), ()),
        ]

    def features(self, keeps: Keeps) -> tuple[float, float]:
        """Return the table's sum and the elements that the others write, under a cut."""
        kept = fractions(keeps)
        table = sum(
            entry.whole * entry.left([kept.get(axis, 1.0) for axis in o.axes])
            for o, entry in self.operators
        )
        written = sum(s * prod(kept.get(axis, 1.0) for axis in axes) for axes, s in self.others)
        return table, written

    def steps(self, free: set[Axis]) -> dict[Axis, int]:
        """Return what every axis's width should be a multiple of: the largest of its readers'."""
        found: dict[Axis, int] = {}
        for operator, entry in self.operators:
            for axis, step in zip(operator.axes, entry.pays.steps, strict=True):
                if axis in free:
                    found[axis] = max(found.get(axis, 1), step)
        return found


def _guess(operator: Operator, rate: float) -> Entry:
    """Take an operator that the table does not know to be as fast as the others."""
    levels = tuple((width,) for width in operator.widths)
    time = np.full((1,) * len(levels), max(rate * operator.macs, 1.0))
    return Entry(levels, time, Pays((1,) * len(levels)))


def _axes(stated: Trace, value: str) -> tuple[Axis, ...]:
    shape = stated.shapes.get(value, ()) if value else ()
    return tuple(Axis(value, number) for number in range(len(shape)))


def _is_free(found: Analysis, node: Node) -> bool:
    if node.op_type in _FREE:
        return True
    before = found.view.producers.get(node.inputs[0]) if node.inputs else None
    return (
        node.op_type in _FUSED
        and before is not None
        and before.op_type in {"Conv", "BatchNormalization"}
    )


def _corrected(
    found: Analysis,
    groups: Sequence[Group],
    parts: Sequence[_Parts],
    feeds: Sequence[Feeds],
    steps: Mapping[Axis, int],
    options: Options,
) -> list[Fit]:
    """Time the original and some cuts of it on every feed, and fit the sums to them."""
    models, keeps = [found.runnable(found.view.model)], [dict[Axis, np.ndarray]()]
    rng = np.random.default_rng(options.seed)
    for number in range(_CUTS):
        made = _some_cut(found, groups, steps, (number + 0.5) / _CUTS, rng)
        if made is not None:
            models.append(found.runnable(made[0]))
            keeps.append(made[1])
    return [
        _fitted(part, models, keeps, feed, options) for part, feed in zip(parts, feeds, strict=True)
    ]


def _fitted(
    parts: _Parts,
    models: Sequence[onnx.ModelProto],
    keeps: Sequence[Keeps],
    feed: Feeds,
    options: Options,
) -> Fit:
    feeds = [narrow(feed, kept) for kept in keeps]
    try:
        measured = race(models, feeds, threads=options.threads, provider=options.provider)
    except RunFailedError:  # a cut that nobody has verified need not run
        models, keeps = models[:1], keeps[:1]
        measured = race(models, feeds[:1], threads=options.threads, provider=options.provider)
    tables, elements = zip(*(parts.features(k) for k in keeps), strict=True)
    return fit(tables, elements, measured)


def _some_cut(
    found: Analysis,
    groups: Sequence[Group],
    steps: Mapping[Axis, int],
    depth: float,
    rng: np.random.Generator,
) -> tuple[onnx.ModelProto, dict[Axis, np.ndarray]] | None:
    """Narrow every group by about a share, at widths that pay."""
    sizes = found.coupling.collected.sizes
    removed = []
    for group in groups:
        widths = paying_widths(group, sizes, steps)
        place = int(np.clip(rng.normal(depth, 0.15), 0, 0.999) * len(widths))
        removed.append((group, np.arange(widths[place], group.size)))
    keeps = keep_masks(removed, sizes)
    try:
        return cut(found.view, found.coupling, found.traces, keeps), keeps
    except UnrepresentableError:
        return None
