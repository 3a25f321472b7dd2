import dataclasses
import io

import pytest

from onnxprune.bench.values import Latency
from onnxprune.quality.values import Drop
from onnxprune.report.console import print_report
from onnxprune.report.inspected import GroupInfo
from onnxprune.report.page import shortened
from onnxprune.report.values import Figures, GroupChange, Ratios

LONG = "/model/encoder/layers.11/self_attention/query_projection/MatMul_with_a_very_long_name"


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def shown(report, stream=None, **more):
    stream = stream or io.StringIO()
    print_report(report, stream, **more)
    return stream.getvalue()


def cells(text):
    """Return the lines as lists of words, without padding."""
    return [line.split() for line in text.splitlines()]


class Terminal(io.StringIO):
    def isatty(self):
        return True


class TestRun:
    def test_before_and_after(self, report):
        rows = cells(shown(report))
        assert ["parameters", "77,562", "38,001", "0.490"] in rows
        assert ["MACs", "(multiply-accumulates)", "2,312,000", "1,150,000", "0.497"] in rows
        assert ["bytes", "313,204", "157,900", "0.504"] in rows
        assert ["latency,", "median", "ms", "0.412", "0.280", "0.680", "(0.652-0.711)"] in rows
        assert ["latency,", "p90", "ms", "0.450", "0.300"] in rows

    def test_drop_names_metric_interval_and_samples(self, report):
        text = " ".join(shown(report).split())
        assert "drop: 0.0213 agreement (95 %: 0.0101 to 0.0338) on 449 held-out" in text
        assert "worst class 0.0600; allowed 0.05" in text
        assert "drop before refitting: 0.3000" in text
        assert "at most 0.05 with confidence 0.95 (449 samples)" in text
        without = dataclasses.replace(report, drop=Drop("relative_l2", 0.02, None, 449, None))
        assert "drop: 0.0200 relative_l2 on 449 held-out samples\n" in shown(without)
        assert "certified" not in shown(without)
        assert "relative_l2" in shown(without)
        assert "worst class" not in shown(without)

    def test_nothing_timed_judged_or_written(self, report):
        bare = Figures(1, 2, 3, None, 4)
        text = shown(
            dataclasses.replace(
                report,
                target=None,
                before=bare,
                after=bare,
                ratios=Ratios(1.0, 1.0, 1.0, None, None, None),
                drop=None,
                verified=None,
            )
        )
        assert "dry run" in text
        assert ["latency,", "median", "ms", "-", "-", "-"] in cells(text)
        assert "drop" not in text
        assert "verified" not in text

    @pytest.mark.parametrize(
        ("ratio", "interval", "verdict"),
        [
            (0.68, (0.6, 0.7), "latency: faster"),
            (1.3, (1.2, 1.4), "latency: slower"),
            (0.9, (0.8, 1.01), "latency: no measurable change"),
            (0.995, (0.993, 0.997), "latency: no measurable change"),
        ],
    )
    def test_latency_verdict(self, report, ratio, interval, verdict):
        timed = dataclasses.replace(report.ratios, latency=ratio, latency_interval=interval)
        assert verdict in shown(dataclasses.replace(report, ratios=timed))

    def test_groups_that_shrank(self, report):
        text = shown(report)
        assert "1 of 2 groups shrank" in text
        assert ["conv1", "filter", "16", "->", "14", "yes", "perturbation"] in cells(text)
        assert "neuron" not in text

    def test_a_long_list_is_cut_after_the_largest(self, report):
        groups = [GroupChange(f"g{i}", "unit", 100, 100 - i, True, "plan") for i in range(20)]
        text = shown(dataclasses.replace(report, groups=groups))
        assert "19 of 20 groups shrank" in text
        listed = [row[0] for row in cells(text) if row[2:4] == ["100", "->"]]
        assert listed == [f"g{i}" for i in range(19, 4, -1)]
        assert "and 4 more, 10 channels fewer together" in text

    def test_nothing_shrank(self, report):
        text = shown(dataclasses.replace(report, groups=report.groups[1:]))
        assert "0 of 1 groups shrank" in text
        assert "ordered by" not in text

    def test_warnings_and_outputs_come_last(self, report):
        text = shown(report, written=["plan p.json", "model out.onnx"])
        assert text.splitlines()[-3:] == [
            "warning: the data is synthetic",
            "wrote plan p.json",
            "wrote model out.onnx",
        ]


class TestInspect:
    def test_head(self, inspection):
        text = " ".join(shown(inspection).split())
        assert "77,562 parameters, 2,312,000 MACs (multiply-accumulates)" in text
        assert "98.2% of the parameters (exact 50.0%), 99.1% of the MACs (exact 25.0%)" in text
        assert "dims: batch=1" in text

    def test_groups(self, inspection):
        rows = cells(shown(inspection))
        assert ["conv1", "filter", "16", "0.2%", "0.4%", "yes", "yes"] in rows
        assert ["ln", "stream", "64", "15.9%", "0.0%", "no", "no"] in rows
        assert ["heads", "head", "4", "1.3%", "0.0%", "yes", "-"] in rows

    def test_frozen_axes_by_the_coverage_that_they_cost(self, inspection):
        lines = shown(inspection).splitlines()
        first = lines.index("10.0% of the parameters, 1.0% of the MACs: no rule for it (Loop)")
        assert lines[first - 1] == "frozen axes of weights that no group shrinks, by reason"
        assert lines[first + 1] == "  in 1 weight, such as 'w', axis 1; frozen at 'v', axis 1"
        assert lines[first + 2] == "  what would free it: a rule"
        assert lines[first + 3] == "0.1% of the parameters, 0.0% of the MACs: graph input"
        free = lines.index("frozen at no cost, as groups shrink these weights by another axis")
        assert lines[free + 1] == "  1 x graph input"

    def test_nothing_found(self, inspection):
        text = shown(dataclasses.replace(inspection, groups=[], frozen=[], dims={}))
        assert "nothing can be cut" in text
        assert "frozen" not in text


class TestBench:
    def test_two_models(self, bench):
        text = shown(bench)
        assert ["A", "a.onnx", "0.400", "0.500", "0.600"] in cells(text)
        assert ["B", "b.onnx", "0.300", "0.400", "0.500"] in cells(text)
        assert "B against A: faster, by the cpu clock" in text
        assert "wall: B / A 0.900 (99 %: 0.500 to 1.400)" in text
        assert "6 pairs of sessions, 120 runs, threads: 1, CPUExecutionProvider" in text

    def test_one_model(self, bench):
        text = shown(
            dataclasses.replace(
                bench,
                models=["a.onnx"],
                latency_ms=[Latency(0.4, 0.5, 0.6)],
                ratio=None,
                interval=None,
                clock=None,
                wall=None,
                cpu=None,
                verdict=None,
            )
        )
        assert ["A", "a.onnx", "0.400", "0.500", "0.600"] in cells(text)
        assert "B" not in text


class TestVerify:
    def test_it_holds(self, verified):
        text = shown(verified)
        assert "within 1.2e-06 (relative) on 2 samples" in text
        assert "out.onnx: equals the recut model\n" in text
        assert text.splitlines()[-1] == "holds"

    def test_it_holds_but_for_what_was_refitted(self, verified):
        text = " ".join(shown(dataclasses.replace(verified, same_bytes=False)).split())
        assert "equals the recut model but for the numbers that the plan lists as refitted" in text

    def test_it_does_not(self, verified):
        text = shown(
            dataclasses.replace(verified, ok=False, same_bytes=False, differences=["node 'c'"])
        )
        assert "out.onnx: is not the recut model" in text
        assert "  differs: node 'c'" in text
        assert text.splitlines()[-1] == "DOES NOT HOLD"


class TestSensitivity:
    def test_each_title_has_an_entry(self, ranking):
        rows = cells(shown(ranking))
        titles = ["group", "kind", "channels", "method", "-1/4", "-1/2", "lost", "worst", "stable"]
        first = rows.index(titles) + 1
        assert [len(row) for row in rows[first : first + len(ranking.groups)]] == [
            len(titles) for _ in ranking.groups
        ]


@pytest.fixture
def wide(report, inspection, bench, ranking):
    """Return reports full of names and numbers that are too long for a line."""
    big = Figures(
        70_000_000_000,
        4_000_000_000_000,
        280_000_000_000,
        Latency(12345.678, 23456.789, 34567.891),
        9_000_000_000,
    )
    change = GroupChange(LONG, "conv_group", 16384, 12288, False, "perturbation")
    group = GroupInfo(LONG, "conv_group", 16384, 10**10, 10**12, False, [], False)
    return [
        dataclasses.replace(report, before=big, after=big, groups=[change]),
        dataclasses.replace(inspection, params=10**10, macs=10**12, groups=[group]),
        dataclasses.replace(bench, models=[LONG, LONG]),
        dataclasses.replace(
            ranking,
            groups=[dataclasses.replace(g, name=LONG, kind="conv_group") for g in ranking.groups],
        ),
    ]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_tables_fit_80_columns_and_lose_nothing(wide, stream, monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    for report in wide:
        text = shown(report, stream())
        assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
        assert "…" not in text
    assert "16384 -> 12288" in shown(wide[0])


def test_plain_where_there_is_no_terminal(report, inspection, bench, verified):
    for value in (report, inspection, bench, verified):
        text = shown(value)
        assert text.isascii()
        assert "\x1b" not in text


def test_drawn_on_a_terminal(report, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = shown(report, Terminal())
    assert "\x1b[" in text
    assert "─" in text


def test_names_are_shown_as_they_are(inspection):
    group = dataclasses.replace(inspection.groups[0], name="a[bold]b :smile: 層")
    text = shown(dataclasses.replace(inspection, groups=[group]))
    assert "a[bold]b :smile: 層" in text


@pytest.mark.parametrize(
    "names",
    [
        [f"/layers/layers.{n}/think/think.1/MatMul_of_the_network" for n in range(9)],
        [f"/{n}/layers/layers/think/think.1/MatMul_of_the_network" for n in range(9)],
        [f"/layers/layers/think/think.1/MatMul_of_the_network.{n}" for n in range(9)],
        ["same", "same"],
        ["層" * 30, "層" * 30 + "x"],
    ],
)
def test_shortened_names_stay_apart(names):
    short = shortened(names, 30)
    assert len(set(short)) == len(set(names))
    assert max(map(len, short)) <= 30


def test_short_names_are_left_alone():
    assert shortened(["a", "b" * 30], 30) == ["a", "b" * 30]


def test_a_wide_terminal_shows_longer_names(report, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    group = GroupChange(LONG[:60], "filter", 16, 14, True, "perturbation")
    monkeypatch.setenv("COLUMNS", "120")
    assert LONG[:60] in shown(dataclasses.replace(report, groups=[group]), Terminal())
    assert LONG[:60] not in shown(dataclasses.replace(report, groups=[group]))


def test_paths_stay_whole(report):
    path = "/" + "very_long_directory/" * 10 + "in.onnx"
    assert path in shown(dataclasses.replace(report, source=path))
