"""Stitched weights: those of each layer alone, nearer than the bare cut, and kept once solved."""

import numpy as np
import pytest

from onnxprune.coupling.keeps import keep_masks
from onnxprune.model.frontier import float_frontier
from onnxprune.recovery import stitch
from onnxprune.recovery.stitch import Stitcher
from onnxprune.rewrite.cut import cut
from onnxprune.sensitivity.error import OutputError
from onnxprune.sensitivity.reconstruction import eliminate
from onnxprune.sensitivity.weighed import weighed_readers
from tests import nets


@pytest.fixture(scope="module", params=["digits_mlp", "digits_resnet", "digits_vit"])
def made(request):
    found = nets.digits(request.param, samples=304)
    feeds = list(found.samples.feeds(np.arange(272), 16))
    return found, Stitcher(found, found.coupling.groups, feeds, seed=0), feeds


def halved(found, groups):
    return [(g, g.balanced(np.arange(g.size))[: g.size // 2 // g.step * g.step]) for g in groups]


def cut_to(found, removed):
    keeps = keep_masks(removed, found.coupling.collected.sizes)
    return cut(found.view, found.coupling, found.traces, keeps), keeps


def test_it_is_nearer_than_the_cut_and_keeps_its_shapes(made):
    found, stitcher, _ = made
    removed = halved(found, [g for g in found.coupling.groups if g.kind != "head"])
    model, keeps = cut_to(found, removed)
    stitched = stitcher.stitched(model, removed, keeps)
    names = float_frontier(found.view, found.traces[0])
    error = OutputError(found.view, names, list(found.samples.feeds(np.arange(272, 304), 16))).error
    assert error(stitched, keeps) < 0.8 * error(model, keeps)
    shapes = {t.name: list(t.dims) for t in model.graph.initializer}
    assert shapes.items() <= {t.name: list(t.dims) for t in stitched.graph.initializer}.items()


def test_nothing_cut_nothing_changed(made):
    found, stitcher, _ = made
    model, keeps = cut_to(found, [])
    assert stitcher.stitched(model, [], keeps) == model


def test_an_answer_is_what_elimination_says_and_solved_for_once(made, monkeypatch):
    found, stitcher, feeds = made
    names = float_frontier(found.view, found.traces[0])
    view, trace, groups = found.view, found.traces[0], found.coupling.groups
    readers = weighed_readers(view, trace, found.coupling, groups, feeds, outputs=names, seed=0)
    group = next(g for g in groups if g.name in readers and g.kind in ("neuron", "filter"))
    eliminated = eliminate(readers[group.name], group.blocks)
    gone = group.size // 2
    keeps = cut_to(found, [(group, eliminated.order[:gone])])[1]
    answers = stitcher._heard(keeps)
    monkeypatch.setattr(stitch, "linalg", None)  # a second time there is nothing to solve
    assert stitcher._heard(keeps).keys() == answers.keys()
    for reader in readers[group.name]:
        weight, shift = answers[reader.site.node.index]
        expected = eliminated.stand_in(reader, gone)
        rows = np.setdiff1d(np.arange(len(expected)), reader.inputs(eliminated.order[:gone]))
        np.testing.assert_allclose(weight, expected[rows], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(
            shift, (reader.weight - expected).T @ reader.mean, rtol=1e-6, atol=1e-9
        )
