"""The Python interface: what the commands do, on models and arrays, with their options by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias, TypedDict, Unpack

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune import pipeline
from onnxprune.bench.values import BenchReport
from onnxprune.choices import read_options
from onnxprune.errors import UsageError, did_you_mean
from onnxprune.options import MethodName, Options, Trials
from onnxprune.plan import Plan
from onnxprune.progress import Progress
from onnxprune.report.inspected import Inspection
from onnxprune.report.ranked import Ranking
from onnxprune.report.values import VerifyReport
from onnxprune.result import Result

__all__ = [
    "Applying",
    "Benching",
    "Inputs",
    "Inspecting",
    "Measuring",
    "Pruning",
    "apply",
    "bench",
    "inspect",
    "prune",
    "sensitivity",
    "verify",
]

Place: TypeAlias = str | PathLike[str]
Source: TypeAlias = Place | onnx.ModelProto
Array: TypeAlias = NDArray[np.generic]
Feeding: TypeAlias = Place | Array | Mapping[str, Array] | Iterable[Mapping[str, Array]]


Profiles: TypeAlias = Sequence[Mapping[str, int] | str]


class Inputs(TypedDict, total=False):
    """Options of every function: what models are fed with, and how much of it."""

    loader: str
    samples: int
    seed: int
    input_shape: Mapping[str, Sequence[int]] | Sequence[str]
    dim: Mapping[str, int] | Sequence[str]


class Inspecting(Inputs, total=False):
    """Options of `inspect`: also what stays whole, and what may change."""

    exclude: str | Sequence[str]
    allow_interface_change: bool


class Judging(Inputs, total=False):
    """Options of what is judged: by what."""

    metric: str | Sequence[str]
    labels: Place | Array | None


class Measuring(Inspecting, Judging, total=False):
    """Options of `sensitivity`: also how channels are measured, and judged."""

    recover: bool
    method: MethodName
    jobs: int
    time_limit: float
    cache: Place | None


class Applying(Judging, total=False):
    """Options of `apply`: also how the result is judged and timed."""

    profile: Profiles
    confidence: float
    threads: int
    provider: str


class Pruning(Measuring, Applying, total=False):
    """Options of `prune`: also what to reach; see the README's table."""

    macs: float | None
    params: float | None
    size: float | None
    latency: float | None
    latency_table: Place | None
    max_drop: float | None
    require_certificate: bool
    multiple_of: int | None
    branches: bool
    switches: bool


class Benching(Inputs, total=False):
    """Options of `bench`: also how much is timed."""

    profile: Profiles
    threads: int
    provider: str
    time_limit: float
    cache: Place | None
    batch: int
    pairs: int
    runs: int
    warm_up: int


def prune(
    model: Source,
    data: Feeding | None = None,
    *,
    pareto: Place | None = None,
    progress: Progress | None = None,
    **options: Unpack[Pruning],
) -> Result:
    """Prune a model to ratios, within a drop, or both, as ``onnxprune run`` does; write nothing.

    Parameters
    ----------
    model : path or ModelProto
        A ModelProto is not changed, and must hold its tensors' data.
    data : path, array, mapping of input name to array, or iterable of feeds, optional
        Sample inputs. Arrays hold samples on axis 0; a feed is a dict with all inputs of one run.
        Synthetic inputs without it.
    pareto : path, optional
        A new folder for a table of what can be had, with a plan for each point.
    progress : Progress, optional
        Hears of stages and notes; silence by default.
    **options
        Those of ``onnxprune run`` by their names there, such as ``macs=0.5, max_drop=0.01``.

    Returns
    -------
    Result
        ``model`` (ModelProto), ``report`` and ``plan``; ``save`` writes the model.

    Raises
    ------
    UsageError
        If an option is unknown, out of range, or contradicts another or the model.
    InputError
        If the model or the data cannot be used.
    VerificationError
        If no cut equals its reference.
    BudgetError
        If what was asked for cannot be reached; ``nearest`` holds what can.
    """
    chosen = _options("prune", Pruning, data, options)
    folder = None if pareto is None else Path(pareto)
    return pipeline.prune(_source(model), chosen, pareto=folder, progress=progress)


def inspect(
    model: Source,
    data: Feeding | None = None,
    *,
    verify: bool = True,
    progress: Progress | None = None,
    **options: Unpack[Inspecting],
) -> Inspection:
    """Find which channels a model has, what is frozen and why.

    Parameters
    ----------
    model, data, progress, **options
        As in :func:`prune`.
    verify : bool
        Whether each group is cut alone to prove it.

    Returns
    -------
    Inspection

    Raises
    ------
    UsageError, InputError
        As in :func:`prune`.
    """
    chosen = _options("inspect", Inspecting, data, options)
    return pipeline.inspect(_source(model), chosen, verify=verify, progress=progress)


def sensitivity(
    model: Source,
    data: Feeding | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[Measuring],
) -> Ranking:
    """Measure what every channel is worth, and how far to trust that.

    Parameters
    ----------
    model, data, progress, **options
        As in :func:`prune`.

    Returns
    -------
    Ranking

    Raises
    ------
    UsageError, InputError, BudgetError
        As in :func:`prune`; the last where there is nothing to measure.
    """
    chosen = _options("sensitivity", Measuring, data, options)
    return pipeline.sensitivity(_source(model), chosen, progress=progress)


def apply(
    model: Source,
    plan: Place | Plan,
    data: Feeding | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[Applying],
) -> Result:
    """Cut a model as a plan says; refit it again if the plan does and there is data.

    Parameters
    ----------
    model, data, progress, **options
        As in :func:`prune`.
    plan : path or Plan
        Made for this very model.

    Returns
    -------
    Result

    Raises
    ------
    UsageError, InputError, VerificationError
        As in :func:`prune`; also where the plan was made for another model.
    """
    chosen = _options("apply", Applying, data, options)
    return pipeline.replay(_source(model), _plan(plan), chosen, progress=progress)


def verify(
    model: Source,
    pruned: Source,
    plan: Place | Plan,
    data: Feeding | None = None,
    *,
    progress: Progress | None = None,
    **options: Unpack[Inputs],
) -> VerifyReport:
    """Prove that a model is what a plan makes of another, which equals that one masked.

    Parameters
    ----------
    model, data, progress, **options
        As in :func:`prune`.
    pruned : path or ModelProto
    plan : path or Plan

    Returns
    -------
    VerifyReport
        ``ok`` is False where it does not hold; ``differences`` says what.

    Raises
    ------
    UsageError, InputError
        As in :func:`apply`.
    """
    chosen = _options("verify", Inputs, data, options)
    sides = _source(model), _source(pruned)
    return pipeline.verify(*sides, _plan(plan), chosen, progress=progress)


def bench(
    first: Source,
    second: Source | None = None,
    data: Feeding | None = None,
    *,
    table: Place | None = None,
    progress: Progress | None = None,
    **options: Unpack[Benching],
) -> BenchReport:
    """Time one model, or two against each other on the same inputs.

    Parameters
    ----------
    first : path or ModelProto
    second : path or ModelProto, optional
    data, progress, **options
        As in :func:`prune`.
    table : path, optional
        Where the times of the first model's operators go, for ``latency_table``.

    Returns
    -------
    BenchReport

    Raises
    ------
    UsageError, InputError
        As in :func:`prune`.
    """
    chosen = _options("bench", Benching, data, options)
    return pipeline.bench(
        _source(first),
        None if second is None else _source(second),
        chosen,
        trials=_trials(options),
        table=None if table is None else Path(table),
        progress=progress,
    )


def _source(model: Source) -> Path | onnx.ModelProto:
    return Path(model) if isinstance(model, str | PathLike) else model


def _plan(plan: Place | Plan) -> Path | Plan:
    return plan if isinstance(plan, Plan) else Path(plan)


def _trials(given: Mapping[str, Any]) -> Trials:
    names = [field.name for field in fields(Trials)]
    return Trials(**{name: given[name] for name in names if name in given})


def _options(
    function: str, known: type[Any], data: Feeding | None, given: Mapping[str, Any]
) -> Options:
    """Read options; Python itself does not hold keywords against a TypedDict."""
    for name in given:
        if name not in known.__annotations__:
            hint = did_you_mean(name, known.__annotations__)
            msg = f"{function} has no option '{name}'{hint}"
            raise UsageError(msg)
    return read_options({**given, "data": data})
