"""Ridge least squares from sums, against the same done on the rows."""

import numpy as np
import pytest

from onnxprune.recovery.ridge import Moments, solve


def moments(x, y, folds=4):
    found = Moments(folds)
    for number, (rows, targets) in enumerate(
        zip(np.array_split(x, 8), np.array_split(y, 8), strict=True)
    ):
        found.add(number % folds, rows.astype(np.float32), targets.astype(np.float32))
    return found


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 6)) + 1.0
    w, b = rng.standard_normal((6, 3)), np.array([1.0, -2.0, 0.5])
    return x, x @ w + b, w, b


def test_finds_weights_and_bias(problem):
    x, y, w, b = problem
    found = solve(moments(x, y), w + 0.3, centred=True)
    np.testing.assert_allclose(found.weights, w, atol=1e-3)
    np.testing.assert_allclose(found.bias, b, atol=5e-3)
    assert found.after < 1e-5 < found.before


def test_without_a_bias_none_is_made_up(problem):
    x, y, w, b = problem
    found = solve(moments(x, y - b), w + 0.3, centred=False)
    np.testing.assert_allclose(found.weights, w, atol=1e-3)
    assert not found.bias.any()


def test_the_errors_are_those_on_held_out_rows(problem):
    x, y, w, _ = problem
    y = y + np.random.default_rng(1).standard_normal(y.shape)
    found = solve(moments(x, y), w, centred=True)
    # Noise of variance 1 is all that good weights leave.
    left = 800 * 3 / ((y - y.mean(axis=0)) ** 2).sum()
    assert found.before == pytest.approx(left, rel=0.1)
    assert found.after == pytest.approx(left, rel=0.1)


def test_noise_is_shrunk_towards_the_start():
    rng = np.random.default_rng(2)
    x, start = rng.standard_normal((40, 30)), rng.standard_normal((30, 2))
    y = x @ start + 3.0 * rng.standard_normal((40, 2))
    found = solve(moments(x, y), start, centred=True)
    free = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.linalg.norm(found.weights - start) < 0.7 * np.linalg.norm(free - start)


def test_inputs_that_say_the_same_do_not_break_it():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 3))
    x = np.column_stack([x, x[:, 0], np.zeros(200)])
    found = solve(moments(x, x[:, :1] * 2.0), np.zeros((5, 1)), centred=True)
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(x @ found.weights, x[:, :1] * 2.0, atol=0.05)


def test_moments_spoilt_by_rounding_leave_the_weights():
    rng = np.random.default_rng(4)
    x, start = rng.standard_normal((50, 4)), rng.standard_normal((4, 2))
    spoilt = moments(x, x @ start)
    for number in range(4):
        spoilt.xx[number] = -np.eye(4) * 1e6
    found = solve(spoilt, start, centred=False)
    np.testing.assert_array_equal(found.weights, start)
