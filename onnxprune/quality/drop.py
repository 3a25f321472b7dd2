"""The drop as it is reported: an estimate, its interval, the class that suffers most."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.data.splits import Splits
from onnxprune.model.frontier import float_frontier
from onnxprune.options import Options
from onnxprune.quality.certificate import discordant_interval, share_interval, upper_bound
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.quality.promise import Promise, unlimited
from onnxprune.quality.values import Drop, Judged
from onnxprune.rewrite.prove import Proven

__all__ = ["describe", "drop_interval", "state", "worst_class"]

_CONFIDENCE = 0.95
_FEWEST = 5  # samples of a class below which its own loss says nothing


def describe(
    judge: Judge, promise: Promise, path: Sequence[Losses], proven: Proven, splits: Splits
) -> tuple[Drop, list[str]]:
    """Describe what a candidate lost; say so loudly where that is not certified.

    Parameters
    ----------
    judge : Judge
    promise : Promise
    path : sequence of Losses
        On the certification samples, of all candidates up to this one.
    proven : Proven
        The same cut before its layers were refitted.
    splits : Splits

    Returns
    -------
    drop : Drop
    remarks : list of str
    """
    losses = path[-1]
    plain = judge.losses(proven.model, splits.certify, proven.keeps)
    drop = Drop(
        judge.metric,
        losses.drop,
        drop_interval(losses),
        losses.samples,
        worst_class(losses),
        promise.certificate(path),
        plain.drop,
        promise.limit,
        [Judged(m.output, m.metric, m.weight) for m in judge.measures],
    )
    if drop.certified is not None:
        return drop, []
    return drop, [f"the drop is not certified: {promise.uncertified(losses)}"]


def state(
    found: Analysis, model: onnx.ModelProto, proven: Proven, splits: Splits, options: Options
) -> tuple[Drop | None, list[str]]:
    """Describe what a model lost of which nothing was promised.

    Parameters
    ----------
    found : Analysis
    model : ModelProto
    proven : Proven
        The cut that it was made from.
    splits : Splits
    options : Options

    Returns
    -------
    drop : Drop, optional
        None of a model that computes no floats: a cut has nothing to change there.
    remarks : list of str
    """
    if not float_frontier(found.view, found.traces[0]):
        return None, []
    judge = Judge(found, splits, options)
    held = [judge.losses(model, splits.certify, proven.keeps)]
    return describe(judge, unlimited(found, splits, judge, options), held, proven, splits)


def drop_interval(losses: Losses) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean loss.

    No bootstrap: where most samples lose nothing and a few lose much, its intervals hold the mean
    far less often than they say.

    Parameters
    ----------
    losses : Losses

    Returns
    -------
    (low, high) or None
        Exact (Clopper-Pearson) for losses of 0 and 1; of at least that confidence for paired
        labels, and (Hoeffding-Bentkus) for any others with bounds; None where there are none.
    """
    values = losses.values
    if values is None or losses.kind is None:
        return None
    n, worse, better = len(values), int((values > 0).sum()), int((values < 0).sum())
    if losses.kind == "binary":
        return share_interval(worse, n, _CONFIDENCE)
    if losses.kind == "discordant":
        return discordant_interval(worse, better, n, _CONFIDENCE)
    least, most = (0.0 if losses.kind == "bounded" else -1.0), 1.0
    side = (1 + _CONFIDENCE) / 2
    mirrored = replace(losses, values=least + most - values)
    high, low = (upper_bound(each, side) for each in (losses, mirrored))
    return least if low is None else least + most - low, most if high is None else high


def worst_class(losses: Losses) -> float | None:
    """Return the mean loss of the class that suffers most; None where no class can be named.

    That needs classes with enough samples. Where all of these lose less than the whole, it is
    the rare ones that suffer, and nothing can be said.
    """
    table = losses.by_class
    if table is None:
        return None
    seen = (~np.isnan(table)).sum(axis=0)
    means = np.nansum(table, axis=0)[seen >= _FEWEST] / seen[seen >= _FEWEST]
    worst = float(means.max(initial=-np.inf))
    return worst if worst >= losses.drop else None
