"""Reports as a person reads them: what is told of them, and in which order."""

import textwrap
from collections.abc import Sequence
from typing import TextIO

import numpy as np

from onnxprune.bench.values import BenchReport, ProfileLatency
from onnxprune.lossless.values import Lossless
from onnxprune.report import told
from onnxprune.report.inspected import FrozenAxis, GroupInfo, Inspection
from onnxprune.report.page import Page, percent, yes
from onnxprune.report.ranked import Agreement, RankedGroup, Ranking
from onnxprune.report.values import GroupChange, InterfaceChange, Report, VerifyReport
from onnxprune.wording import counted

__all__ = ["print_report"]

_MOST_GROUPS = 15


def print_report(
    report: Report | Inspection | Ranking | BenchReport | VerifyReport,
    file: TextIO,
    *,
    written: Sequence[str] = (),
) -> None:
    """Print a report.

    Parameters
    ----------
    report : Report, Inspection, Ranking, BenchReport or VerifyReport
    file : text stream
        Colour and lines are drawn only where it is a terminal.
    written : sequence of str
        What was written where, such as ``"model out.onnx"``; the last lines.
    """
    page = Page(file)
    with page.whole():
        match report:
            case Report():
                _report(page, report)
            case Inspection():
                _inspection(page, report)
            case Ranking():
                _ranking(page, report)
            case BenchReport():
                _bench(page, report)
            case VerifyReport():
                _verify(page, report)
        if not isinstance(report, VerifyReport):
            for warning in report.warnings:
                page.say(f"warning: {warning}", style="yellow")
        for line in written:
            page.say(f"wrote {line}")


def _report(page: Page, report: Report) -> None:
    page.say(f"{report.source} -> {report.target or 'nothing written (dry run)'}")
    _lossless(page, report.lossless)
    page.say()
    page.table(("", ">before", ">after", ">ratio"), told.figures(report))
    if verdict := told.verdict(report.ratios):
        page.say()
        page.say(f"latency: {verdict}")
    _profiles(page, report.profiles)
    for line in told.quality(report):
        page.say(line)
    _changes(page, report.groups)
    _interface(page, report.interface)
    page.say()


def _lossless(page: Page, free: Lossless | None) -> None:
    if free is not None and free.channels:
        page.say(f"lossless: {told.lossless(free)}")


def _profiles(page: Page, profiles: Sequence[ProfileLatency]) -> None:
    """What was timed at each profile's sizes; the figures above are those of the worst."""
    if not profiles:
        return
    page.heading("latency by profile, median ms; the worst is what counts above")
    two = len(profiles[0].latency_ms) == 2
    page.table(
        ("sizes", ">before", ">after", ">ratio (99 %)") if two else ("sizes", ">median ms"),
        (
            (
                told.sizes(p.dims),
                *(f"{latency.median:.3f}" for latency in p.latency_ms),
                *([told.ratio(p.ratio, p.interval)] if p.interval else []),
            )
            for p in profiles
        ),
        names=0,
    )
    page.say()


def _changes(page: Page, groups: Sequence[GroupChange]) -> None:
    shrank = told.shrank(groups)
    page.heading(f"{len(shrank)} of {len(groups)} groups shrank")
    if not shrank:
        return
    page.table(
        ("group", "kind", ">channels", "exact", "ordered by"),
        (
            (g.name, g.kind, f"{g.before} -> {g.after}", yes(g.exact), g.method)
            for g in shrank[:_MOST_GROUPS]
        ),
        names=0,
    )
    rest = shrank[_MOST_GROUPS:]
    if rest:
        channels = sum(g.before - g.after for g in rest)
        page.say(f"and {len(rest)} more, {channels} channels fewer together (all in the JSON)")


def _interface(page: Page, changes: Sequence[InterfaceChange]) -> None:
    if not changes:
        return
    page.heading("the interface changed: feed and expect the kept positions only (in the JSON)")
    page.table(
        ("name", "", ">axis", ">size", "kept positions"),
        ((c.name, c.role, str(c.axis), f"{c.before} -> {c.after}", _kept(c)) for c in changes),
        names=0,
    )


def _kept(change: InterfaceChange) -> str:
    if change.by is not None:
        return f"others in each block of axis {change.by}"
    return textwrap.shorten(" ".join(map(str, change.kept)), 24, placeholder=" ...")


def _inspection(page: Page, found: Inspection) -> None:
    page.say(
        f"{found.source}: {found.params:,} parameters, {found.macs:,} MACs (multiply-accumulates), "
        f"{found.bytes:,} bytes, opset {found.opset}"
    )
    if found.dims:
        page.say("dims: " + told.sizes(found.dims))
    cover = found.coverage
    page.say(
        f"coverage: {cover.params:.1%} of the parameters (exact {cover.exact_params:.1%}), "
        f"{cover.macs:.1%} of the MACs (exact {cover.exact_macs:.1%})"
    )
    _lossless(page, found.lossless)
    if not found.groups:
        page.heading("nothing can be cut")
    else:
        page.heading(f"{counted(len(found.groups), 'group')}, with what all their channels cost")
        page.table(
            ("group", "kind", ">channels", ">params", ">MACs", "exact", "verified"),
            (_group_row(found, g) for g in sorted(found.groups, key=lambda g: -g.macs)),
            names=0,
        )
    _frozen(page, found)
    page.say()


def _group_row(found: Inspection, group: GroupInfo) -> Sequence[str]:
    return (
        group.name,
        group.kind,
        str(group.channels),
        percent(group.params, found.params),
        percent(group.macs, found.macs),
        yes(group.exact),
        "-" if group.verified is None else yes(group.verified),
    )


def _ranking(page: Page, found: Ranking) -> None:
    page.say(
        f"{found.source}: {counted(len(found.groups), 'group')}, "
        f"{counted(found.samples, 'sample')}, at the cost of {found.forwards:,.0f} passes over them"
    )
    for reason in found.reasons:
        page.say(f"method: {reason}")
    for pair in found.agreement:
        page.say(f"agreement: {pair.first} with {pair.second}, {_agreed(pair)}")
    if found.stability is not None:
        page.say(f"stability: two halves of the samples rank alike to {found.stability:.2f}")
    page.heading("relative output error without a quarter and a half of each group")
    rows = sorted(found.groups, key=lambda g: _loss(g, 0.5))
    if found.metric is not None:
        by_class = any(group.worst_class is not None for group in rows)
        page.say(
            f"lost: {found.metric} without the half, nothing refitted"
            + ("; worst: of a class" if by_class else "")
        )
    page.table(
        ("group", "kind", ">channels", "method", ">-1/4", ">-1/2", ">lost", ">worst", ">stable"),
        (_ranked_row(group) for group in rows),
        names=0,
    )
    page.say()


def _agreed(pair: Agreement) -> str:
    """Say the rank correlations of two methods: over all groups, and inside them."""
    said = []
    if pair.pooled is not None:
        said.append(f"{pair.pooled:.2f} over all groups")
    if pair.median is not None and pair.worst is not None:
        inside = f"{pair.median:.2f} inside a group"
        if pair.groups > 1:
            inside += f" (median of {pair.groups}; worst {pair.worst:.2f}, {pair.weakest})"
        said.append(inside)
    return f"rank correlation {', '.join(said)}; {pair.channels} channels"


def _loss(group: RankedGroup, share: float) -> float:
    """Root of the squared error with a share of the channels gone, between measured widths."""
    squared = np.interp((1 - share) * group.channels, group.widths[::-1], group.errors[::-1])
    return float(np.sqrt(squared))


def _ranked_row(group: RankedGroup) -> Sequence[str]:
    return (
        group.name,
        group.kind,
        str(group.channels),
        f"{group.method}{'*' if group.partial else ''}",
        f"{_loss(group, 0.25):.3f}",
        f"{_loss(group, 0.5):.3f}",
        *("-" if loss is None else f"{loss:.3f}" for loss in (group.lost, group.worst_class)),
        "-" if group.stability is None else f"{group.stability:.2f}",
    )


def _frozen(page: Page, found: Inspection) -> None:
    """What costs coverage, the most first; freeing either axis of a weight would do."""
    costly = [f for f in found.frozen if f.params or f.macs]
    if costly:
        page.heading("frozen axes of weights that no group shrinks, by reason")
    for axes in _alike(costly):
        first, weights = axes[0], {f.value: f for f in axes}.values()
        params, macs = sum(f.params for f in weights), sum(f.macs for f in weights)
        page.say(
            f"{percent(params, found.params)} of the parameters, "
            f"{percent(macs, found.macs)} of the MACs: {_because(first)}"
        )
        page.say(
            f"  in {counted(len(weights), 'weight')}, such as '{first.value}', axis {first.axis}; "
            f"frozen at '{first.source[0]}', axis {first.source[1]}"
        )
        page.say(f"  what would free it: {first.unlock}")
    rest = _alike([f for f in found.frozen if not f.params and not f.macs])
    if rest:
        page.heading("frozen at no cost, as groups shrink these weights by another axis")
    for axes in rest:
        page.say(f"  {len(axes)} x {_because(axes[0])}")


def _alike(frozen: Sequence[FrozenAxis]) -> list[list[FrozenAxis]]:
    """Put axes together that are frozen for one reason, in the order they come."""
    found: dict[tuple[str, str, str], list[FrozenAxis]] = {}
    for axis in frozen:
        found.setdefault((axis.op, axis.reason, axis.unlock), []).append(axis)
    return sorted(found.values(), key=lambda axes: -sum(f.macs + f.params for f in axes))


def _because(frozen: FrozenAxis) -> str:
    named = not frozen.op or frozen.op in frozen.reason
    return frozen.reason if named else f"{frozen.reason} ({frozen.op})"


def _bench(page: Page, bench: BenchReport) -> None:
    page.table(
        ("", "model", ">median ms", ">p90 ms", ">p99 ms"),
        (
            (letter, model, *(f"{ms:.3f}" for ms in (each.median, each.p90, each.p99)))
            for letter, model, each in zip("AB", bench.models, bench.latency_ms, strict=False)
        ),
        names=1,
    )
    page.say()
    clocks = {"wall": bench.wall, "cpu": bench.cpu}
    if bench.ratio is not None:
        page.say(f"B against A: {bench.verdict or 'not comparable'}, by the {bench.clock} clock:")
        for name, clock in clocks.items():
            if clock is not None:
                page.say("  {}: B / A {:.3f} (99 %: {:.3f} to {:.3f})".format(name, *clock))
    page.say(
        f"{bench.pairs} pairs of sessions, {bench.runs} runs, threads: {bench.threads}, "
        f"{bench.provider}"
    )
    if bench.dims and not bench.profiles:
        page.say("dims: " + told.sizes(bench.dims))
    _profiles(page, bench.profiles)


def _verify(page: Page, report: VerifyReport) -> None:
    page.say(
        f"recut of {report.source}: equal to its reference within {report.max_rel_error:.1e} "
        f"(relative) on {report.samples} samples"
    )
    if report.same_bytes:
        same = "equals the recut model"
    elif report.ok:
        same = "equals the recut model but for the numbers that the plan lists as refitted"
    else:
        same = "is not the recut model"
    page.say(f"{report.target}: {same}")
    for difference in report.differences:
        page.say(f"  differs: {difference}")
    page.say("holds" if report.ok else "DOES NOT HOLD", style="green" if report.ok else "red")
