"""Who may take how many threads: onnxruntime all cores, numpy's and scipy's products one.

Onnxruntime's threads sleep when they wait, and compute the same however many they are. numpy and
scipy bring a BLAS each, and the threads of the one that waits keep the cores from the other's: with
two threads each, a run on two cores takes two to three times as long as with one.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from threadpoolctl import threadpool_limits

__all__ = ["allowed", "cores", "limit", "one_blas_thread"]

P = ParamSpec("P")
R = TypeVar("R")

_MOST = 8  # further ones mostly wait for memory, and cost every small session

_limit = _MOST


def one_blas_thread(work: Callable[P, R]) -> Callable[P, R]:
    """Let matrix products of numpy and scipy take one thread while a function runs."""

    @wraps(work)
    def calm(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(1, user_api="blas"):
            return work(*args, **kwargs)

    return calm


def limit(count: int) -> None:
    """Let no later session of this process take more threads than so many."""
    global _limit  # noqa: PLW0603  # one machine
    _limit = max(count, 1)


def allowed() -> int:
    """Return the threads that a session may take: the cores, less where OMP_NUM_THREADS says so."""
    return max(min(_asked(), cores(), _limit), 1)


def cores() -> int:
    """Return the cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _asked() -> int:
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else _MOST
