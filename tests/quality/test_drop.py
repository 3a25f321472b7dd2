"""The drop as reported: intervals and the worst class."""

import numpy as np
import pytest
from scipy.stats import beta

from onnxprune.quality.drop import drop_interval, worst_class
from onnxprune.quality.losses import Losses


def given(values, kind, table=None):
    values = np.asarray(values, np.float64)
    return Losses(float(values.mean()), values, kind, table, len(values))


@pytest.mark.parametrize("hits", [0, 1, 7, 40])
def test_a_share_has_its_exact_interval(hits):
    low = beta.ppf(0.025, hits, 41 - hits) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, 40 - hits) if hits < 40 else 1.0
    losses = given([1] * hits + [0] * (40 - hits), "binary")
    assert drop_interval(losses, seed=0) == pytest.approx((low, high), abs=1e-9)


def test_one_number_has_no_interval():
    assert drop_interval(Losses(0.3, None, None, None, 9), seed=0) is None


def test_the_interval_of_a_mean_follows_the_seed_only():
    losses = given(np.random.default_rng(0).beta(1, 9, 60), "bounded")
    first, again, other = (drop_interval(losses, seed=s) for s in (0, 0, 1))
    assert first == again
    assert first != other
    assert first[0] < losses.drop < first[1]


def test_equal_losses_are_a_point():
    assert drop_interval(given([0.0] * 5, "bounded"), seed=0) == (0.0, 0.0)


def test_the_worst_class_has_samples_enough():
    """Class 0 loses 4 of 5; class 1 loses all of 4, too few to say so; class 2 was never seen."""
    table = np.full((9, 3), np.nan)
    table[:5, 0], table[5:, 1] = [1, 1, 1, 1, 0], 1
    assert worst_class(given(np.zeros(9), "binary", table)) == 0.8
    assert worst_class(given(np.zeros(9), "binary", table[5:])) is None
    assert worst_class(given(np.zeros(9), "binary")) is None
