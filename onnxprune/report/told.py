"""What is said of a pruned model, in words: the same on a terminal and on a page."""

from collections.abc import Iterator, Mapping, Sequence

from onnxprune.lossless.values import Lossless
from onnxprune.quality.values import Drop
from onnxprune.report.values import Figures, GroupChange, Ratios, Report
from onnxprune.wording import counted

__all__ = ["figures", "lossless", "quality", "ratio", "shrank", "sizes", "verdict"]


def figures(report: Report) -> Iterator[Sequence[str]]:
    """Yield rows of a table: what, before, after, ratio."""
    before, after, ratios = report.before, report.after, report.ratios
    yield _row("parameters", before.params, after.params, ratios.params)
    yield _row("MACs (multiply-accumulates)", before.macs, after.macs, ratios.macs)
    yield _row("bytes", before.bytes, after.bytes, ratios.bytes)
    peak = after.peak_bytes / max(before.peak_bytes, 1)
    yield _row("bytes of activations, at most", before.peak_bytes, after.peak_bytes, peak)
    measured = ratio(ratios.latency, ratios.latency_interval)
    yield "latency, median ms", *(_ms(f, "median") for f in (before, after)), measured
    yield "latency, p90 ms", *(_ms(f, "p90") for f in (before, after)), ""


def verdict(ratios: Ratios) -> str:
    """Say whether the model is faster; nothing where it was not timed."""
    if ratios.latency is None or ratios.latency_interval is None:
        return ""
    low, high = ratios.latency_interval
    same = low <= 1 <= high or abs(ratios.latency - 1) < 0.01
    change = "no measurable change" if same else "faster" if ratios.latency < 1 else "slower"
    clock = "" if ratios.latency_clock is None else f", {ratios.latency_clock} clock"
    return f"{change} (99 % interval over pairs of sessions{clock})"


def quality(report: Report) -> Iterator[str]:
    """Yield lines on what was lost, what is certified, and what is proven."""
    if report.drop is not None:
        yield from _drop(report.drop)
    if report.verified is not None:
        yield (
            f"verified: equal to its reference within {report.verified['max_rel_error']:.1e} "
            f"(relative) on {report.verified['samples']:g} samples"
        )


def _drop(drop: Drop) -> Iterator[str]:
    interval = "" if drop.interval is None else " (95 %: {:.4f} to {:.4f})".format(*drop.interval)
    worst = "" if drop.worst_class is None else f"; worst class {drop.worst_class:.4f}"
    allowed = "" if drop.limit is None else f"; allowed {drop.limit:g}"
    yield (
        f"drop: {drop.value:.4f} {drop.metric}{interval} on {drop.samples} held-out samples"
        f"{worst}{allowed}"
    )
    if drop.before_recovery is not None:
        yield f"drop before refitting: {drop.before_recovery:.4f}"
    if drop.certified is not None:
        yield (
            f"certified: the drop is at most {drop.certified.alpha:.4g} with confidence "
            f"{drop.certified.confidence:g} ({drop.certified.samples} samples)"
        )


def lossless(free: Lossless) -> str:
    """Say which channels change nothing, and how that is known."""
    seen = f"{free.proven} by the weights alone"
    if free.samples:
        seen += f", the rest on {free.samples} samples"
    gone = "" if free.removed is None else f"; {free.removed} of them went"
    return (
        f"{counted(free.channels, 'channel')} in {counted(len(free.groups), 'group')} "
        f"never vary ({seen}): "
        f"removing them saves {free.macs:.1%} of the MACs and changes nothing{gone}"
    )


def shrank(groups: Sequence[GroupChange]) -> list[GroupChange]:
    """Return the groups that lost channels, the largest loss first."""
    return sorted((g for g in groups if g.after < g.before), key=lambda g: g.after - g.before)


def sizes(dims: Mapping[str, int]) -> str:
    """Return named sizes in one line."""
    return ", ".join(f"{name}={size}" for name, size in dims.items())


def ratio(value: float | None, interval: tuple[float, float] | None) -> str:
    """Return a ratio with its interval, or a dash."""
    ends = "" if interval is None else " ({:.3f}-{:.3f})".format(*interval)
    return "-" if value is None else f"{value:.3f}{ends}"


def _exact(number: int) -> str:
    """Return every digit, as long as it leaves room for the other columns."""
    return f"{number:,}" if number < 10**10 else f"{number / 1e9:,.2f} G"


def _row(name: str, before: int, after: int, share: float) -> Sequence[str]:
    return name, _exact(before), _exact(after), f"{share:.3f}"


def _ms(each: Figures, which: str) -> str:
    latency = each.latency_ms
    return "-" if latency is None else f"{getattr(latency, which):.3f}"
