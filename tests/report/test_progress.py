import io

import pytest

from onnxprune.progress import Progress
from onnxprune.report.progress import ConsoleProgress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def work(progress: Progress) -> list[int]:
    progress.stage("load")
    progress.stage("measure")
    seen = list(progress.track(range(3), 3, "groups"))
    progress.note("a [bold] remark")
    return seen


def test_without_a_terminal_only_notes():
    stream = io.StringIO()
    with ConsoleProgress(stream) as progress:
        assert work(progress) == [0, 1, 2]
    assert stream.getvalue() == "note: a [bold] remark\n"


def test_on_a_terminal_stage_and_count():
    stream = Terminal()
    with ConsoleProgress(stream) as progress:
        progress.stage("measure")
        for done, _ in enumerate(progress.track(range(3), 3, "groups")):
            progress.note(f"item {done}")
            progress._bar.refresh()  # it redraws by itself, but only every now and then
    text = stream.getvalue()
    assert "measure: groups" in text
    assert "2/3" in text
    assert "note: item 1" in text
    assert "/?" not in text


def test_the_screen_is_given_back_after_an_error():
    stream = Terminal()

    def fail():
        with ConsoleProgress(stream) as progress:
            for item in progress.track(range(3), 3, "groups"):
                1 / item

    with pytest.raises(ZeroDivisionError):
        fail()
    assert stream.getvalue().count("\x1b[?25h") == 1  # the cursor is shown again


def test_a_broken_off_track_leaves_the_next_stage_clean():
    stream = io.StringIO()
    with ConsoleProgress(stream) as progress:
        next(progress.track(range(3), 3, "groups"))
        progress.stage("select")
        assert list(progress.track("ab", 2, "letters")) == ["a", "b"]
    assert stream.getvalue() == ""
