"""The certificate: published numbers, validity by simulation, honest refusals."""

import numpy as np
import pytest
from scipy.stats import binom

from onnxprune.quality.certificate import (
    certified_length,
    discordant_interval,
    fewest_samples,
    p_value,
    samples_needed,
    share_interval,
    upper_bound,
)
from onnxprune.quality.losses import Losses

KINDS = ["binary", "discordant", "bounded", "signed"]


def given(values, kind):
    values = np.asarray(values, np.float64)
    return Losses(float(values.mean()), values, kind, None, len(values))


def hits(n, k):
    return given([1] * k + [0] * (n - k), "binary")


@pytest.mark.parametrize(
    ("alpha", "n", "most"),
    [(0.01, 299, 0), (0.01, 500, 1), (0.01, 1000, 4), (0.02, 500, 4), (0.05, 300, 8)],
)
def test_disagreements_that_are_allowed(alpha, n, most):
    """The table of exact binomial bounds at 95 %."""
    assert p_value(hits(n, most), alpha) <= 0.05 < p_value(hits(n, most + 1), alpha)


def test_298_samples_certify_no_single_percent():
    assert p_value(hits(298, 0), 0.01) > 0.05
    assert fewest_samples("binary", 0.01, 0.95) == 299


def draw(kind, n, rng):
    """Draw losses whose mean is just above 0.1."""
    match kind:
        case "binary":
            return rng.random(n) < 0.1001
        case "discordant":
            return rng.choice([1, -1, 0], n, p=[0.1501, 0.05, 0.7999])
        case "bounded":
            return rng.beta(0.5, 4.45, n)
        case "signed":
            return 2 * rng.beta(2, 1.63, n) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_false_claim_is_rarely_proven(kind):
    rng = np.random.default_rng(1)
    proven = sum(p_value(given(draw(kind, 150, rng), kind), 0.1) <= 0.05 for _ in range(1000))
    assert proven <= binom.ppf(0.9999, 1000, 0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_lost_is_proven_with_samples_enough(kind):
    n = fewest_samples(kind, 0.1, 0.95)
    assert p_value(given(np.zeros(n), kind), 0.1) <= 0.05
    assert p_value(given(np.zeros(n - 2), kind), 0.1) > 0.05
    assert fewest_samples(kind, 0.0, 0.95) is None


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_where_the_test_turns(kind):
    rng = np.random.default_rng(2)
    losses = given(draw(kind, 200, rng), kind)
    bound = upper_bound(losses, 0.95)
    assert losses.drop < bound < 1
    assert p_value(losses, bound + 1e-5) <= 0.05 < p_value(losses, bound - 1e-5)


def test_no_bound_for_one_number_or_losses_without_limits():
    whole = Losses(0.0, None, None, None, 1000)
    unbounded = Losses(0.0, np.zeros(1000), None, None, 1000)
    for losses in (whole, unbounded):
        assert p_value(losses, 0.5) == 1.0
        assert upper_bound(losses, 0.95) is None
        assert samples_needed(losses, 0.5, 0.95) is None
        assert certified_length([losses], 0.5, 0.95) == 0


def test_the_sequence_ends_at_the_first_failure():
    good, bad = hits(500, 0), hits(500, 9)
    assert certified_length([good, good], 0.01, 0.95) == 2
    assert certified_length([good, bad, good], 0.01, 0.95) == 1
    assert certified_length([bad, good], 0.01, 0.95) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_samples_as_said_would_do(kind):
    """The same shares and mean again and again, until there are enough samples."""
    losses = given([0.0] * 99 + [1.0], kind)
    needed = samples_needed(losses, 0.03, 0.95)
    assert needed > 100
    enough = -(-needed // 100) + 1
    assert p_value(given(np.tile(losses.values, enough), kind), 0.03) <= 0.05
    assert p_value(given(np.tile(losses.values, enough // 2), kind), 0.03) > 0.05


def test_no_number_of_samples_proves_what_is_false():
    assert samples_needed(hits(100, 5), 0.05, 0.95) is None


def test_gains_count_against_losses():
    worse = given([1] * 4 + [0] * 196, "discordant")
    both = given([1] * 4 + [-1] * 12 + [0] * 184, "discordant")
    assert p_value(both, 0.03) < p_value(worse, 0.03)


def test_intervals_hold_the_estimate():
    low, high = share_interval(3, 100, 0.95)
    assert (low, high) == pytest.approx((0.00623, 0.08518), abs=1e-5)
    low, high = discordant_interval(5, 2, 100, 0.95)
    assert low < 0.03 < high
    assert discordant_interval(0, 0, 10, 0.95)[0] == -discordant_interval(0, 0, 10, 0.95)[1]
