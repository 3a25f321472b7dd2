"""Signs: right on average, exact where there are enough of them."""

import numpy as np
import pytest

from onnxprune.sensitivity.gradient.cotangents import enough, signs


@pytest.mark.parametrize("shape", [(5, 10), (3, 4, 7), (2, 100), (6,), ()])
@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_signs_of_the_right_shape(shape, count):
    drawn = signs(shape, count, np.random.default_rng(0))
    assert len(drawn) == count
    for draw in drawn:
        assert draw.shape == shape
        assert draw.dtype == np.float32
        assert (np.abs(draw) == 1).all()


@pytest.mark.parametrize("width", [1, 2, 10, 16, 33, 64])
def test_enough_of_them_give_every_norm_exactly(width):
    rng = np.random.default_rng(1)
    shape = (7, width)
    count = enough([shape])
    change = rng.standard_normal(shape)
    seen = [(draw * change).sum(axis=1) ** 2 for draw in signs(shape, count, rng)]
    np.testing.assert_allclose(np.mean(seen, axis=0), (change**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("width", [10, 100])
def test_any_number_is_right_on_average(width):
    rng = np.random.default_rng(2)
    change = rng.standard_normal((1, width))
    seen = [
        np.mean([(d * change).sum() ** 2 for d in signs((1, width), 3, rng)]) for _ in range(3000)
    ]
    assert np.mean(seen) == pytest.approx((change**2).sum(), rel=0.06)


def test_rows_of_one_sample_vary_less_than_free_signs():
    rng = np.random.default_rng(3)
    change = rng.standard_normal((1, 10))
    true = (change**2).sum()

    def spread(draw):
        return np.std([np.mean([(d * change).sum() ** 2 for d in draw()]) for _ in range(500)])

    free = spread(lambda: rng.integers(0, 2, (8, 1, 10)) * 2 - 1)
    assert spread(lambda: signs((1, 10), 8, rng)) < 0.85 * free
    assert free < 2 * true


def test_samples_are_drawn_apart():
    draw = signs((200, 10), 1, np.random.default_rng(4))[0]
    assert len(np.unique(draw, axis=0)) > 150
