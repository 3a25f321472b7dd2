"""The bases of heads: they lose nothing at full width, and less than dims as they are when cut."""

from itertools import combinations

import numpy as np
import pytest

from onnxprune.layers.heads import turned_heads
from onnxprune.runtime.session import Session, with_outputs
from tests.layers.test_attention import (
    DIMS,
    bare,
    expanded,
    grouped,
    look,
    packed,
    pairs_of,
    separate,
    shared,
)


def turned(attention, folder):
    found = look(attention, folder)
    feeds = [
        {"x": np.random.default_rng(n).standard_normal((16, 5, 12), np.float32)} for n in (1, 2)
    ]
    return found, feeds, turned_heads(found.view, found.traces[0], pairs_of(found), feeds, seed=0)


@pytest.mark.parametrize("attention", [separate, bare, packed, shared, expanded, grouped])
def test_one_side_undoes_the_other(attention, tmp_path):
    for one in turned(attention, tmp_path)[2]:
        for head in one.heads:
            np.testing.assert_allclose(head.through(DIMS), np.eye(DIMS), atol=1e-6)
            assert head.errors[0] == 0
            assert (np.diff(head.errors) >= 0).all()


def seen(found, feeds, site):
    session = Session(with_outputs(found.view.real, [site]))
    return np.concatenate([session.run(feed, [site])[site] for feed in feeds]).astype(np.float64)


def test_products_lose_least_in_the_first_dims(tmp_path):
    found, feeds, every = turned(separate, tmp_path)
    (one,) = [one for one in every if not one.pair.read]
    queries = seen(found, feeds, one.pair.one.output)
    keys = seen(found, feeds, one.pair.other.output)
    keys -= keys.mean(axis=1, keepdims=True)  # a softmax does not see it
    for head, mine, its in zip(one.heads, one.pair.ours, one.pair.theirs, strict=True):
        q, k = queries[..., mine].reshape(-1, DIMS), keys[..., its].reshape(-1, DIMS)
        scale = ((q @ k.T) ** 2).sum()
        for gone in (1, 2, 3):
            lost = ((q @ (np.eye(DIMS) - head.through(DIMS - gone)) @ k.T) ** 2).sum() / scale
            assert lost == pytest.approx(head.errors[gone], rel=0.05)
            plain = [((q[:, [d]] @ k[:, [d]].T) ** 2).sum() / scale for d in range(DIMS)]
            assert gone > 1 or lost <= min(plain)


def test_values_lose_least_in_the_first_dims(tmp_path):
    found, feeds, every = turned(separate, tmp_path)
    (one,) = [one for one in every if one.pair.read]
    read = seen(found, feeds, one.pair.other.source).reshape(-1, 12)
    weight = one.pair.other.weight_in(found.view).astype(np.float64)
    for head, its in zip(one.heads, one.pair.theirs, strict=True):
        x, w = read[:, its] - head.mean, weight[its]
        np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
        for gone in (1, 2):
            lost = ((x @ (np.eye(DIMS) - head.through(DIMS - gone)) @ w) ** 2).sum()
            for kept in (range(gone, DIMS), range(DIMS - gone)):
                # Whatever dims stay, refitted: the turned ones do at least as well.
                fit = np.linalg.lstsq(x[:, kept], x @ w, rcond=None)[0]
                assert lost <= ((x @ w - x[:, kept] @ fit) ** 2).sum() * (1 + 1e-6)


@pytest.mark.parametrize("attention", [expanded, grouped])
def test_shared_values_lose_least_in_the_first_dims(attention, tmp_path):
    found, feeds, every = turned(attention, tmp_path)
    (one,) = [one for one in every if one.pair.read]
    read = seen(found, feeds, one.pair.other.source).reshape(-1, 4 * DIMS)
    weight = one.pair.other.weight_in(found.view).astype(np.float64)
    for label in (0, 1):
        same = np.flatnonzero(one.pair.shared == label)
        assert len(same) == 2

        def lost(through, same=same):
            places = one.pair.theirs[same]
            parts = [
                (read[:, at] - read[:, at].mean(axis=0)) @ (np.eye(DIMS) - through) for at in places
            ]
            return sum(((x @ weight[at]) ** 2).sum() for x, at in zip(parts, places, strict=True))

        head = one.heads[same[0]]
        for gone in (1, 2):
            plain = [
                lost(np.diag([d not in left for d in range(DIMS)]))
                for left in combinations(range(DIMS), gone)
            ]
            assert lost(head.through(DIMS - gone)) < min(plain)


def test_too_few_rows_turn_nothing(tmp_path):
    found = look(separate, tmp_path)
    feeds = [{"x": np.ones((1, 5, 12), np.float32)}]
    assert turned_heads(found.view, found.traces[0], pairs_of(found), feeds, seed=0) == []
