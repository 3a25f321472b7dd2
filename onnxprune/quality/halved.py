"""What a metric says of the original with half the channels of one group gone."""

from collections.abc import Sequence

import onnx
from onnx import numpy_helper

from onnxprune.analysis import Analysis
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, keep_masks
from onnxprune.data.splits import Splits
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.quality.drop import worst_class
from onnxprune.quality.judge import Judge
from onnxprune.runtime.gates import gate

__all__ = ["Halved"]


class Halved:
    """Judges the original without half of a group, masked and not refitted.

    Parameters
    ----------
    found : Analysis
    splits : Splits
        Its selecting samples are judged on.
    options : Options
        Their metric and labels count.

    Attributes
    ----------
    metric : str, optional
        Its name; None where the model computes no floats.

    Raises
    ------
    UsageError, InputError
        If the metric or labels do not fit the model and data.
    """

    def __init__(self, found: Analysis, splits: Splits, options: Options) -> None:
        self._found, self._splits = found, splits
        floats = float_frontier(found.view, found.traces[0])
        self._judge = Judge(found, splits, options) if floats else None
        self.metric = None if self._judge is None else self._judge.metric

    def lost(self, group: Group, order: Sequence[int]) -> tuple[float | None, float | None]:
        """Take the first half of an order away.

        Parameters
        ----------
        group : Group
        order : sequence of int, length channels
            The first to go first.

        Returns
        -------
        mean, worst : float, optional
            Mean loss, and that of the class that suffers most; None where there is none.
        """
        gone = order[: group.size // 2 // group.step * group.step]
        if self._judge is None or not len(gone):
            return None, None
        keeps = keep_masks([(group, gone)], self._found.coupling.collected.sizes)
        losses = self._judge.losses(self._masked(keeps), self._splits.select)
        return losses.drop, worst_class(losses)

    def _masked(self, keeps: Keeps) -> onnx.ModelProto:
        found = self._found
        gated = gate(found.view, found.traces[0], found.coupling, keeps)
        model, feeds = gated.model, gated.feeds(keeps)
        inputs = [value for value in model.graph.input if value.name not in feeds]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        stored = (numpy_helper.from_array(array, name) for name, array in feeds.items())
        model.graph.initializer.extend(stored)
        return model
