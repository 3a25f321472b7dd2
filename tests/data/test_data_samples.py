import numpy as np
import pytest

from onnxprune.data.samples import Samples, choose


def stacked(n, fixed_batch=None):
    entries = tuple({"x": np.full((1, 2), i), "t": np.array(7)} for i in range(n))
    return Samples(names=("x", "t"), entries=entries, stacked=True, fixed_batch=fixed_batch)


def rows(feeds):
    return [feed["x"][:, 0].tolist() for feed in feeds]


def test_stacked_samples_are_joined_in_the_order_asked_for():
    feeds = list(stacked(5).feeds([4, 0, 2], 2))
    assert rows(feeds) == [[4, 0], [2]]
    assert all(feed["t"].shape == () and feed["t"] == 7 for feed in feeds)


def test_a_fixed_batch_is_kept_and_the_remainder_dropped():
    assert rows(stacked(7, fixed_batch=3).feeds(np.arange(7), 100)) == [[0, 1, 2], [3, 4, 5]]


def test_too_few_for_one_fixed_batch_are_repeated():
    assert rows(stacked(7, fixed_batch=3).feeds([5, 6], 100)) == [[5, 6, 5]]


def test_no_indices_no_feeds():
    assert list(stacked(3).feeds([], 2)) == []
    assert list(stacked(3, fixed_batch=2).feeds([], 2)) == []


def test_full_feeds_come_one_by_one():
    entries = tuple({"x": np.full((i + 1, 2), i)} for i in range(3))
    samples = Samples(names=("x",), entries=entries, stacked=False)
    assert rows(samples.feeds([2, 0], 16)) == [[2, 2, 2], [0]]
    assert samples.example() is entries[0]
    assert len(samples) == 3


def test_example_of_stacked_samples():
    assert rows([stacked(5).example()]) == [[0]]
    assert rows([stacked(5, fixed_batch=2).example()]) == [[0, 1]]
    assert rows([stacked(1, fixed_batch=2).example()]) == [[0, 0]]


def test_samples_are_frozen():
    with pytest.raises(AttributeError):
        stacked(1).names = ()


def test_choose_keeps_the_order_and_follows_the_seed():
    assert choose(3, 5, 0).tolist() == [0, 1, 2]
    some = choose(100, 10, 1)
    assert len(some) == 10
    assert (np.diff(some) > 0).all()
    assert some.tolist() == choose(100, 10, 1).tolist()
    assert some.tolist() != choose(100, 10, 2).tolist()
