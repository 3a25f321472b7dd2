import dataclasses
import re
from html.parser import HTMLParser

from onnxprune.bench.values import Latency, ProfileLatency
from onnxprune.lossless.values import FreeChannels, Lossless
from onnxprune.report.html import to_html
from onnxprune.report.values import GroupChange, InterfaceChange, Ratios

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Text and elements of a page; every element must be closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def test_says_what_the_terminal_says(report):
    text = Page(to_html(report)).text
    for part in (
        "in.onnx → out.onnx",
        "parameters 77,562 38,001 0.490",
        "latency, median ms 0.412 0.280 0.680 (0.652-0.711)",
        "Latency: faster (99 % interval over pairs of sessions, wall clock)",
        "drop: 0.0213 agreement (95 %: 0.0101 to 0.0338) on 449 held-out samples",
        "certified: the drop is at most 0.05 with confidence 0.95 (449 samples)",
        "verified: equal to its reference within 1.2e-06",
        "1 of 2 groups shrank",
        "the data is synthetic",
        "Nothing but the cut.",
    ):
        assert part in text, part


def test_every_group_is_drawn_as_wide_as_it_is(report):
    page = Page(to_html(report))
    widths = [attrs["style"] for tag, attrs in page.seen if tag == "i"]
    assert widths == ["width: 87.5%", "width: 100.0%"]
    assert "16 → 14" in page.text


def test_names_from_the_model_are_text(report):
    name = "<script>alert('&')</script>"
    groups = [GroupChange(name, "filter", 4, 2, True, "plan")]
    page = Page(to_html(dataclasses.replace(report, groups=groups, warnings=[name], source=name)))
    assert not any(tag == "script" for tag, _ in page.seen)
    assert page.text.count(name) == 3 + 1  # and the title


def test_needs_no_other_file(report):
    text = to_html(report)
    assert not re.search(r"(?:src|href)=|https?:|@import|url\(", text)


def test_dry_run_without_figures(report):
    bare = dataclasses.replace(
        report,
        target=None,
        drop=None,
        verified=None,
        warnings=[],
        ratios=Ratios(1.0, 1.0, 1.0, None, None, None),
        before=dataclasses.replace(report.before, latency_ms=None),
    )
    text = Page(to_html(bare)).text
    assert "nothing written (dry run)" in text
    assert "Latency:" not in text
    assert "drop" not in text


def test_all_that_may_have_changed(report):
    full = dataclasses.replace(
        report,
        refitted=["w1", "w2"],
        added=["b"],
        rotated=["r"],
        rescaled=["g"],
        removed_nodes=["block/add"],
        interface=[InterfaceChange("h0", "input", 2, 4, 2, (1, 3), 0)],
        lossless=Lossless(3, 1, 64, 2, 0.1, 0.125, [FreeChannels("conv1", (1, 2, 3))]),
        profiles=[
            ProfileLatency(
                {"batch": 8},
                [Latency(2.0, 2.1, 2.2), Latency(1.0, 1.1, 1.2)],
                *(0.5, (0.4, 0.6), "wall", "faster"),
            )
        ],
    )
    text = Page(to_html(full)).text
    for part in (
        "Refitted: 2 w1 w2",
        "Added: 1 b",
        "Turned to another basis: 1 r",
        "Rescaled: 1 g",
        "Nodes removed: 1 block/add",
        "h0 input 2 4 → 2 1 3 (in blocks of axis 0)",
        "batch=8 2.000 1.000 0.500 (0.400-0.600)",
        "Lossless: 3 channels in 1 group never vary (1 by the weights alone, the rest on 64",
    ):
        assert part in text, part
    assert "Nothing but the cut" not in text
