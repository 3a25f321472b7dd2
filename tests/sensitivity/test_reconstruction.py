"""Group-OBS: orders, errors and what is left out, against least squares done the slow way."""

import numpy as np
import pytest

from onnxprune.layers.readers import Reader, collect_readers
from onnxprune.sensitivity import reconstruction
from onnxprune.sensitivity.reconstruction import eliminate
from tests import nets

RIDGE = reconstruction._RIDGE


def reader(rng, channels=6, taps=2, outputs=3, rows=400):
    x = rng.standard_normal((rows, channels * taps)) @ rng.standard_normal((channels * taps,) * 2)
    x -= x.mean(axis=0)
    return made(x, rng.standard_normal((channels * taps, outputs)), taps)


def made(x, weight, taps=1, spread=1.0):
    places = np.arange(len(weight)).reshape(-1, taps)
    worth = np.full(weight.shape[1], 1 / spread)
    return Reader(None, x.T @ x / len(x), np.zeros(len(weight)), weight, places, worth)


def refitted_error(r, gone):
    """Ridge least squares towards the full weight, on the inputs that are left."""
    left = np.setdiff1d(np.arange(len(r.moments)), r.places[gone].ravel())
    damped = r.moments + RIDGE * np.diag(r.moments).mean() * np.eye(len(r.moments))
    inner = damped[np.ix_(left, left)]
    weight = np.linalg.solve(inner, damped[left] @ r.weight)
    full = np.zeros_like(r.weight)
    full[left] = weight
    change = r.weight - full
    return (change * (damped @ change)).sum() * r.worth[0]


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_errors_are_those_of_least_squares(at_once, monkeypatch):
    monkeypatch.setattr(reconstruction, "_STEPS", 6 // at_once)
    r = reader(np.random.default_rng(0))
    found = eliminate([r], np.zeros(6, int))
    assert sorted(found.order.tolist()) == list(range(6))
    for k in range(1, 6):
        assert found.errors[k] == pytest.approx(refitted_error(r, found.order[:k]), rel=1e-6)


def test_every_step_takes_the_cheapest():
    r = reader(np.random.default_rng(1))
    found = eliminate([r], np.zeros(6, int))
    for k in range(5):
        gone, pick = found.order[:k], found.order[k]
        costs = {c: refitted_error(r, np.append(gone, c)) for c in set(range(6)) - set(gone)}
        assert costs[pick] == pytest.approx(min(costs.values()), rel=1e-6)


def test_stand_ins_are_those_of_least_squares():
    r = reader(np.random.default_rng(2))
    found = eliminate([r], np.zeros(6, int))
    for k in range(1, 6):
        stand_in = found.stand_in(r, k)
        assert not stand_in[r.places[found.order[:k]].ravel()].any()
        change = r.weight - stand_in
        damped = r.moments + RIDGE * np.diag(r.moments).mean() * np.eye(len(r.moments))
        error = (change * (damped @ change)).sum()
        assert error == pytest.approx(refitted_error(r, found.order[:k]), rel=1e-6)


def test_readers_are_judged_together():
    rng = np.random.default_rng(3)
    a, b = reader(rng), reader(rng, taps=1, outputs=5)
    found = eliminate([a, b], np.zeros(6, int))
    for k in range(1, 6):
        wanted = refitted_error(a, found.order[:k]) + refitted_error(b, found.order[:k])
        assert found.errors[k] == pytest.approx(wanted, rel=1e-6)


def test_a_copy_goes_first_and_for_nothing():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((500, 5))
    x = np.column_stack([x, x[:, 0]])
    r = made(x, rng.standard_normal((6, 4)), spread=10.0)
    found = eliminate([r], np.zeros(6, int))
    assert found.order[0] in (0, 5)
    assert found.errors[1] < 1e-2 * found.errors[2]


def test_it_does_not_matter_whether_normalizations_are_folded():
    orders = []
    for name in ("digits_resnet", "digits_resnet_bn"):
        found = nets.digits(name, samples=64)
        groups, feeds = found.coupling.groups, list(found.samples.feeds(range(64), 32))
        readers = collect_readers(
            found.view, found.traces[0], found.coupling, groups, feeds, seed=0
        )
        made = {n: eliminate(r, np.zeros(len(r[0].places), int)) for n, r in readers.items()}
        orders.append({name: (e.order.tolist(), e.errors) for name, e in made.items()})
    folded, kept = orders
    assert len(folded) >= 5
    assert folded.keys() == kept.keys()
    for name, (order, errors) in folded.items():
        assert order == kept[name][0]
        np.testing.assert_allclose(errors, kept[name][1], rtol=1e-5)
