"""Calibration data from the user's own code."""

import contextlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from onnxprune.data.conform import collect, full_feed
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError, OnnxPruneError, UsageError

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
    name, _, function = spec.rpartition(":")
    if not name or not function.isidentifier():
        msg = f"cannot read loader '{spec}'; write it as FILE.py:function"
        raise UsageError(msg)
    file = Path(name).resolve()
    if not file.is_file():
        msg = f"loader file {file} does not exist"
        raise InputError(msg)
    with _users_code(file, spec):
        feeds = _call(_find(file, function), spec)
        tables = [
            # Copied, since a loader may fill the same array again and again.
            full_feed(f"feed {i} of {spec}", {k: np.array(v) for k, v in feed.items()}, specs)
            for i, feed in enumerate(_checked(islice(feeds, limit), spec))
        ]
    if not tables:
        msg = f"loader {spec} gave no feeds"
        raise InputError(msg)
    return collect(tables, specs, limit=limit, seed=0)


def _find(file: Path, function: str) -> Callable[[], object]:
    found = importlib.util.spec_from_file_location(f"_onnxprune_loader_{file.stem}", file)
    if found is None or found.loader is None:
        msg = f"loader file {file} is no Python file; its name must end in .py"
        raise InputError(msg)
    module = importlib.util.module_from_spec(found)
    # Dataclasses and pickling look their module up here.
    sys.modules[found.name] = module
    found.loader.exec_module(module)
    made = getattr(module, function, None)
    if not callable(made):
        msg = f"loader file {file} has no function '{function}'"
        raise InputError(msg)
    return made  # type: ignore[no-any-return]


def _call(function: Callable[[], object], spec: str) -> Iterable[object]:
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


@contextlib.contextmanager
def _users_code(file: Path, spec: str) -> Iterator[None]:
    """Let the file import its neighbours, and say in one line where it fails."""
    folder = str(file.parent)
    sys.path.insert(0, folder)
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        where = f" (line {lines[-1]})" if lines else ""
        text = str(error).strip().splitlines()
        reason = f": {text[0]}" if text else ""
        msg = f"loader {spec} failed{where}: {type(error).__name__}{reason}"
        raise InputError(msg) from error
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
