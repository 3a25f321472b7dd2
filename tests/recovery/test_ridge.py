"""Ridge least squares from sums, against the same done on the rows."""

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.recovery import ridge
from onnxprune.recovery.ridge import Moments, solve


def moments(x, y, folds=4):
    found = Moments(folds)
    for number, (rows, targets) in enumerate(
        zip(np.array_split(x, 8), np.array_split(y, 8), strict=True)
    ):
        found.add(number % folds, rows[None].astype(np.float32), targets[None].astype(np.float32))
    return found


def solved(x, y, start, *, centred=True):
    """Solve one problem; problems come in stacks."""
    found = solve(moments(x, y), start[None], centred=centred)
    return replace(found, weights=found.weights[0], bias=found.bias[0])


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((800, 6)) + 1.0
    w, b = rng.standard_normal((6, 3)), np.array([1.0, -2.0, 0.5])
    return x, x @ w + b, w, b


def test_finds_weights_and_bias(problem):
    x, y, w, b = problem
    found = solved(x, y, w + 0.3)
    np.testing.assert_allclose(found.weights, w, atol=1e-3)
    np.testing.assert_allclose(found.bias, b, atol=5e-3)
    assert found.after < 1e-5 < found.before


def test_without_a_bias_none_is_made_up(problem):
    x, y, w, b = problem
    found = solved(x, y - b, w + 0.3, centred=False)
    np.testing.assert_allclose(found.weights, w, atol=1e-3)
    assert not found.bias.any()


def test_the_errors_are_those_on_held_out_rows(problem):
    x, y, w, _ = problem
    y = y + np.random.default_rng(1).standard_normal(y.shape)
    found = solved(x, y, w)
    # Noise of variance 1 is all that good weights leave.
    left = 800 * 3 / ((y - y.mean(axis=0)) ** 2).sum()
    assert found.before == pytest.approx(left, rel=0.1)
    assert found.after == pytest.approx(left, rel=0.1)


def test_rows_can_be_taken_out_again(problem):
    x, y, _, _ = problem
    pairs = list(zip(np.array_split(x, 8), np.array_split(y, 8), strict=True))
    left = ridge.pool(
        moments(x, y).without(*(a[None].astype(np.float32) for a in pairs[0])), [0], centred=True
    )
    rest = [np.concatenate(part) for part in zip(*pairs[1:], strict=True)]
    wanted = ridge.pool(moments(*rest), range(4), centred=True)
    assert left.n == wanted.n
    for name in ("xx", "xy", "x", "y", "yy"):
        np.testing.assert_allclose(getattr(left, name), getattr(wanted, name), rtol=1e-4, atol=1e-3)


def test_of_wide_problems_one_fold_is_held_out(problem, monkeypatch):
    x, y, w, _ = problem
    spoilt = y.copy()
    spoilt[200:300] += 5.0  # of the third fold
    usual = solved(x, spoilt, w + 0.3)
    monkeypatch.setattr(ridge, "_WIDE", 5)
    wide = solved(x, spoilt, w + 0.3)
    np.testing.assert_allclose(wide.weights, usual.weights, atol=1e-2)
    assert wide.after < 0.5 * usual.after, "the spoilt fold was fitted on, not judged by"


def test_some_outputs_choose_the_ridge_for_all(monkeypatch):
    rng = np.random.default_rng(5)
    x, start = rng.standard_normal((200, 30)), rng.standard_normal((30, 5))
    y = x @ start + 3.0 * rng.standard_normal((200, 5))
    y[:, 1::2] = 0.0  # of these outputs, shrinking little would be best
    monkeypatch.setattr(ridge, "_JUDGED", 3)
    found, judges = solved(x, y, start), solved(x, y[:, ::2], start[:, ::2])
    assert found.ridge == judges.ridge
    assert (found.before, found.after) == pytest.approx((judges.before, judges.after))
    np.testing.assert_allclose(found.weights[:, ::2], judges.weights)
    assert np.linalg.norm(found.weights[:, 1::2] - start[:, 1::2]) > 1.0, "all are solved for"


def test_noise_is_shrunk_towards_the_start():
    rng = np.random.default_rng(2)
    x, start = rng.standard_normal((40, 30)), rng.standard_normal((30, 2))
    y = x @ start + 3.0 * rng.standard_normal((40, 2))
    found = solved(x, y, start)
    free = np.linalg.lstsq(x, y, rcond=None)[0]
    assert np.linalg.norm(found.weights - start) < 0.7 * np.linalg.norm(free - start)


def test_inputs_that_say_the_same_do_not_break_it():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 3))
    x = np.column_stack([x, x[:, 0], np.zeros(200)])
    found = solved(x, x[:, :1] * 2.0, np.zeros((5, 1)))
    assert np.isfinite(found.weights).all()
    np.testing.assert_allclose(x @ found.weights, x[:, :1] * 2.0, atol=0.05)


def test_moments_spoilt_by_rounding_leave_the_weights():
    rng = np.random.default_rng(4)
    x, start = rng.standard_normal((50, 4)), rng.standard_normal((4, 2))
    spoilt = moments(x, x @ start)
    for number in range(4):
        spoilt.xx[number] = -np.eye(4)[None] * 1e6
    found = solve(spoilt, start[None], centred=False)
    np.testing.assert_array_equal(found.weights[0], start)


def test_stacked_problems_are_solved_each_for_itself():
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((3, 400, 4)), rng.standard_normal((3, 4, 2))
    y = x @ w + np.arange(3)[:, None, None]
    found = Moments(2)
    for fold in range(2):
        found.add(fold, *(a[:, fold::2].astype(np.float32) for a in (x, y)))
    solution = solve(found, np.zeros_like(w), centred=True)
    np.testing.assert_allclose(solution.weights, w, atol=2e-3)
    np.testing.assert_allclose(solution.bias, [[0, 0], [1, 1], [2, 2]], atol=2e-3)
    assert solution.ridge == 1e-4
