"""Curves of heads that will be turned: which groups, and that they say what a turned cut loses."""

import numpy as np
import pytest

from onnxprune.data.splits import split_samples
from onnxprune.layers.readers import dense_sites
from onnxprune.model.frontier import float_frontier
from onnxprune.progress import Silent
from onnxprune.recovery.heads import proven_heads, turn_heads
from onnxprune.recovery.turn import turned
from onnxprune.rewrite.prove import prove
from onnxprune.sensitivity.dims import dims_of
from onnxprune.sensitivity.error import OutputError
from onnxprune.sensitivity.narrowed import measure_narrowed
from onnxprune.sensitivity.request import Batches
from tests import nets
from tests.layers.test_attention import expanded, grouped, look


def every_head(found):
    splits = split_samples(len(found.samples), 0)
    feeds = [list(found.samples.feeds(part, 32)) for part in (splits.fit, splits.select)]
    values = {m.axis.value for g in found.coupling.groups for m in g.members}
    return feeds, proven_heads(found, values, feeds[0], seed=0)


def test_only_groups_of_head_dims_are_narrowed_by_turning():
    found = nets.digits("digits_vit", samples=128)
    _, heads = every_head(found)
    for group in found.coupling.groups:
        dims = dims_of(found.coupling, group, heads)
        assert (dims is not None) == (group.kind == "head_dim")
        if dims is not None:
            assert sorted(dims.order.tolist()) == list(range(group.size))
            assert len(dims.heads) == 2
            assert dims_of(found.coupling, group, heads[:1]) is None


@pytest.mark.parametrize("attention", [None, expanded, grouped])
def test_a_curve_is_what_turned_heads_lose(attention, tmp_path):
    found = nets.digits("digits_vit", samples=128)
    found = found if attention is None else look(attention, tmp_path, samples=128)
    feeds, heads = every_head(found)
    group = next(g for g in found.coupling.groups if g.kind == "head_dim")
    curves = measure_narrowed(
        found.view, found.traces[0], found.coupling, [group], Batches(*feeds),
        outputs=float_frontier(found.view, found.traces[0]), seed=0, progress=Silent(), heads=heads,
    )  # fmt: skip
    curve = curves[group.name]
    assert curve.method == "reconstruction"
    assert (np.diff(curve.errors) >= 0).all()
    sites = dense_sites(found.view, found.traces[0], found.coupling)
    output = OutputError(found.view, float_frontier(found.view, found.traces[0]), feeds[1])
    for gone in (8, 12) if attention is None else (1, 2):
        cut = prove(found, [(group, curve.order[:gone])])
        turn = turn_heads(found, heads, cut.keeps)
        model = turned(cut.model, found.view, sites, cut.keeps, [turn]).model
        lost = output.error(model, cut.keeps)
        assert curve.errors[gone] == pytest.approx(lost, rel=0.5)
