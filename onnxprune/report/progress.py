"""Progress on the terminal: the stage, a bar, the time left."""

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["ConsoleProgress"]

T = TypeVar("T")


class ConsoleProgress:
    """Draws the progress of one command, where a person looks on; elsewhere only notes are printed.

    Use it as a context manager: leaving it takes the bar off the screen.

    Parameters
    ----------
    file : text stream
        Standard error: standard output belongs to the answer.
    """

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file, highlight=False, markup=False, emoji=False)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _Count(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False)
        self._stage = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, name: str) -> None:
        """Show which stage runs; nobody knows how long it takes until it tracks something."""
        self._stage = name
        self._show(name, None)

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yield the items of one stage while showing how many of ``total`` are done."""
        self._show(f"{self._stage}: {what}" if self._stage else what, total)
        try:
            for item in items:
                yield item
                self._bar.advance(self._task)
        finally:
            self._show(self._stage, None)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(f"note: {text}", soft_wrap=True)

    def _show(self, text: str, total: int | None) -> None:
        self._bar.reset(self._task, total=total, description=text, visible=bool(text))


class _Count(ProgressColumn):
    """How many of how many are done; nothing while nobody counts."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:.0f}/{task.total:.0f}")
