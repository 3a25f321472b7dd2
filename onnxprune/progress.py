"""What long stages tell the console, without knowing that there is one."""

import time
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Clock", "Progress", "Silent"]

T = TypeVar("T")


class Progress(Protocol):
    """Stages report here; the console draws it, tests and ``--quiet`` drop it."""

    def stage(self, name: str) -> None:
        """Say which stage begins; the one before has ended."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yield the items of one stage while showing how many of ``total`` are done."""

    def note(self, text: str) -> None:
        """Say something the user should read now."""


class Silent:
    """A progress that says nothing."""

    def stage(self, name: str) -> None:
        """Say nothing."""

    def track(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """Yield the items."""
        yield from items

    def note(self, text: str) -> None:
        """Say nothing."""


class Clock:
    """A progress that also keeps the time of each stage."""

    def __init__(self, inner: Progress) -> None:
        self._inner = inner
        self._starts: list[tuple[str, float]] = []
        self.track, self.note = inner.track, inner.note

    def stage(self, name: str) -> None:
        """Say which stage begins."""
        self._starts.append((name, time.monotonic()))
        self._inner.stage(name)

    def seconds(self) -> dict[str, float]:
        """Return the wall time of each stage so far."""
        ends = [*(start for _, start in self._starts[1:]), time.monotonic()]
        spent: dict[str, float] = {}
        for (name, start), end in zip(self._starts, ends, strict=True):
            spent[name] = round(spent.get(name, 0.0) + end - start, 3)
        return spent
