"""The judge: runs a candidate beside the original and says what every sample lost."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.analysis import Analysis
from onnxprune.coupling.keeps import WHOLE, Keeps, narrow, widen
from onnxprune.data.splits import Splits
from onnxprune.data.usercode import UserFunction
from onnxprune.errors import InputError
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.quality.choice import choose_measures, user_function
from onnxprune.quality.labels import check_labels, read_labels
from onnxprune.quality.losses import Losses
from onnxprune.quality.metrics import (
    METRICS,
    Array,
    Floats,
    Kind,
    Measure,
    default_limit,
    judged_by_labels,
)
from onnxprune.quality.user import user_losses
from onnxprune.runtime.session import Feeds, RunFailedError, Session, with_outputs

__all__ = ["Judge"]

_BATCH = 32
_TINY = 1e-30
Indices = Sequence[int] | NDArray[np.integer]


class Judge:
    """Compares candidates with the original, by one choice of metrics.

    Parameters
    ----------
    found : Analysis
    splits : Splits
        What the metrics have to know of the original (its typical size) is read from SELECT.
    options : Options
        ``metric`` and ``labels``.

    Attributes
    ----------
    metric : str
        Its name; of several, with weights and outputs.
    measures : tuple of Measure
        Empty where the user's own function judges.
    kind : Kind, optional
        Of the losses; None while it is not known.

    Raises
    ------
    UsageError, InputError
        If the metrics or labels do not fit the model and data.
    """

    def __init__(self, found: Analysis, splits: Splits, options: Options) -> None:
        self._samples = found.samples
        self._runnable = found.runnable
        self.labels = None
        if options.labels is not None:
            self.labels = read_labels(options.labels, options.data, found.samples)
        own = user_function(options.metric)
        self._user = None if own is None else UserFunction(own, "metric")
        self.measures: tuple[Measure, ...] = ()
        if own is None:
            trace = found.traces[0]
            self.measures = choose_measures(
                found.view,
                trace,
                float_frontier(found.view, trace),
                options.metric,
                labels=self.labels is not None,
            )
        self._names = (
            tuple(m.output for m in self.measures)
            if own is None
            else tuple(output.name for output in found.view.model.graph.output)
        )
        self.metric = own or _describe(self.measures)
        self._original = Session(with_outputs(found.runnable(found.view.model), self._names))
        self._whole, self._batch = self._layout(splits.select)
        self.kind = self._look(splits.select)

    @property
    def default(self) -> float | None:
        """The most that may be lost where the user does not say; None for the user's metric."""
        return default_limit(self.measures) if self.measures else None

    def losses(self, model: onnx.ModelProto, indices: Indices, keeps: Keeps = WHOLE) -> Losses:
        """Compare a candidate with the original.

        Parameters
        ----------
        model : ModelProto
        indices : sequence of int
            Samples to compare on.
        keeps : mapping of Axis to mask
            What the candidate kept: where its inputs or outputs are narrower, the original's are
            narrowed before they are fed or compared.

        Returns
        -------
        Losses
            Where the model fixes its batch, of as many of the samples as fill whole batches.
        """
        session = Session(with_outputs(self._runnable(model), self._names))
        if self._user is not None:
            pairs = list(self._pairs(session, keeps, indices))
            return user_losses(self._user, self._names, pairs, self._labels_of(indices))
        values, classes = [], []
        for rows, before, after in self._pairs(session, keeps, indices):
            labels = None if self.labels is None else self.labels[rows]
            values.append(self._values(before, after, labels))
            classes.append(self._by_class(before, after, labels))
        every = np.concatenate(values)
        table = [part for part in classes if part is not None]
        by_class = np.concatenate(table) if table else None
        return Losses(float(every.mean()), every, self.kind, by_class, len(every))

    def _values(
        self, before: Mapping[str, Array], after: Mapping[str, Array], labels: Array | None
    ) -> Floats:
        total = np.zeros(len(next(iter(before.values()))))
        for m in self.measures:
            old, new = before[m.output], after[m.output]
            # An output of another shape cannot be compared: all of it is lost.
            lost = np.ones(len(old))
            total += m.weight * (
                METRICS[m.metric].loss(m, old, new, labels) if old.shape == new.shape else lost
            )
        return total

    def _by_class(
        self, before: Mapping[str, Array], after: Mapping[str, Array], labels: Array | None
    ) -> Floats | None:
        measure = self.measures[0]
        table = METRICS[measure.metric].by_class
        old, new = before[measure.output], after[measure.output]
        if len(self.measures) > 1 or table is None or old.shape != new.shape:
            return None
        return table(measure, old, new, labels)

    def _pairs(
        self, session: Session, keeps: Keeps, indices: Indices
    ) -> Iterator[tuple[list[int], dict[str, Array], dict[str, Array]]]:
        """Yield the samples of each run with both models' outputs, each sample once.

        Labels count all classes: of those that a candidate has no score for, it never says one.
        """
        labelled = {m.output for m in judged_by_labels(self.measures) if self.labels is not None}
        scored = {axis: mask for axis, mask in keeps.items() if axis.value in labelled}
        rest = {axis: mask for axis, mask in keeps.items() if axis not in scored}
        seen: set[int] = set()
        for rows, feed in self._samples.batches(indices, self._batch):
            fresh = []
            for place, number in enumerate(rows):
                if number not in seen:
                    seen.add(number)
                    fresh.append(place)
            before = narrow(self._reference(feed), rest)
            after = widen(session.run(narrow(feed, keeps), self._names), scored)
            if self._whole:
                yield rows[:1], _lifted(before), _lifted(after)
            elif fresh:
                old, new = (
                    {n: a[fresh] if len(a) == len(rows) else a for n, a in side.items()}
                    for side in (before, after)
                )
                yield [rows[k] for k in fresh], old, new

    def _reference(self, feed: Feeds) -> dict[str, Array]:
        try:
            return self._original.run(feed, self._names)
        except RunFailedError as error:
            advice = "; give typical inputs with --data" if self._samples.synthetic else ""
            msg = f"onnxruntime cannot run the model on every sample: {error}{advice}"
            raise InputError(msg) from error

    def _layout(self, indices: Indices) -> tuple[bool, int]:
        """Say whether outputs go by run and not by sample, and how many samples make a run."""
        for batch in (_BATCH, 1):
            rows, feed = next(self._samples.batches(indices, batch))
            outputs = self._reference(feed).values()
            if self._samples.stacked and all(
                hasattr(a, "shape") and a.ndim and len(a) == len(rows) for a in outputs
            ):
                return False, batch
        if len(rows) > 1 and self.labels is not None:
            msg = "--labels: the model's outputs do not go by samples, and its batch is fixed"
            raise InputError(msg)
        return True, 1

    def _look(self, indices: Indices) -> Kind | None:
        """Learn from the original how large its outputs are, and what kind of loss they make."""
        if not self.measures:
            return None
        squares: dict[str, list[float]] = {m.output: [] for m in self.measures}
        unit = dict.fromkeys(squares, True)
        decisions = 0
        for rows, before, _ in self._pairs(self._original, WHOLE, indices):
            if self.labels is not None:
                check_labels(self.labels[rows], self.measures, before)
            for m in self.measures:
                old = np.nan_to_num(before[m.output].astype(np.float64), posinf=0.0, neginf=0.0)
                squares[m.output].append(float((old**2).sum()) / max(old[0].size, 1))
                unit[m.output] &= bool(((old >= 0) & (old <= 1)).all())
                decisions = max(decisions, old.size // (len(old) * max(old.shape[m.axis], 1)))
        count = self.losses_count(indices)
        self.measures = tuple(
            replace(
                m,
                scale=max(float(np.sqrt(sum(squares[m.output]) / count)), _TINY),
                threshold=0.5 if unit[m.output] else 0.0,
            )
            for m in self.measures
        )
        return _kind_of(self.measures, decisions, labels=self.labels is not None)

    def losses_count(self, indices: Indices) -> int:
        """Return how many losses some samples give."""
        batches = [rows for rows, _ in self._samples.batches(indices, self._batch)]
        return len(batches) if self._whole else len({i for rows in batches for i in rows})

    def _labels_of(self, indices: Indices) -> Array | None:
        if self.labels is None:
            return None
        batches = [rows for rows, _ in self._samples.batches(indices, self._batch)]
        return self.labels[list(dict.fromkeys(i for rows in batches for i in rows))]


def _lifted(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Make one sample of a whole run."""
    return {n: a[None] if hasattr(a, "shape") else a for n, a in outputs.items()}


def _kind_of(measures: Sequence[Measure], decisions: int, *, labels: bool) -> Kind:
    """One decision per sample gives whole losses; means and sums of them lie between."""
    kind = METRICS[measures[0].metric].kind
    if len(measures) == 1 and decisions == 1 and kind != "bounded":
        return kind
    return "signed" if labels and judged_by_labels(measures) else "bounded"


def _describe(measures: Sequence[Measure]) -> str:
    if len(measures) == 1:
        return measures[0].metric
    return " + ".join(f"{m.weight:.3g} {m.metric}({m.output})" for m in measures)
