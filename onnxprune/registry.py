"""Tables of what is known per operator."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["Registry"]

F = TypeVar("F", bound=Callable[..., Any])


class Registry(Generic[F]):
    """Functions by operator; a second one for the same operator is a defect.

    Parameters
    ----------
    what : str
        What the functions are, for messages.

    Attributes
    ----------
    known : dict of (domain, op_type) to function
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self.known: dict[tuple[str, str], F] = {}

    def __call__(self, *op_types: str, domain: str = "") -> Callable[[F], F]:
        """Register the decorated function for operators.

        Raises
        ------
        ValueError
            If one of them has a function already.
        """

        def register(function: F) -> F:
            for op_type in op_types:
                key = (domain, op_type)
                if key in self.known:
                    msg = f"two {self._what}s for {op_type}"
                    raise ValueError(msg)
                self.known[key] = function
            return function

        return register

    def lookup(self, domain: str, op_type: str) -> F | None:
        """Return the function of an operator, or None."""
        return self.known.get((domain, op_type))

    def registered(self) -> dict[tuple[str, str], F]:
        """Return all functions by (domain, op_type)."""
        return dict(self.known)
