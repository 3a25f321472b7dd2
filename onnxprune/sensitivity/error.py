"""How far a model's output is from the original's, with nothing left out."""

from collections.abc import Sequence

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.coupling.keeps import WHOLE, Keeps, narrow
from onnxprune.model.frontier import float_frontier
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, with_outputs
from onnxprune.sensitivity.output import OutputChange

__all__ = ["OutputError"]


class OutputError:
    """Relative squared output error against the original on some samples.

    Parameters
    ----------
    view : View
        Of the original.
    outputs : sequence of str
        Values whose change counts: the float ones that reach the outputs.
    feeds : sequence of Feeds
        That nothing is fitted on.
    """

    def __init__(self, view: View, outputs: Sequence[str], feeds: Sequence[Feeds]) -> None:
        self._outputs, self._feeds = outputs, feeds
        session = Session(with_outputs(view.real, outputs))
        self._change = OutputChange([session.run(feed, outputs) for feed in feeds])

    @classmethod
    def of(cls, found: Analysis, feeds: Sequence[Feeds]) -> "OutputError":
        """Compare with a model at the values that its float outputs are judged at."""
        return cls(found.view, float_frontier(found.view, found.traces[0]), feeds)

    def error(
        self, model: onnx.ModelProto, keeps: Keeps = WHOLE, known: Sequence[Feeds] | None = None
    ) -> float:
        """Return the error of a model.

        Parameters
        ----------
        model : ModelProto
            The original with other weights, or cut.
        keeps : Keeps
            What the cut leaves of inputs and outputs.
        known : sequence of Feeds, optional
            Inner values that are as in the original, the same ones for each feed: what makes them
            is not run.
        """
        change = self._narrowed(keeps)
        given = [{}] * len(self._feeds) if known is None else known
        whole = with_outputs(upcast(model), self._outputs, given[0])
        session, read = Session(whole), {value.name for value in whole.graph.input}
        total = 0.0
        for number, (feed, inner) in enumerate(zip(self._feeds, given, strict=True)):
            values = {name: array for name, array in {**feed, **inner}.items() if name in read}
            vector = change.vector(number, session.run(narrow(values, keeps), self._outputs))
            total += float((vector.astype(np.float64) ** 2).sum())
        return total

    def _narrowed(self, keeps: Keeps) -> OutputChange:
        """Compare with what a cut leaves of the outputs."""
        if not any(axis.value in self._outputs for axis in keeps):
            return self._change
        return OutputChange([narrow(self._change.clean(n), keeps) for n in range(len(self._feeds))])
