"""What can go wrong, and the exit code each of it ends with.

    OnnxPruneError
    ├── UsageError          2   the options or paths contradict each other
    ├── InputError          3   a file, model or calibration data cannot be used
    ├── VerificationError   4   a cut model does not equal its reference
    └── BudgetError         5   the budget cannot be met, or there is nothing to cut

Anything else that reaches the command line is a defect of onnxprune: it keeps its trace and
ends with 1.
"""

import difflib
from collections.abc import Iterable, Mapping

__all__ = [
    "BudgetError",
    "InputError",
    "OnnxPruneError",
    "UsageError",
    "VerificationError",
    "did_you_mean",
]


class OnnxPruneError(Exception):
    """A failure that the user can act on; the message says what, where and how to mend it."""

    exit_code = 1


class UsageError(OnnxPruneError):
    """The options or paths contradict each other."""

    exit_code = 2


class InputError(OnnxPruneError):
    """A file, a model or calibration data cannot be used."""

    exit_code = 3


class VerificationError(OnnxPruneError):
    """A cut model does not equal its reference; nothing is written."""

    exit_code = 4


class BudgetError(OnnxPruneError):
    """The budget cannot be met, or there is nothing to cut; nothing is written.

    Attributes
    ----------
    nearest : mapping of quantity to ratio
        What can be had of each budgeted quantity, where that is known.
    """

    exit_code = 5

    def __init__(self, message: str, nearest: Mapping[str, float] | None = None) -> None:
        super().__init__(message)
        self.nearest = dict(nearest or {})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'y'?"`` or, with nothing close, what there is; "" without any."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there is {', '.join(repr(k) for k in known[:8])}" if known else ""
