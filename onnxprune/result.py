"""What pruning ends with: the model, what there is to say about it, and how to make it again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.keeps import narrow
from onnxprune.coupling.relations import Axis
from onnxprune.model.load import Model
from onnxprune.model.save import check_target, copy, write
from onnxprune.plan import Plan
from onnxprune.report.values import Report

__all__ = ["Result"]


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """A pruned model.

    Attributes
    ----------
    model : ModelProto
    report : Report
    plan : Plan
        Bound to the original; ``apply`` repeats it.
    original : Model
    """

    model: onnx.ModelProto
    report: Report
    plan: Plan
    original: Model

    def narrow(self, values: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
        """Take of the original's inputs or outputs what the model still reads or gives.

        Parameters
        ----------
        values : mapping of input or output name to array

        Returns
        -------
        dict of name to array
            As given but for what the report lists as ``interface``.
        """
        keeps: dict[Axis, NDArray[np.bool_]] = {}
        for change in self.report.interface:
            mask = np.zeros(change.before * (len(change.kept) // change.after), bool)
            mask[list(change.kept)] = True
            keeps[Axis(change.name, change.axis, -1 if change.by is None else change.by)] = mask
        return narrow(values, keeps)

    def save(self, target: Path | str, *, force: bool = False) -> None:
        """Write the model; byte for byte a copy of the original where nothing was cut.

        Parameters
        ----------
        target : Path or str
        force : bool
            Whether an existing file may be replaced.

        Raises
        ------
        UsageError
            If the target cannot be written; nothing is left behind then.
        """
        target = Path(target)
        check_target(self.original.path, target, force=force)
        if self.plan.empty and self.original.on_disk:
            copy(self.original, target)
        else:
            write(self.model, target, source=self.original)
