"""Which widths pay: staircases found in noise, and none where there is none."""

import numpy as np
import pytest

from onnxprune.bench.steps import stairs

WIDTHS = (*range(64, 12, -4), 63, 58, 45, 34)


def times(step, *, cliff=0.0, noise=0.02, base=0.2, seed=0):
    rng = np.random.default_rng(seed)
    w = np.array(WIDTHS)
    exact = base + -(-w // step) * step / 64
    exact[w % 4 != 0] *= 1 + cliff
    return exact * np.exp(rng.normal(0, noise, len(w)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("step", [8, 16, 32])
def test_a_staircase_is_found(step, seed):
    assert stairs(WIDTHS, times(step, seed=seed)) == (step, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_a_line_has_no_steps(seed):
    assert stairs(WIDTHS, times(1, seed=seed)) == (1, 0.0)


@pytest.mark.parametrize("step", [1, 8, 16])
def test_a_cliff_keeps_widths_on_multiples_of_four(step):
    found, cliff = stairs(WIDTHS, times(step, cliff=0.4))
    assert found == max(step, 4)
    assert cliff == pytest.approx(0.4, abs=0.06)


def test_one_slow_width_is_no_cliff():
    slow = times(16)
    slow[WIDTHS.index(63)] *= 3
    assert stairs(WIDTHS, slow) == (16, 0.0)


def test_noise_is_not_taken_for_a_staircase():
    rng = np.random.default_rng(0)
    found = [stairs(WIDTHS, np.exp(rng.normal(0, 0.1, len(WIDTHS))))[0] for _ in range(200)]
    assert np.mean([step > 4 for step in found]) < 0.1
