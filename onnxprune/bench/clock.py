"""Reading the clock that says what a run costs."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.runtime.session import Feeds, Session

__all__ = ["clock_of", "race", "read"]

_READING = 3_000_000  # nanoseconds that a reading of a whole model lasts at least
_READINGS = 9


def clock_of(threads: int, provider: str) -> Callable[[], int]:
    """Return the process's CPU clock where one thread does all the work, else the wall clock."""
    busy = threads == 1 and provider == "CPUExecutionProvider"
    return time.process_time_ns if busy else time.perf_counter_ns


def read(session: Session, feeds: Feeds, now: Callable[[], int], least: int) -> float:
    """Return nanoseconds per run, over runs that together last at least ``least`` nanoseconds."""
    start, runs, passed = now(), 0, 0
    while passed < least:
        session.run(feeds)
        runs += 1
        passed = now() - start
    return passed / runs


def race(
    models: Sequence[onnx.ModelProto], feeds: Sequence[Feeds], *, threads: int, provider: str
) -> NDArray[np.float64]:
    """Return the nanoseconds of one run of each model, read in turns.

    Turns keep the models' times comparable: whatever else the machine does meets all of them.

    Parameters
    ----------
    models : sequence of ModelProto
    feeds : sequence of mappings of name to array
        What each of them is run on.
    threads : int
    provider : str

    Returns
    -------
    float array, shape (models,)
        Medians.
    """
    now = clock_of(threads, provider)
    sessions = [Session(model, threads=threads, provider=provider) for model in models]
    pairs = list(zip(sessions, feeds, strict=True))
    for session, feed in pairs:
        read(session, feed, now, 10 * _READING)
    turns = [[read(*pair, now, _READING) for pair in pairs] for _ in range(_READINGS)]
    return np.asarray(np.median(turns, axis=0), np.float64)
