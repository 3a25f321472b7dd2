"""The original with every exit of some groups behind a gate: exact changes, one session."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.coupling.groups import Coupling, Group
from onnxprune.coupling.keeps import keep_masks
from onnxprune.model.view import View
from onnxprune.runtime.gates import gate
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.runtime.trace import Trace
from onnxprune.sensitivity.output import OutputChange

__all__ = ["Masked"]


class Masked:
    """Measures what the loss of channels really does to the output.

    Parameters
    ----------
    view : View
    trace : Trace
    coupling : Coupling
    groups : sequence of Group
    outputs : sequence of str
    feeds : sequence of Feeds
    """

    def __init__(
        self,
        view: View,
        trace: Trace,
        coupling: Coupling,
        groups: Sequence[Group],
        outputs: Sequence[str],
        feeds: Sequence[Feeds],
    ) -> None:
        axes = [m.axis for g in groups for m in g.members]
        self._gated = gate(view, trace, coupling, axes)
        self._sizes = coupling.collected.sizes
        self._session = Session(with_outputs(self._gated.model, outputs))
        self._outputs, self._feeds = outputs, feeds
        self._change = OutputChange([self._run(feed, []) for feed in feeds])

    def _run(
        self, feed: Feeds, gone: Sequence[tuple[Group, Sequence[int]]]
    ) -> dict[str, NDArray[np.generic]]:
        masks = self._gated.feeds(keep_masks(gone, self._sizes))
        return self._session.run({**feed, **masks}, self._outputs)

    def error(self, group: Group, channels: Sequence[int]) -> float:
        """Return the relative squared change of the output with some channels gone."""
        return float(self.errors(group, channels).sum())

    def errors(self, group: Group, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return what each feed adds to that, shape (feeds,)."""
        if not len(channels):
            return np.zeros(len(self._feeds))
        gone = [(group, channels)]
        keeps = keep_masks(gone, self._sizes)
        vectors = (
            self._change.vector(number, self._run(feed, gone), keeps)
            for number, feed in enumerate(self._feeds)
        )
        return np.array([(v.astype(np.float64) ** 2).sum() for v in vectors])
