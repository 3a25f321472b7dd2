"""The page that reports are printed on: at most 80 columns, plain where nobody's terminal is."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

__all__ = ["Page", "exact", "percent", "short", "yes"]

_WIDTH = 80


class Page:
    """Where lines and tables go; ``>`` before a column's title aligns it to the right."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._console = Console(file=file, highlight=False, markup=False, emoji=False)
        self._fancy = self._console.is_terminal
        self._width = min(self._console.width, _WIDTH) if self._fancy else _WIDTH

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Write all at once: rich ends the process when a pipe breaks while it prints."""
        with self._console.capture() as page:
            yield
        self._file.write(page.get())

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """Print a text, wrapped at spaces only."""
        # Long paths and names stay whole: they are there to be copied.
        lines = textwrap.wrap(
            text,
            self._width,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines or [""]:
            self._console.print(line, soft_wrap=True, style=style)

    def heading(self, text: str) -> None:
        """Print a heading below an empty line."""
        self.say()
        self.say(text, style="bold")

    def table(self, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Print a table with titles, and a line between where it is a terminal."""
        box, gap = (SIMPLE_HEAD, 1) if self._fancy else (None, 2)
        table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        for title in titles:
            name = title.removeprefix(">")
            table.add_column(name, justify="right" if name != title else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self._console.print(table, width=self._width)


def short(name: str, width: int) -> str:
    """Keep both ends of a long name: exporters put what tells names apart at either."""
    if len(name) <= width:
        return name
    tail = (width - 3) * 2 // 3
    return f"{name[: width - 3 - tail]}...{name[-tail:]}"


def exact(number: int) -> str:
    """Return every digit, as long as it leaves room for the other columns."""
    return f"{number:,}" if number < 10**10 else f"{number / 1e9:,.2f} G"


def percent(part: float, whole: float) -> str:
    """Return a share of a whole that may be 0."""
    return f"{part / whole if whole else 0.0:.1%}"


def yes(value: bool) -> str:
    """Return yes or no."""
    return "yes" if value else "no"
