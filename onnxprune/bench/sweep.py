"""Measuring the table: which widths pay, and what operators take at those."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import product

import numpy as np

from onnxprune.bench.clock import QUIET, clock_of, opened, read
from onnxprune.bench.operators import Operator
from onnxprune.bench.steps import stairs
from onnxprune.bench.table import Entry, LatencyTable, Pays
from onnxprune.progress import Progress
from onnxprune.runtime.session import RunFailedError

__all__ = ["Timer", "fill", "operator_timer"]

Timer = Callable[[Operator], float]
"""Nanoseconds of one run of an operator at its widths."""

_SHORT, _LONG = 1, 4  # copies in the two chains
_FEWEST, _READINGS = 7, 25
_READING = 500_000  # nanoseconds that a reading lasts at least
_ENOUGH = 30_000_000  # that readings of slow operators last together
_BASE = 64  # width at which steps are looked for, whatever the widths in the model
_TRIED = (*range(64, 12, -4), 63, 58, 45, 34)
_TELLING = 5e6  # multiply-accumulates that take long enough to be told apart, and no longer
_SHARES = (0.75, 0.5, 0.1)  # of the whole width, where the widest operators are measured
_FEW = (0.5,)  # and the others
_LEAST = 4  # width at which narrow operators are measured too, where a step is wider
_MINOR = 0.02  # share of the work under which an operator is measured at fewer widths


def operator_timer(threads: int, provider: str) -> Timer:
    """Return what reads an operator's time: CPU time where one thread is all there is.

    Parameters
    ----------
    threads : int
    provider : str
    """
    now = clock_of(threads, provider)

    def timer(operator: Operator) -> float:
        readers = []
        for copies in (_SHORT, _LONG):
            model, feeds = operator.chain(copies)
            session = opened(model, threads=threads, provider=provider)
            read(session, feeds, now, _READING)
            readers.append((session, feeds))
        turns: list[list[float]] = []
        end = now() + _ENOUGH
        while len(turns) < _FEWEST or (len(turns) < _READINGS and now() < end):
            turns.append([read(*reader, now, _READING) for reader in readers])
        short, long = np.percentile(turns, QUIET, axis=0)
        return max(float(long - short) / (_LONG - _SHORT), 1.0)

    return timer


def fill(
    table: LatencyTable,
    operators: Sequence[Operator],
    free: Callable[[Operator], Sequence[bool]],
    timer: Timer,
    *,
    time_limit: float,
    progress: Progress,
) -> LatencyTable:
    """Measure what a table does not know yet of some operators.

    The operators with the most work come first; what does not fit the time limit is missing from
    the result.

    Parameters
    ----------
    table : LatencyTable
    operators : sequence of Operator
    free : callable of Operator to sequence of bool
        Which of its axes may be narrowed.
    timer : callable of Operator to float
    time_limit : float
        Seconds.
    progress : Progress

    Returns
    -------
    LatencyTable
    """
    end = time.monotonic() + time_limit
    wanted = _wanted(table, operators, free)
    total = sum(o.macs for o in operators)
    kinds = _kinds(table, [operator for operator, _ in wanted])
    pays: dict[str, Pays] = {}
    entries: dict[str, Entry] = {}
    jobs = [*((k, None) for k in kinds), *wanted]
    for operator, may in progress.track(jobs, len(jobs), "operators timed"):
        if time.monotonic() >= end:
            break
        try:
            if may is None:
                pays[operator.kind] = _pays(operator, timer)
            else:
                shares = _FEW if operator.macs < _MINOR * total else _SHARES
                known = pays.get(operator.kind) or table.pays[operator.kind]
                entries[operator.signature] = _entry(operator, may, shares, known, timer)
        except (RunFailedError, KeyError):
            continue  # what cannot be run alone is missing from the table
    return table.with_(pays, entries)


def _wanted(
    table: LatencyTable, operators: Iterable[Operator], free: Callable[[Operator], Sequence[bool]]
) -> list[tuple[Operator, tuple[bool, ...]]]:
    """List one operator per unknown signature with its free axes, most work first."""
    found: dict[str, tuple[Operator, tuple[bool, ...]]] = {}
    for operator in sorted(operators, key=lambda o: -o.macs):
        name = operator.signature
        may = tuple(free(operator)) if operator.family != "fixed" else (False,) * len(operator.axes)
        if name in found:
            may = tuple(a or b for a, b in zip(may, found[name][1], strict=True))
        known = table.entries.get(name)
        if known is None or any(
            m and len(levels) == 1 and levels[0] > min(step, _LEAST)
            for m, levels, step in zip(may, known.levels, known.pays.steps, strict=True)
        ):
            found[name] = operator, may
    return list(found.values())


def _kinds(table: LatencyTable, operators: Sequence[Operator]) -> list[Operator]:
    """Pick of every unknown kind the operator that shows steps best."""
    found: dict[str, tuple[float, Operator]] = {}
    for operator in operators:
        if operator.kind not in table.pays:
            work = _at_base(operator).macs
            far = abs(math.log(max(work, 1.0) / _TELLING))
            if operator.kind not in found or far < found[operator.kind][0]:
                found[operator.kind] = far, operator
    return [operator for _, operator in found.values()]


def _at_base(operator: Operator, axis: int = 0, width: int = _BASE) -> Operator:
    if operator.family == "fixed":
        return operator
    widths = [_BASE] * len(operator.axes)
    widths[axis] = width
    return operator.at(widths)


def _pays(operator: Operator, timer: Timer) -> Pays:
    """Find the steps of every axis of a kind."""
    if operator.family == "fixed":
        return Pays((1,) * len(operator.axes))
    found = [
        stairs(_TRIED, [timer(_at_base(operator, axis, width)) for width in _TRIED])
        for axis in range(len(operator.axes))
    ]
    return Pays(tuple(step for step, _ in found), max(cliff for _, cliff in found))


def _entry(
    operator: Operator, free: Sequence[bool], shares: Sequence[float], pays: Pays, timer: Timer
) -> Entry:
    """Measure an operator at every combination of a few widths that pay."""
    levels = tuple(
        _levels(width, step, shares) if may else (width,)
        for width, step, may in zip(operator.widths, pays.steps, free, strict=True)
    )
    times = [timer(operator.at(widths)) for widths in product(*levels)]
    return Entry(levels, np.reshape(times, tuple(map(len, levels))), pays)


def _levels(width: int, step: int, shares: Iterable[float]) -> tuple[int, ...]:
    """Round shares of a width to the next widths that pay; of few steps, look below the first."""
    tops = {math.ceil(max(share * width, 1) / step) * step for share in shares}
    if width <= 2 * step:
        tops |= {min(step, _LEAST), max(step // 2, min(step, _LEAST))}
    return tuple(sorted({top for top in tops if top < width} | {width}))
