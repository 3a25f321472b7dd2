"""What the user may choose, as one frozen value with every default in it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from onnxprune.errors import UsageError

if TYPE_CHECKING:  # the command line shows its help without numpy
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Array", "Data", "MethodName", "Options", "Trials"]

MethodName = Literal["auto", "perturbation", "gradient", "reconstruction"]
Array: TypeAlias = "NDArray[np.generic]"
Data: TypeAlias = "Path | Array | Mapping[str, Array] | tuple[Mapping[str, Array], ...]"
"""A place, an array for the only input, arrays by input (samples on axis 0), or full feeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Choices of a run; all of them are printed in the report.

    Attributes
    ----------
    data : Path, array, mapping of str to array, or tuple of feeds, optional
        Calibration data; synthetic inputs without it.
    loader : str, optional
        ``FILE.py:function`` that yields feeds; runs the user's code.
    macs, params, size, latency : float, optional
        Ratio of the original to reach, 0 < ratio < 1.
    latency_table : Path, optional
        Measured on the target device; this machine's own otherwise.
    cache : Path, optional
        Where this machine's latency table is kept (the user's cache folder otherwise), and what was
        measured of each group (nowhere otherwise).
    method : str
        Of measuring: auto, perturbation, gradient or reconstruction.
    jobs : int
        Processes that perturb channels; they share the cores.
    max_drop : float, optional
        The most quality that may be lost, in the metric; by itself: prune as far as it allows.
    metric : tuple of str
        ``NAME`` or ``OUTPUT=NAME``, each with ``*WEIGHT`` if need be, or one ``FILE.py:function``;
        guessed from the outputs where absent.
    labels : str or array, optional
        What each sample really is: the array, or a file or a key of the data that holds it.
    confidence : float
        Of the certificate, 0 < confidence < 1.
    require_certificate : bool
        Write nothing that is not certified.
    exclude : tuple of str
        fnmatch patterns on group, value or node name, or ``op:Type``: what stays whole.
    allow_interface_change : bool
        Whether channels may go that lie on graph inputs or outputs (states, features).
    multiple_of : int, optional
        Kept widths are multiples of this; chosen by the selection when absent.
    input_shapes : mapping of input name to shape
    dims : mapping of symbolic dimension name to size
    profiles : tuple of mapping of dimension name to size
        Sizes at each of which the model is timed, and a latency promised; one run of the stated
        sizes without any.
    samples : int
        Most calibration samples to use.
    seed : int
    threads : int
        Threads of the timed sessions.
    provider : str
        Execution provider of the timed sessions.
    time_limit : float
        Seconds that measuring may take.
    recover : bool
        Whether the layers of the cut model are refitted to the original.
    branches : bool
        Whether residual branches may go as a whole, where that leaves less output error.
    switches : bool
        Whether widths are switched between groups, where that leaves less output error.

    Raises
    ------
    UsageError
        If a number is out of its range.
    """

    data: "Data | None" = None
    loader: str | None = None
    macs: float | None = None
    params: float | None = None
    size: float | None = None
    latency: float | None = None
    latency_table: Path | None = None
    cache: Path | None = None
    method: MethodName = "auto"
    jobs: int = 1
    max_drop: float | None = None
    metric: tuple[str, ...] = ()
    labels: "str | Array | None" = None
    confidence: float = 0.95
    require_certificate: bool = False
    exclude: tuple[str, ...] = ()
    allow_interface_change: bool = False
    multiple_of: int | None = None
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    profiles: tuple[Mapping[str, int], ...] = ()
    samples: int = 1024
    seed: int = 0
    threads: int = 1
    provider: str = "CPUExecutionProvider"
    time_limit: float = 120.0
    recover: bool = True
    branches: bool = True
    switches: bool = True

    def __post_init__(self) -> None:
        for name in ("macs", "params", "size", "latency"):
            _check(name, getattr(self, name), 0, 1, "of the original, both ends excluded")
        _check("confidence", self.confidence, 0, 1, "0.95 is usual")
        _check("time-limit", self.time_limit, 0, float("inf"), "measuring ends then")
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            msg = f"--max-drop {self.max_drop:g} is no drop of at least 0; 0 allows no loss at all"
            raise UsageError(msg)
        for name in ("samples", "threads", "jobs", "multiple_of"):
            _check_count(name, getattr(self, name), 1)
        _check_count("seed", self.seed, 0)
        if self.method not in get_args(MethodName):
            msg = f"--method {self.method} is not known; there is {', '.join(get_args(MethodName))}"
            raise UsageError(msg)

    @property
    def ratios(self) -> dict[str, float]:
        """What of the original is to be reached, by quantity; empty where no ratio is given."""
        given = {
            "macs": self.macs,
            "params": self.params,
            "bytes": self.size,
            "latency": self.latency,
        }
        return {name: ratio for name, ratio in given.items() if ratio is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """How much is timed.

    Attributes
    ----------
    pairs : int
        Fresh session pairs, at least two; up to twice as many while the interval is wide.
    runs : int
        Timed readings per model and pair.
    warm_up : int
        Runs before them (and at least 200 ms).
    batch : int
        Samples per run, where samples can be stacked.

    Raises
    ------
    UsageError
        If a number is out of its range.
    """

    pairs: int = 6
    runs: int = 20
    warm_up: int = 10
    batch: int = 1

    def __post_init__(self) -> None:
        _check_count("pairs", self.pairs, 2)
        for name in ("runs", "warm_up", "batch"):
            _check_count(name, getattr(self, name), 1)


def _check(name: str, value: object, low: float, high: float, hint: str) -> None:
    """Refuse what does not lie strictly between two numbers."""
    if value is None or (isinstance(value, int | float) and low < value < high):
        return
    seconds = high == float("inf")
    what = "a positive number of seconds" if seconds else f"between {low:g} and {high:g}"
    msg = f"--{name} {value} is not {what} ({hint})"
    raise UsageError(msg)


def _check_count(name: str, value: object, least: int) -> None:
    if value is None or (isinstance(value, int) and value >= least):
        return
    msg = f"--{name.replace('_', '-')} {value} is not a whole number of at least {least}"
    raise UsageError(msg)
