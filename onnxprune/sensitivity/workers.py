"""Groups measured by several processes, which share the cores."""

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Protocol, TypeAlias, TypeVar

from threadpoolctl import threadpool_limits

from onnxprune.runtime.threads import cores, limit
from onnxprune.sensitivity.values import GroupSensitivity

__all__ = ["spread"]

S = TypeVar("S")
Result: TypeAlias = tuple[GroupSensitivity, int]  # and how many runs it took


class Worker(Protocol):
    """Measures one numbered group, in some seconds if it can."""

    def group(self, number: int, seconds: float, /) -> Result: ...


_worker: Worker


def spread(
    make: Callable[[S], Worker], setting: S, count: int, share: Callable[[int], float], jobs: int
) -> Iterator[tuple[int, Result]]:
    """Measure numbered groups, and yield each as soon as it is done.

    Parameters
    ----------
    make : callable
        Makes what measures, once in every process; a class or function of a module.
    setting : picklable
        What it is made from.
    count : int
        Groups.
    share : callable
        Gives a group its seconds, when it begins.
    jobs : int
        Processes; one is this one.
    """
    if jobs == 1 or count <= 1:
        worker = make(setting)
        for number in range(count):
            yield number, worker.group(number, share(number))
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy onnxruntime's locks
    size = min(jobs, count)
    with ProcessPoolExecutor(
        size, context, initializer=_start, initargs=(make, setting, size)
    ) as pool:
        running: dict[Future[Result], int] = {}
        try:
            for number in range(count):
                if len(running) == size:
                    yield from _finished(running)
                running[pool.submit(_one, number, share(number))] = number
            while running:
                yield from _finished(running)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _finished(running: dict[Future[Result], int]) -> Iterator[tuple[int, Result]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


def _start(make: Callable[[S], Worker], setting: S, size: int) -> None:
    global _worker  # noqa: PLW0603  # one per process
    limit(cores() // size)
    threadpool_limits(1, user_api="blas")
    _worker = make(setting)


def _one(number: int, seconds: float) -> Result:
    return _worker.group(number, seconds)
