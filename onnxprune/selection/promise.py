"""Keeping a promised latency: the table proposes, the clock decides."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from onnxprune.bench.values import BenchReport
from onnxprune.errors import BudgetError
from onnxprune.recovery.recover import Recovered
from onnxprune.selection.settle import Settled

__all__ = ["Kept", "keep_latency", "keep_predicted", "keep_promises"]

_TRIES = 5
_REPAIRS = 3  # times that a cut is repaired, timed anew, and found too slow after all
_CLOSE = 0.97  # share of the promise that is not worth another try to come nearer to it
_MARGIN = 0.995  # taken off a corrected target: the next measurement scatters too


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A cut that was timed, and what the table had predicted for it."""

    settled: Settled
    timed: BenchReport

    @property
    def high(self) -> float:
        """Upper end of the measured interval."""
        assert self.timed.interval is not None
        return self.timed.interval[1]

    @property
    def predicted(self) -> float:
        """Ratio that the table gives it."""
        return self.settled.selection.reached["latency"]


def keep_latency(
    ratio: float,
    settle_at: Callable[[float], Settled],
    time: Callable[[Settled, onnx.ModelProto], BenchReport],
    first: float | None = None,
) -> Kept:
    """Find the mildest cut that is measured to be fast enough.

    Parameters
    ----------
    ratio : float
        What the upper end of the measured interval must not exceed.
    settle_at : callable of float to Settled
        Proves a cut that the table predicts to reach a ratio.
    time : callable of (Settled, ModelProto) to BenchReport
        Times a model that was made from a cut against the original.
    first : float, optional
        Prediction to begin with; the ratio itself without it.

    Returns
    -------
    Kept

    Raises
    ------
    BudgetError
        If no cut keeps the promise; says what was measured nearest to it.
    """
    tried: list[Kept] = []
    target = ratio if first is None else first
    last = False
    for _ in range(_TRIES):
        settled, last = _settle(settle_at, target, known=bool(tried))
        if settled is None or any(_same(settled, t) for t in tried):
            break
        now = Kept(settled, time(settled, settled.proven.model))
        tried.append(now)
        if last or _CLOSE * ratio <= now.high <= ratio:
            break
        target = _next(ratio, tried)
    kept = [t for t in tried if t.high <= ratio]
    if not kept:
        raise _missed(ratio, min(tried, key=lambda t: t.high).timed, end=last)
    return min(kept, key=lambda t: t.settled.selection.allocation.error)


def _next(ratio: float, tried: Sequence[Kept]) -> float:
    """Correct the table by what was measured last; between a miss and a hit, by both."""
    wanted = _MARGIN * ratio
    hits = [t for t in tried if t.high <= ratio]
    misses = [t for t in tried if t.high > ratio]
    if hits and misses:
        hit, miss = max(hits, key=lambda t: t.high), min(misses, key=lambda t: t.high)
        share = max(wanted - hit.high, 0.0) / (miss.high - hit.high)
        return hit.predicted + share * (miss.predicted - hit.predicted)
    return min(wanted * tried[-1].predicted / tried[-1].high, 1.0)


def _settle(
    settle_at: Callable[[float], Settled], target: float, *, known: bool
) -> tuple[Settled | None, bool]:
    """Settle on a target; where it is out of reach, on the nearest, which is the last to try."""
    try:
        return settle_at(target), False
    except BudgetError as error:
        reachable = error.nearest.get("latency", 1.0)
        if reachable <= target or reachable >= 1.0:  # another budget, or nothing to gain
            if known:
                return None, True
            raise
        return settle_at(reachable + 1e-6), True


def _same(settled: Settled, other: Kept) -> bool:
    return settled.selection.allocation.widths == other.settled.selection.allocation.widths


def _missed(ratio: float, timed: BenchReport, *, end: bool = False) -> BudgetError:
    assert timed.ratio is not None
    assert timed.interval is not None
    low, high = timed.interval
    what = "" if timed.verdict == "faster" else f", {timed.verdict}"
    why = "; the rest is not spent in what may get narrower" if end else ""
    return BudgetError(
        f"--latency {ratio:g} cannot be met: the nearest that was measured is {timed.ratio:.3f} "
        f"({low:.3f} to {high:.3f}{what}), and the upper end is what counts{why}",
        {"latency": high},
    )


def keep_predicted(
    ratio: float, settle_at: Callable[[float], Settled], worst: Callable[[Settled], float]
) -> Settled:
    """Find a mild cut that is predicted to be fast enough at every profile's sizes.

    Parameters
    ----------
    ratio : float
    settle_at : callable of float to Settled
        Proves a cut that the table predicts to reach a ratio on average over the profiles.
    worst : callable of Settled to float
        The highest of the profiles' predicted ratios.

    Raises
    ------
    BudgetError
        If there is none.
    """
    target = ratio
    for _ in range(_TRIES):
        settled = settle_at(target)
        reached = worst(settled)
        if reached <= ratio:
            return settled
        target *= _MARGIN * ratio / reached
    msg = (
        f"--latency {ratio:g} cannot be met at every profile: the nearest that is predicted is "
        f"{reached:.3f} at the worst of them"
    )
    raise BudgetError(msg, {"latency": reached})


def keep_promises(
    latency: float | None,
    settle_at: Callable[[float | None], Settled],
    repair: Callable[[Settled], Recovered],
    time: Callable[[Settled, onnx.ModelProto], BenchReport],
    first: float | None = None,
) -> tuple[Settled, Recovered, BenchReport]:
    """Cut, repair and time; where a latency is promised, until the repaired model keeps it.

    The last timing is a new one: of several tries, the one that was chosen had luck.

    Parameters
    ----------
    latency : float, optional
        Ratio that the upper end of the measured interval must not exceed.
    settle_at : callable of float or None to Settled
        Cuts to a predicted latency, or to the other budgets alone.
    repair : callable of Settled to Recovered
    time : callable of (Settled, ModelProto) to BenchReport
    first : float, optional
        Prediction to begin with; the ratio itself without it.

    Raises
    ------
    BudgetError
        If the promise cannot be kept.
    """
    if latency is None:
        settled = settle_at(None)
        recovered = repair(settled)
        return settled, recovered, time(settled, recovered.model)
    asked, final = latency, None
    for _ in range(_REPAIRS):
        try:
            kept = keep_latency(asked, settle_at, time, first)
        except BudgetError:
            if final is None:
                raise
            break
        recovered = repair(kept.settled)
        final = Kept(kept.settled, time(kept.settled, recovered.model))
        if final.high <= latency:
            return final.settled, recovered, final.timed
        less = _MARGIN * latency / final.high
        asked, first = asked * less, final.predicted * less
    assert final is not None
    raise _missed(latency, final.timed)
