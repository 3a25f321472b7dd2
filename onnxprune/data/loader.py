"""Calibration data from the user's own code."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from onnxprune.data.conform import collect, full_feed
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec
from onnxprune.data.usercode import UserFunction
from onnxprune.errors import InputError

__all__ = ["load_from_function"]


def load_from_function(spec: str, specs: Sequence[InputSpec], *, limit: int) -> Samples:
    """Run the user's own loader (``--loader FILE.py:function``).

    Parameters
    ----------
    spec : str
        The function takes no arguments and yields (or returns a list of) feeds: dicts of input
        name to array, each a full feed. Its file may import what lies beside it.
    specs : sequence of InputSpec
    limit : int
        No more feeds than this are asked for, so the function need not end.

    Raises
    ------
    UsageError
        If ``spec`` is not FILE.py:function.
    InputError
        If the file or function is missing or fails, or a feed does not fit the model.
    """
    with UserFunction(spec, "loader").ready() as function:
        feeds = _call(function, spec)
        tables = [
            # Copied, since a loader may fill the same array again and again.
            full_feed(f"feed {i} of {spec}", {k: np.array(v) for k, v in feed.items()}, specs)
            for i, feed in enumerate(_checked(islice(feeds, limit), spec))
        ]
    if not tables:
        msg = f"loader {spec} gave no feeds"
        raise InputError(msg)
    # It may have more to give than it was asked for.
    return replace(collect(tables, specs, limit=limit, seed=0), there=None)


def _call(function: Callable[..., object], spec: str) -> Iterable[object]:
    feeds = function()
    if isinstance(feeds, Mapping) or not isinstance(feeds, Iterable):
        msg = f"loader {spec} returned {type(feeds).__name__}; it must yield feeds (dicts)"
        raise InputError(msg)
    return feeds


def _checked(feeds: Iterable[object], spec: str) -> Iterator[Mapping[str, object]]:
    for i, feed in enumerate(feeds):
        if not isinstance(feed, Mapping):
            msg = (
                f"feed {i} of {spec} is {type(feed).__name__}; it must be a dict of input name to "
                "array"
            )
            raise InputError(msg)
        yield feed
