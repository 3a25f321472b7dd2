"""Changes of outputs as vectors: norms are relative errors, whatever the width and number."""

import numpy as np
import pytest

from onnxprune.sensitivity.output import OutputChange


def norms(change, changed):
    return sum(float((change.vector(i, c) ** 2).sum()) for i, c in enumerate(changed))


def relative(clean, changed):
    a, b = np.concatenate(clean).astype(np.float64), np.concatenate(changed).astype(np.float64)
    return ((b - a) ** 2).sum() / ((a - a.mean()) ** 2).sum()


def rows(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_narrow_outputs_are_exact():
    clean, changed = [rows(0, 4, 10), rows(1, 2, 10)], [rows(2, 4, 10), rows(3, 2, 10)]
    change = OutputChange([{"y": a} for a in clean])
    found = norms(change, [{"y": b} for b in changed])
    assert found == pytest.approx(relative(clean, changed), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("width", [257, 5000])
def test_projection_keeps_norms_and_differences(seed, width):
    clean = [rows(seed, 4, width)]
    a, b = clean[0] + 0.1 * rows(seed + 50, 4, width), clean[0] + 0.2 * rows(seed + 90, 4, width)
    change = OutputChange([{"y": clean[0]}], seed=seed)
    va, vb = change.vector(0, {"y": a}), change.vector(0, {"y": b})
    assert va.shape == (4 * 256,)
    for vector, array in ((va, a), (vb, b), (va - vb, clean[0] + a - b)):
        true = np.sqrt(relative(clean, [array]))
        assert np.linalg.norm(vector) == pytest.approx(true, rel=0.15)


def test_projections_add_up():
    clean = rows(0, 3, 600)
    change = OutputChange([{"y": clean}])
    a, b = 0.1 * rows(1, 3, 600), 0.1 * rows(2, 3, 600)
    both = change.vector(0, {"y": clean + a + b})
    apart = change.vector(0, {"y": clean + a}) + change.vector(0, {"y": clean + b})
    np.testing.assert_allclose(both, apart, atol=1e-4)


def test_outputs_of_different_scale_and_width_weigh_alike():
    clean = {"a": rows(0, 4, 3), "b": 1000 * rows(1, 4, 700)}
    change = OutputChange([clean])
    halved = {n: float((change.vector(0, {n: 0.5 * clean[n]}) ** 2).sum()) for n in clean}
    assert halved["a"] == pytest.approx(halved["b"], rel=0.3)
    assert sum(halved.values()) == pytest.approx(0.25, rel=0.3)


def test_missing_outputs_have_not_changed():
    clean = {"a": rows(0, 4, 3), "b": rows(1, 4, 5)}
    vector = OutputChange([clean]).vector(0, {"a": clean["a"] + 1})
    assert vector.shape == (4 * 3 + 4 * 5,)
    assert (vector[:12] != 0).all()
    assert (vector[12:] == 0).all()


def test_only_float_outputs_count():
    clean = {"label": np.arange(4), "y": rows(0, 4, 3)}
    change = OutputChange([clean])
    assert change.names == ("y",)
    assert (change.vector(0, {"label": np.zeros(4, int), "y": clean["y"]}) == 0).all()


def test_without_float_outputs_nothing_changes():
    assert OutputChange([{"label": np.arange(4)}]).vector(0, {"label": np.ones(4, int)}).sum() == 0


@pytest.mark.parametrize("fill", [0.0, 7.0, np.nan, -np.inf])
def test_constant_and_broken_outputs_give_finite_figures(fill):
    clean = np.full((2, 3), fill, np.float32)
    change = OutputChange([{"y": clean}])
    assert (change.vector(0, {"y": clean}) == 0).all()
    assert np.isfinite(change.vector(0, {"y": clean + 1})).all()
    assert np.isfinite(change.vector(0, {"y": np.zeros((2, 3), np.float32)})).all()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_an_output_that_breaks_is_a_large_change(broken):
    clean = rows(0, 2, 3)
    change = OutputChange([{"y": clean}])
    found = clean.copy()
    found[1, 2] = broken
    vector = change.vector(0, {"y": found})
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) > 1e4


def test_the_same_infinity_is_no_change():
    clean = np.array([[1, -np.inf, np.inf, np.nan]], np.float32)
    change = OutputChange([{"y": clean}])
    found = np.array([[2, -np.inf, np.inf, np.nan]], np.float32)
    vector = change.vector(0, {"y": found})
    assert vector[0] > 0
    assert (vector[1:] == 0).all()


def test_scalars_half_precision_and_empty_outputs():
    clean = {
        "loss": np.float32(2.0).reshape(()),
        "half": rows(0, 2, 3).astype(np.float16),
        "boxes": np.zeros((0, 4), np.float32),
    }
    vector = OutputChange([clean]).vector(0, {"loss": np.asarray(3.0, np.float32)})
    assert vector.shape == (1 + 6,)
    assert vector[0] > 0


def test_an_output_of_another_shape_counts_as_lost():
    """Detections: how many boxes there are depends on the data."""
    clean = {"boxes": rows(0, 5, 4)}
    change = OutputChange([clean])
    fewer = change.vector(0, {"boxes": clean["boxes"][:3]})
    gone = change.vector(0, {"boxes": np.zeros((5, 4), np.float32)})
    np.testing.assert_array_equal(fewer, gone)
