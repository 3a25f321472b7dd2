"""In front of an activation, only what it lets through has to be matched."""

import numpy as np
import pytest

from onnxprune.recovery.gated import Bounds, solve_gated
from onnxprune.recovery.ridge import Moments, solve

INF = float("inf")


def problem(low, high, seed=0, n=600):
    """Goals that a linear layer can match only where the activation is open."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, n, 5)).astype(np.float32)
    w = rng.standard_normal((1, 5, 4)).astype(np.float32)
    y = x @ w
    # What the activation hides is off by something the inputs do not tell.
    hidden = rng.standard_normal(y.shape).astype(np.float32) ** 2 * 3
    y = np.where(y < low, np.minimum(y - hidden, low), y)
    y = np.where(y > high, np.maximum(y + hidden, high), y)
    pairs = [(x[:, i::3], y[:, i::3]) for i in range(3)]
    bounds = Bounds(np.full((1, 1, 4), low, np.float32), np.full((1, 1, 4), high, np.float32))
    return pairs, bounds, solve(moments_of(pairs), np.zeros((1, 5, 4)), centred=True), w


def moments_of(pairs):
    moments = Moments(3)
    for fold, pair in enumerate(pairs):
        moments.add(fold, *pair)
    return moments


def solved(pairs, bounds, linear):
    start = np.zeros((1, 5, 4))
    return solve_gated(pairs, moments_of(pairs), bounds, linear, start, centred=True)


def error(pairs, bounds, solution):
    total = 0.0
    for x, y in pairs:
        now = x @ solution.weights + solution.bias[:, None]
        total += (
            (np.clip(now, bounds.low, bounds.high) - np.clip(y, bounds.low, bounds.high)) ** 2
        ).sum()
    return total


@pytest.mark.parametrize(("low", "high"), [(0.0, INF), (-0.5, 1.0), (-INF, 0.5)])
def test_what_is_hidden_does_not_spoil_what_is_seen(low, high):
    pairs, bounds, linear, w = problem(low, high)
    gated = solved(pairs, bounds, linear)
    assert error(pairs, bounds, gated) < 0.75 * error(pairs, bounds, linear)
    assert np.abs(gated.weights - w).mean() < np.abs(linear.weights - w).mean()


def test_an_open_activation_changes_nothing():
    pairs, bounds, linear, _ = problem(-INF, INF)
    gated = solved(pairs, bounds, linear)
    np.testing.assert_allclose(gated.weights, linear.weights, atol=1e-6)


def test_what_does_not_help_on_unseen_rows_is_dropped():
    pairs, bounds, linear, _ = problem(0.0, INF, n=600)
    spoilt = [(pairs[0][0], -pairs[0][1]), *pairs[1:]]  # the held-out pair says the opposite
    found = solved(spoilt, bounds, linear)
    assert found is linear
