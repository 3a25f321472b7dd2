"""What every method of measuring is asked: which groups, on which samples, in what time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.model.view import View
from onnxprune.progress import Progress
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.measurer import Batches

__all__ = ["Request"]


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
    widths : mapping of group name to kept widths
        That the group may be narrowed to; at most eight of them are measured, none where it is
        left out.
    outputs : sequence of str
        Values whose change counts.
    work : mapping of group name to float
        What perturbing all channels of a group takes, in units of its own.
    time_limit : float
        Seconds. Each group gets its share by work, and what groups before it left over. A group
        that does not fit is ordered from fewer samples, or by activation importance if not even
        one batch can be perturbed.
    progress : Progress
    jobs : int
        Processes of one thread; the figures do not depend on it.
    """

    view: View
    trace: Trace
    coupling: Coupling
    groups: Sequence[Group]
    batches: Batches
    widths: Mapping[str, Sequence[int]]
    outputs: Sequence[str]
    work: Mapping[str, float]
    time_limit: float
    progress: Progress
    jobs: int = 1
