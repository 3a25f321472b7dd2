"""Greedy order: each step takes what adds least to the summed change."""

from itertools import combinations

import numpy as np
import pytest

from onnxprune.sensitivity.order import greedy_order


def joint(vectors, picks):
    return float((vectors[list(picks)].sum(axis=0) ** 2).sum())


@pytest.mark.parametrize("seed", range(8))
def test_every_step_is_the_cheapest_one(seed):
    vectors = np.random.default_rng(seed).standard_normal((7, 3)).astype(np.float32)
    order = greedy_order(vectors).tolist()
    assert sorted(order) == list(range(7))
    for step in range(7):
        costs = {c: joint(vectors, [*order[:step], c]) for c in order[step:]}
        assert costs[order[step]] == pytest.approx(min(costs.values()), abs=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_subset_and_not_behind_sorting_by_norm(seed):
    rng = np.random.default_rng(seed)
    vectors = (rng.standard_normal((8, 6)) * rng.gamma(1.0, size=(8, 1))).astype(np.float32)
    order, sorted_ = greedy_order(vectors), np.argsort((vectors**2).sum(axis=1))
    greedy = [joint(vectors, order[:k]) for k in range(1, 8)]
    by_norm = [joint(vectors, sorted_[:k]) for k in range(1, 8)]
    best = [min(joint(vectors, s) for s in combinations(range(8), k)) for k in range(1, 8)]
    assert greedy[0] == pytest.approx(best[0])
    assert sum(best) <= sum(greedy) <= sum(by_norm) * 1.05
    assert sum(greedy) <= 2 * sum(best)


def test_channels_that_cancel_go_together():
    """Each of the pair alone is dearer than the third; both together cost nothing."""
    vectors = np.array([[3, 0], [-3, 0], [0, 4]], np.float32)
    assert set(greedy_order(vectors)[:2].tolist()) == {0, 1}


def test_no_channels_or_no_change():
    assert greedy_order(np.zeros((0, 4), np.float32)).tolist() == []
    assert greedy_order(np.zeros((3, 4), np.float32)).tolist() == [0, 1, 2]


def test_small_changes_beside_huge_ones_keep_their_order():
    vectors = np.diag([1e6, 3e-3, 1e-3, 2e-3]).astype(np.float32)
    assert greedy_order(vectors).tolist() == [2, 3, 1, 0]
