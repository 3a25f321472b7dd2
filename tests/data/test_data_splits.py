import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.data.splits import affordable, split_samples


@given(n=st.integers(4, 5000), seed=st.integers(0, 100))
def test_parts_are_disjoint_complete_and_of_the_right_size(n, seed):
    splits = split_samples(n, seed)
    parts = (splits.fit, splits.select, splits.certify)
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert all(part.size and (np.diff(part) > 0).all() for part in parts)
    assert abs(splits.fit.size - n / 2) <= 1
    assert splits.select.size == splits.certify.size
    assert not splits.shared


@pytest.mark.parametrize("n", [1, 2, 3])
def test_too_few_samples_are_shared_and_it_is_said(n):
    splits = split_samples(n, 0)
    assert splits.shared
    for part in (splits.fit, splits.select, splits.certify):
        assert part.tolist() == list(range(n))


def test_the_seed_decides():
    assert split_samples(100, 1).fit.tolist() == split_samples(100, 1).fit.tolist()
    assert split_samples(100, 1).fit.tolist() != split_samples(100, 2).fit.tolist()
    assert split_samples(100, 1).fit.tolist() != list(range(50))


def test_nothing_to_split():
    with pytest.raises(ValueError, match="cannot split 0 samples"):
        split_samples(0, 0)


def test_fewer_samples_where_each_takes_long():
    indices = np.arange(0, 2000, 2)
    assert affordable(indices, 4e7, 0) is indices
    few = affordable(indices, 4e9, 0)
    assert len(few) == 256
    assert (np.diff(few) > 0).all()
    assert set(few) <= set(indices)
    assert (few == affordable(indices, 4e9, 0)).all()
    assert (few != affordable(indices, 4e9, 1)).any()
