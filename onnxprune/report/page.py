"""Lines and tables as wide as where they are read; plain text where nobody's terminal is."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

__all__ = ["Page", "percent", "shortened", "yes"]

_PLAIN, _WIDEST = 80, 120  # columns without a terminal, and the most that are used of one
_TAILS = (2 / 3, 1 / 2, 1 / 3, 5 / 6, 1 / 6)  # shares of a short name that its end may have


class Page:
    """Where lines and tables go.

    Parameters
    ----------
    file : text stream
        Colour and lines are drawn only where it is a terminal.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._console = Console(file=file, highlight=False, markup=False, emoji=False)
        self._fancy = self._console.is_terminal
        self._width = min(self._console.width, _WIDEST) if self._fancy else _PLAIN

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Write all at once: rich ends the process when a pipe breaks while it prints."""
        with self._console.capture() as page:
            yield
        self._file.write(page.get())

    def say(self, text: str = "", *, style: str | None = None) -> None:
        """Print a paragraph. Long paths and names stay whole: they are there to be copied."""
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
        """Print a line that begins something new."""
        self.say()
        self.say(text, style="bold")

    def table(
        self, titles: Sequence[str], rows: Iterable[Sequence[str]], *, names: int | None = None
    ) -> None:
        """Print a table.

        Parameters
        ----------
        titles : sequence of str
            ``>`` before a title aligns its column to the right.
        rows : iterable of sequence of str
        names : int, optional
            Column whose entries are shortened to what the other columns leave.
        """
        box, gap = (SIMPLE_HEAD, 1) if self._fancy else (None, 2)
        table = Table(box=box, show_edge=False, pad_edge=False, padding=(0, gap, 0, 0))
        lines = [list(row) for row in rows]
        heads = [title.removeprefix(">") for title in titles]
        if names is not None and lines:
            columns = [*zip(heads, *lines, strict=True)]
            others = (max(map(cell_len, c)) for n, c in enumerate(columns) if n != names)
            short = shortened(columns[names], self._width - sum(others) - 2 * (len(heads) - 1))
            for line, name in zip(lines, short[1:], strict=True):
                line[names] = name
        for title, head in zip(titles, heads, strict=True):
            table.add_column(head, justify="right" if head != title else "left", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        self._console.print(table, width=self._width)


def shortened(names: Sequence[str], width: int) -> list[str]:
    """Shorten long names in their middle, so that as many as can be stay apart.

    Exporters put what tells names apart at either end, or in the middle.

    Parameters
    ----------
    names : sequence of str
    width : int
        The most characters of each.
    """
    room = max(width - 3, 2)
    tries = [[_middle(name, width, max(1, int(room * tail))) for name in names] for tail in _TAILS]
    return max(tries, key=lambda short: len(set(short)))


def _middle(name: str, width: int, tail: int) -> str:
    """Leave out the middle of a name that is too long; ``tail`` characters of its end stay."""
    if cell_len(name) <= width:
        return name
    head = max(width - 3 - tail, 1)
    return f"{name[:head]}...{name[-tail:]}"


def percent(part: float, whole: float) -> str:
    """Return a share of a whole that may be 0."""
    return f"{part / whole if whole else 0.0:.1%}"


def yes(value: bool) -> str:
    """Return yes or no."""
    return "yes" if value else "no"
