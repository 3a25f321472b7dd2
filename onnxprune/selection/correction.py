"""How operators' times add up: their sum, held to the clock on the model and some cuts of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from onnxprune.analysis import Analysis
from onnxprune.bench.clock import race
from onnxprune.bench.fit import Fit, fit
from onnxprune.coupling.groups import Group
from onnxprune.coupling.keeps import Keeps, keep_masks, narrow
from onnxprune.coupling.relations import Axis
from onnxprune.options import Options
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.repairs import UnrepresentableError
from onnxprune.runtime.session import Feeds, RunFailedError
from onnxprune.selection.parts import Parts
from onnxprune.selection.widths import paying_widths

__all__ = ["corrected"]

_CUTS = 6  # whole models that the sum is corrected on, beside the original


def corrected(
    found: Analysis,
    groups: Sequence[Group],
    parts: Sequence[Parts],
    feeds: Sequence[Feeds],
    steps: Mapping[Axis, int],
    options: Options,
) -> list[Fit]:
    """Time the original and some cuts of it on every feed, and fit the sums to them."""
    models, keeps = [found.runnable(found.view.model)], [dict[Axis, np.ndarray]()]
    rng = np.random.default_rng(options.seed)
    for number in range(_CUTS):
        made = _some_cut(found, groups, steps, (number + 0.5) / _CUTS, rng)
        if made is not None:
            models.append(found.runnable(made[0]))
            keeps.append(made[1])
    return [
        _fitted(part, models, keeps, feed, options) for part, feed in zip(parts, feeds, strict=True)
    ]


def _fitted(
    parts: Parts,
    models: Sequence[onnx.ModelProto],
    keeps: Sequence[Keeps],
    feed: Feeds,
    options: Options,
) -> Fit:
    feeds = [narrow(feed, kept) for kept in keeps]
    try:
        measured = race(models, feeds, threads=options.threads, provider=options.provider)
    except RunFailedError:  # a cut that nobody has verified need not run
        models, keeps = models[:1], keeps[:1]
        measured = race(models, feeds[:1], threads=options.threads, provider=options.provider)
    tables, elements = zip(*(parts.features(k) for k in keeps), strict=True)
    return fit(tables, elements, measured)


def _some_cut(
    found: Analysis,
    groups: Sequence[Group],
    steps: Mapping[Axis, int],
    depth: float,
    rng: np.random.Generator,
) -> tuple[onnx.ModelProto, dict[Axis, np.ndarray]] | None:
    """Narrow every group by about a share, at widths that pay."""
    sizes = found.coupling.collected.sizes
    removed = []
    for group in groups:
        widths = paying_widths(group, sizes, steps)
        place = int(np.clip(rng.normal(depth, 0.15), 0, 0.999) * len(widths))
        removed.append((group, np.arange(widths[place], group.size)))
    keeps = keep_masks(removed, sizes)
    try:
        return cut(found.view, found.coupling, found.traces, keeps), keeps
    except UnrepresentableError:
        return None
