"""Options as people give them, texts of the command line or Python values, become one value."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

from onnxprune.errors import InputError, UsageError
from onnxprune.options import Array, Data, Options

__all__ = ["parse_dim", "parse_input_shape", "parse_profile", "read_data", "read_options"]

T = TypeVar("T")
_SHAPE = re.compile(r"\d+(\s*[,x]\s*\d+)*")


def read_options(given: Mapping[str, Any]) -> Options:
    """Gather the options among a command's arguments; what is not given keeps its default.

    Parameters
    ----------
    given : mapping of str to value
        By name as on the command line, with underscores. ``input_shape`` and ``dim`` may be
        mappings or lists of texts; ``exclude`` and ``metric`` one text or several.

    Returns
    -------
    Options

    Raises
    ------
    UsageError
        If a value cannot be read, or is out of its range.
    InputError
        If the data are nothing that can be fed.
    """
    read: dict[str, Any] = {
        **{name: value for name, value in given.items() if value is not None},
        "exclude": _several(given.get("exclude")),
        "metric": _several(given.get("metric")),
        "input_shapes": _shapes(given.get("input_shape")),
        "dims": _dims(given.get("dim")),
        "profiles": _profiles(given.get("profile")),
    }
    for name in ("latency_table", "cache"):
        if name in read:
            read[name] = Path(read[name])
    if "labels" in read:
        read["labels"] = _labels(read["labels"])
    if "data" in read:
        read["data"] = read_data(read["data"], read.get("samples", Options().samples))
    known = [field.name for field in fields(Options)]
    return Options(**{name: read[name] for name in known if name in read})


def read_data(data: object, limit: int) -> Data:
    """Take data in any form; feeds are gathered, for they may come from a generator.

    Parameters
    ----------
    data : path, array, mapping of str to array, or iterable of feeds
    limit : int
        No more feeds than this are asked for.

    Raises
    ------
    InputError
        If it is none of these, or a feed is no mapping.
    """
    if isinstance(data, str | PathLike):
        return Path(data)
    import numpy as np

    if isinstance(data, Mapping):
        return _arrays(data)
    if isinstance(data, np.ndarray):
        return data
    if not isinstance(data, Iterable):
        msg = f"data is {type(data).__name__}; give a path, arrays by input name, or feeds (dicts)"
        raise InputError(msg)
    return tuple(_feed(number, feed) for number, feed in enumerate(islice(data, limit)))


def _feed(number: int, feed: object) -> dict[str, Array]:
    if not isinstance(feed, Mapping):
        msg = (
            f"feed {number} of data is {type(feed).__name__}; "
            "it must be a dict of input name to array"
        )
        raise InputError(msg)
    return _arrays(feed)


def _arrays(feed: Mapping[Any, Any]) -> dict[str, Array]:
    """Copy: a generator may fill the same array again and again."""
    import numpy as np

    return {str(name): np.array(value) for name, value in feed.items()}


def _labels(given: object) -> "str | Array":
    if isinstance(given, str | PathLike):
        return str(given)
    import numpy as np

    return np.asarray(given)


def _several(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def parse_input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Read one ``--input-shape``: ``x:1,3,224,224``, also ``1x3x224x224`` and ``[1,3,224,224]``.

    The name is "" where it is left out. Names may hold colons (``x:0:1,4``).

    Raises
    ------
    UsageError
        If the text cannot be read.
    """
    head, colon, tail = text.rpartition(":")
    name, body = head.strip(), tail.strip()
    brackets = body.startswith("[") and body.endswith("]")
    body = body[1:-1].strip() if brackets else body
    if not (_SHAPE.fullmatch(body) or (brackets and not body)) or (colon and not name):
        msg = f"cannot read input shape '{text}'; write it as NAME:1,3,224,224"
        raise UsageError(msg)
    shape = tuple(int(size) for size in re.findall(r"\d+", body))
    if 0 in shape:
        msg = f"input shape '{text}' has an axis of size 0; sizes start at 1"
        raise UsageError(msg)
    return name, shape


def parse_dim(text: str) -> tuple[str, int]:
    """Read one ``--dim``: ``batch=4``.

    Raises
    ------
    UsageError
        If it is not NAME=N with N of at least 1.
    """
    name, _, size = (part.strip() for part in text.rpartition("="))
    if not name or not size.isdecimal() or int(size) == 0:
        msg = f"cannot read dimension '{text}'; write it as NAME=N with N of at least 1"
        raise UsageError(msg)
    return name, int(size)


def parse_profile(text: str) -> dict[str, int]:
    """Read one ``--profile``: ``batch=8,seq=128``.

    Raises
    ------
    UsageError
        If it is no list of NAME=N, or gives a name twice.
    """
    pairs = [parse_dim(part) for part in text.split(",")]
    if len(dict(pairs)) < len(pairs):
        msg = f"profile '{text}' gives a dimension twice"
        raise UsageError(msg)
    return dict(pairs)


def _shapes(
    given: Mapping[str, Sequence[int]] | Sequence[str] | None,
) -> dict[str, tuple[int, ...]]:
    """Read every ``--input-shape``; the name is "" where it is left out."""
    if isinstance(given, Mapping):
        return {name: tuple(map(int, shape)) for name, shape in given.items()}
    return _once([parse_input_shape(text) for text in given or ()], "--input-shape")


def _dims(given: Mapping[str, int] | Sequence[str] | None) -> dict[str, int]:
    """Read every ``--dim``."""
    if isinstance(given, Mapping):
        return {name: int(size) for name, size in given.items()}
    return _once([parse_dim(text) for text in given or ()], "--dim")


def _profiles(given: Sequence[str | Mapping[str, int]] | None) -> tuple[dict[str, int], ...]:
    """Read every ``--profile``."""
    found = [parse_profile(p) if isinstance(p, str) else dict(p) for p in given or ()]
    for number, profile in enumerate(found):
        if profile in found[:number]:
            msg = f"--profile gives {profile} twice; each profile counts once"
            raise UsageError(msg)
    return tuple(found)


def _once(pairs: Sequence[tuple[str, T]], option: str) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            msg = f"{option} gives '{name}' twice: {found[name]} and {value}"
            raise UsageError(msg)
    return found
