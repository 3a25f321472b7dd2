"""Rank correlations over all groups and inside them."""

import numpy as np
import pytest

from onnxprune.sensitivity.agreement import FEWEST, compare

RISING = np.arange(8.0)


def test_groups_that_differ_hide_what_is_wrong_inside_them():
    pairs = {"low": (RISING, RISING), "high": (RISING + 100, 107 - RISING)}
    ranks = compare(pairs)
    assert ranks.pooled > 0.7
    assert (ranks.groups, ranks.channels) == (2, 16)
    assert ranks.median == pytest.approx(0.0)
    assert ranks.worst == pytest.approx(-1.0)
    assert ranks.weakest == "high"


def test_small_and_tied_groups_do_not_count_inside():
    small, tied = RISING[: FEWEST - 1], np.ones(8)
    ranks = compare({"good": (RISING, RISING**2), "small": (small, -small), "tied": (tied, RISING)})
    assert (ranks.groups, ranks.weakest) == (1, "good")
    assert ranks.median == ranks.worst == pytest.approx(1.0)
    assert ranks.channels == 16 + FEWEST - 1


def test_scores_of_different_units_are_not_pooled():
    ranks = compare({"a": (RISING, RISING), "b": (RISING * 1e6, RISING)}, pool=False)
    assert ranks.pooled is None
    assert ranks.median == pytest.approx(1.0)


def test_nothing_to_compare_says_nothing():
    ranks = compare({})
    assert (ranks.channels, ranks.groups, ranks.weakest) == (0, 0, "")
    assert ranks.pooled is ranks.median is ranks.worst is None
