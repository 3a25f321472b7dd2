"""A model looked at without some of its residual branches."""

from collections.abc import Sequence
from dataclasses import replace

from onnxprune.analysis import Analysis
from onnxprune.coupling import couple
from onnxprune.depth.branches import StandIn, without
from onnxprune.model.cost import CostModel
from onnxprune.model.view import build_view
from onnxprune.runtime.trace import agree, trace

__all__ = ["shorten"]


def shorten(found: Analysis, gone: Sequence[StandIn], *, change_interface: bool) -> Analysis:
    """Analyse a model anew without some branches.

    Parameters
    ----------
    found : Analysis
        Of the original, without functions.
    gone : sequence of StandIn
    change_interface : bool
        As when the original was looked at.

    Returns
    -------
    Analysis
        With the original as what layers are refitted to; ``found`` itself where nothing goes.
    """
    if not gone:
        return found
    model = without(found.view.model, gone)
    view = build_view(model, found.view.base)
    traces = agree([trace(view, feed) for feed in found.probes[: len(found.traces)]])
    stated = trace(view, found.stated_feed())
    return replace(
        found,
        expansion=replace(found.expansion, model=model),
        view=view,
        traces=traces,
        stated=stated,
        costs=CostModel(view, stated),
        coupling=couple(view, traces[0], change_interface=change_interface),
        longer=found,
        gone=tuple(gone),
    )
