"""Reading the clock that says what a run costs."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.runtime.session import Feeds, Session

__all__ = ["QUIET", "clock_of", "opened", "race", "read"]

_WARM_UP = 30_000_000  # nanoseconds
_READING = 1_000_000  # that a reading of a whole model lasts at least
_READINGS = 27
# Whatever else runs on the machine only adds time, and often for longer than a reading lasts: low
# quantiles of many short readings repeat to a percent where medians of few scatter by five.
QUIET = 10


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


def opened(model: Path | bytes | onnx.ModelProto, *, threads: int, provider: str) -> Session:
    """Make a session as a user's program does, of a file: nothing else is timed."""
    given = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    return Session(given, threads=threads, provider=provider)


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
        The `QUIET` percentile of its readings.
    """
    now = clock_of(threads, provider)
    sessions = [opened(model, threads=threads, provider=provider) for model in models]
    pairs = list(zip(sessions, feeds, strict=True))
    for session, feed in pairs:
        read(session, feed, now, _WARM_UP)
    turns = [[read(*pair, now, _READING) for pair in pairs] for _ in range(_READINGS)]
    return np.asarray(np.percentile(turns, QUIET, axis=0), np.float64)
