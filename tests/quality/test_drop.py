"""The drop as reported: intervals and the worst class."""

import numpy as np
import pytest
from scipy.stats import beta

from onnxprune.quality.certificate import p_value
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
    assert drop_interval(losses) == pytest.approx((low, high), abs=1e-9)


def test_one_number_has_no_interval():
    assert drop_interval(Losses(0.3, None, None, None, 9)) is None


@pytest.mark.parametrize(("kind", "shift"), [("bounded", 0.0), ("signed", -0.4)])
def test_the_interval_of_a_mean_has_its_error_on_both_sides(kind, shift):
    values = np.random.default_rng(0).beta(1, 4, 400) + shift
    losses = given(values, kind)
    low, high = drop_interval(losses)
    assert low < losses.drop < high
    assert p_value(losses, high) == pytest.approx(0.025, abs=1e-3)
    assert high - low < 0.3


def test_the_interval_holds_the_mean_where_a_few_lose_all():
    """One in two hundred loses everything: fifty samples mostly show nothing of it."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = drop_interval(given((rng.random(50) < 0.005) * rng.random(50), "bounded"))
        held += low <= 0.0025 <= high
    assert held >= 190


def test_losses_without_bounds_have_no_interval():
    assert drop_interval(given([0.0, 3.0], None)) is None


def test_the_worst_class_has_samples_enough():
    """Class 0 loses 4 of 5; class 1 loses all of 4, too few to say so; class 2 was never seen."""
    table = np.full((9, 3), np.nan)
    table[:5, 0], table[5:, 1] = [1, 1, 1, 1, 0], 1
    assert worst_class(given(np.zeros(9), "binary", table)) == 0.8
    assert worst_class(given(np.zeros(9), "binary", table[5:])) is None
    assert worst_class(given(np.zeros(9), "binary")) is None


def test_the_worst_class_is_never_better_than_the_whole():
    """Class 0 loses nothing; class 1 loses all of 4, too few to say so."""
    table = np.full((9, 2), np.nan)
    table[:5, 0], table[5:, 1] = 0, 1
    values = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    assert worst_class(given(values, "binary", table)) is None
