"""What long stages tell the console, without knowing that there is one."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

__all__ = ["Progress", "Silent"]

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
