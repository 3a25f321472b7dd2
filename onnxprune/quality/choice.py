"""Which outputs are judged by which metric: what the user says, and a guess for the rest."""

import re
from collections.abc import Sequence
from dataclasses import replace

from onnxprune.errors import UsageError, did_you_mean
from onnxprune.model.view import View
from onnxprune.quality.automatic import class_axis, guess
from onnxprune.quality.metrics import METRICS, Measure, judged_by_labels
from onnxprune.runtime.trace import Trace

__all__ = ["choose_measures", "user_function"]

_ENTRY = re.compile(r"^(?:(?P<output>.+)=)?(?P<metric>[^=*]+?)(?:\*(?P<weight>[^*]+))?$")
_LABELLED = {"agreement": "accuracy", "mean_iou": "mean_iou"}


def user_function(entries: Sequence[str]) -> str | None:
    """Return the ``FILE.py:function`` among the given metrics; it judges alone.

    Raises
    ------
    UsageError
        If it is not the only one.
    """
    own = [entry for entry in entries if ".py:" in entry]
    if own and len(entries) > 1:
        msg = f"--metric {own[0]} judges all outputs at once: give no other --metric beside it"
        raise UsageError(msg)
    return own[0] if own else None


def choose_measures(
    view: View, trace: Trace, outputs: Sequence[str], entries: Sequence[str], *, labels: bool
) -> tuple[Measure, ...]:
    """Choose how every output is judged.

    Parameters
    ----------
    view : View
    trace : Trace
    outputs : sequence of str
        The float frontier.
    entries : sequence of str
        ``NAME`` for all outputs, or ``OUTPUT=NAME``, each with ``*WEIGHT`` behind it where its
        share is not that of the others; outputs without an entry are guessed.
    labels : bool
        Whether there are labels: then the one output that holds class scores (or a mask) is
        judged by them, and alone.

    Returns
    -------
    tuple of Measure
        Weights add up to 1.

    Raises
    ------
    UsageError
        If an entry cannot be read, or labels are missing or fit no output.
    """
    if not outputs:
        msg = "the model has no float output that its inputs reach: nothing to judge it by"
        raise UsageError(msg)
    every, named = _read(entries, outputs)
    chosen = []
    for output in outputs:
        automatic = (guess(view, trace, output), 1.0)
        metric, weight = named.get(output) or every or automatic
        axis = class_axis(view, trace, output) - len(trace.shapes[output])
        chosen.append(Measure(output, metric, weight, axis))
    if labels:
        chosen = _labelled(chosen, given=bool(entries))
    for measure in chosen:
        if METRICS[measure.metric].labels == "needed" and not labels:
            msg = f"--metric {measure.metric} needs --labels"
            raise UsageError(msg)
    total = sum(measure.weight for measure in chosen)
    if not total > 0:
        msg = "--metric leaves every output a weight of 0"
        raise UsageError(msg)
    return tuple(replace(m, weight=m.weight / total) for m in chosen if m.weight > 0)


def _labelled(chosen: list[Measure], *, given: bool) -> list[Measure]:
    if given:
        if not judged_by_labels(chosen):
            msg = f"--labels has no use with --metric {chosen[0].metric}; leave one of them out"
            raise UsageError(msg)
        return chosen
    fitting = [m for m in chosen if m.metric in _LABELLED]
    if len(fitting) != 1:
        names = ", ".join(f"'{m.output}'" for m in fitting or chosen)
        msg = (
            f"--labels: {len(fitting)} outputs look like class scores; say which one they are for, "
            f"with --metric OUTPUT=accuracy (and OUTPUT=NAME*0 for others), of {names}"
        )
        raise UsageError(msg)
    return [replace(fitting[0], metric=_LABELLED[fitting[0].metric])]


def _read(
    entries: Sequence[str], outputs: Sequence[str]
) -> tuple[tuple[str, float] | None, dict[str, tuple[str, float]]]:
    """Return the entry for all outputs, and those for one output each."""
    every: tuple[str, float] | None = None
    named: dict[str, tuple[str, float]] = {}
    for entry in entries:
        output, metric, weight = _parse(entry)
        if output is None:
            if every is not None:
                msg = f"--metric {entry}: two metrics for all outputs; name the output, as in y=kl"
                raise UsageError(msg)
            every = (metric, weight)
            continue
        if output not in outputs:
            names = ", ".join(f"'{name}'" for name in outputs)
            hint = did_you_mean(output, outputs)
            msg = f"--metric {entry}: '{output}' is not measured{hint}; outputs: {names}"
            raise UsageError(msg)
        if output in named:
            msg = f"--metric {entry}: '{output}' has a metric already"
            raise UsageError(msg)
        named[output] = (metric, weight)
    return every, named


def _parse(entry: str) -> tuple[str | None, str, float]:
    found = _ENTRY.match(entry)
    metric = found["metric"].strip() if found else entry
    if found is None or metric not in METRICS:
        hint = did_you_mean(metric, METRICS)
        msg = f"--metric {entry}: '{metric}' is no metric and no FILE.py:function{hint}"
        raise UsageError(msg)
    try:
        weight = float(found["weight"] or 1.0)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        msg = f"--metric {entry}: the weight '{found['weight']}' is no number of at least 0"
        raise UsageError(msg)
    return found["output"], metric, weight
