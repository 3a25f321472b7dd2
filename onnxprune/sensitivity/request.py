"""What every method of measuring is asked: which groups, on which samples, in what time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.progress import Progress, Silent
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace

__all__ = ["MEMORY", "Batches", "Request"]

MEMORY = 1 << 30  # bytes of activations, of one batch


@dataclass(frozen=True, slots=True)
class Batches:
    """Feeds to perturb channels on (``fit``), and others to measure widths on (``select``)."""

    fit: Sequence[Feeds]
    select: Sequence[Feeds]


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """Groups of a model that are to be measured.

    Attributes
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    groups : sequence of Group
    batches : Batches
    outputs : sequence of str
        Values whose change counts.
    widths : mapping of group name to kept widths
        That the group may be narrowed to; at most eight of them are measured, none where it is
        left out.
    work : mapping of group name to float
        What perturbing all channels of a group takes, in units of its own; one where it is left
        out.
    time_limit : float
        Seconds. Each group gets its share by work, and what groups before it left over. A group
        that does not fit is ordered from fewer samples, or by activation importance if not even
        one batch can be perturbed.
    progress : Progress
    jobs : int
        Processes of one thread; the figures do not depend on it.
    memory : int
        Bytes that the cached activations of one batch may take.
    """

    view: View
    trace: Trace
    coupling: Coupling
    groups: Sequence[Group]
    batches: Batches
    outputs: Sequence[str]
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)
    work: Mapping[str, float] = field(default_factory=dict)
    time_limit: float = math.inf
    progress: Progress = field(default_factory=Silent)
    jobs: int = 1
    memory: int = MEMORY
