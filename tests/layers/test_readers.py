"""Which groups only linear and recurrent layers read, and what is collected of these."""

import numpy as np

from onnxprune.layers.readers import collect_readers
from onnxprune.layers.rows import Draw, input_rows
from onnxprune.runtime.session import Session, with_outputs
from tests import nets


def test_only_groups_with_linear_readers_are_ordered():
    found = nets.digits("digits_vit", samples=64)
    feeds = list(found.samples.feeds(range(64), 32))
    groups = found.coupling.groups
    ordered = collect_readers(found.view, found.traces[0], found.coupling, groups, feeds, seed=0)
    kinds = {g.name: g.kind for g in groups}
    # Head dimensions meet in a product of activations, the stream in LayerNormalization.
    linear = {name for name, kind in kinds.items() if kind in ("neuron", "head")}
    assert ordered.keys() == linear


def test_too_few_rows_are_no_evidence():
    found = nets.digits("digits_resnet", samples=16)
    few = list(found.samples.feeds(range(2), 2))
    many = list(found.samples.feeds(range(16), 16))
    arguments = (found.view, found.traces[0], found.coupling, found.coupling.groups)
    readers = [collect_readers(*arguments, feeds, seed=0) for feeds in (few, many)]
    assert len(readers[0]) < len(readers[1])


def test_moments_are_those_of_the_inputs():
    found = nets.digits("digits_mlp", samples=200)
    feeds = list(found.samples.feeds(range(200), 50))
    arguments = (found.view, found.traces[0], found.coupling, found.coupling.groups)
    every = collect_readers(*arguments, feeds, seed=0)
    assert every
    for readers in every.values():
        for reader in readers:
            site = reader.site
            session = Session(with_outputs(found.view.model, [site.source]))
            seen = [session.run(feed)[site.source] for feed in feeds]
            weight = site.weight_in(found.view)
            rows = np.concatenate([input_rows(site, v, weight, Draw(10_000))[0] for v in seen])
            np.testing.assert_allclose(reader.mean, rows.mean(axis=0), rtol=1e-3, atol=1e-5)
            moments = np.cov(rows.T, bias=True)
            np.testing.assert_allclose(reader.moments, moments, rtol=1e-2, atol=1e-4)
