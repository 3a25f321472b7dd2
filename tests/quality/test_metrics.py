"""Every metric against a formula of its own; 0 is nothing lost, 1 everything."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

from onnxprune.quality.metrics import METRICS, Measure, default_limit

RNG = np.random.default_rng(0)


def losses(metric, before, after, labels=None, **choices):
    measure = Measure("y", metric, **choices)
    return METRICS[metric].loss(measure, np.asarray(before), np.asarray(after), labels)


def by_class(metric, before, after, labels=None, **choices):
    measure = Measure("y", metric, **choices)
    return METRICS[metric].by_class(measure, np.asarray(before), np.asarray(after), labels)


def votes(classes, count=4):
    return np.eye(count, dtype=np.float32)[np.asarray(classes)]


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_equal_outputs_lose_nothing(metric):
    x = RNG.standard_normal((5, 7)).astype(np.float32)
    assert losses(metric, x, x, np.arange(5)).tolist() == [0.0] * 5 or metric == "mean_iou"


@pytest.mark.parametrize("metric", ["agreement", "kl", "relative_l2", "cosine"])
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_sample_that_breaks_is_lost_whole_and_no_other(metric, broken):
    x = votes([0, 1, 2, 3]) + 1
    y = x.copy()
    y[2] = broken
    found = losses(metric, x, y)
    assert found[2] == pytest.approx(1.0)
    assert found[[0, 1, 3]].tolist() == [0.0] * 3


def test_agreement_counts_the_top_class_only():
    old, new = votes([0, 1, 2]), votes([0, 1, 3])
    assert losses("agreement", old, 0.1 * new + 5).tolist() == [0, 0, 1]
    table = by_class("agreement", old, new)
    assert table.shape == (3, 4)
    assert table[2, 2] == 1.0
    assert np.isnan(table).sum() == 9


def test_agreement_of_many_positions_is_a_share():
    old, new = votes([[0, 1, 2, 3]]), votes([[0, 1, 1, 1]])
    assert losses("agreement", old, new).tolist() == [0.5]
    assert np.isnan(by_class("agreement", old, new)).all()


def test_accuracy_counts_both_ways():
    labels = np.array([0, 1, 2, 3])
    old, new = votes([0, 1, 0, 0]), votes([0, 2, 2, 0])
    assert losses("accuracy", old, new, labels).tolist() == [0, 1, -1, 0]
    assert by_class("accuracy", old, new, labels)[1, 1] == 1.0


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_kl_from_the_original(given):
    a, b = RNG.standard_normal((2, 6, 5)) * 0.7
    p, q = softmax(a, -1), softmax(b, -1)
    wanted = np.minimum(rel_entr(p, q).sum(-1), 1.0)
    old, new = (a, b) if given == "logits" else (p, q)
    assert losses("kl", old, new) == pytest.approx(wanted, rel=1e-5)
    assert wanted.min() > 0


def test_kl_of_masked_classes():
    a = np.array([[1.0, -np.inf, 0.0]])
    assert losses("kl", a, a).tolist() == [0.0]
    assert losses("kl", np.zeros((1, 3)), np.array([[0.0, 0.0, -np.inf]])).tolist() == [1.0]


def test_relative_l2_is_the_change_over_the_typical_size():
    a, b = RNG.standard_normal((2, 20, 3, 5))
    scale = float(np.sqrt((a**2).mean()))
    found = losses("relative_l2", a, a + 0.1 * b, scale=scale)
    wanted = 0.1 * np.linalg.norm(b.reshape(20, -1), axis=1) / np.linalg.norm(a) * np.sqrt(20)
    assert found == pytest.approx(wanted)


def test_relative_l2_leaves_masked_infinities_out():
    a = np.array([[1, -np.inf, np.nan]])
    assert losses("relative_l2", a, np.array([[1.3, -np.inf, np.nan]])) == pytest.approx(
        [0.3 / np.sqrt(3)]
    )


def test_cosine_is_blind_to_size_and_sees_direction():
    a = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    b = np.array([[9.0, 0.0], [1.0, 1.0], [-1.0, 0.0], [0.0, 1.0]])
    assert losses("cosine", a, b) == pytest.approx([0, 1 - np.sqrt(0.5), 1, 1])


def test_mean_iou_of_dense_classes():
    """Two classes of two pixels each; one pixel goes over: IoU 1/2 and 2/3."""
    old = votes([[0, 0, 1, 1]], 3).transpose(0, 2, 1)[..., None]
    new = votes([[0, 1, 1, 1]], 3).transpose(0, 2, 1)[..., None]
    found = losses("mean_iou", old, new, axis=-3)
    assert found == pytest.approx([1 - (1 / 2 + 2 / 3) / 2])
    assert by_class("mean_iou", old, new, axis=-3)[0, :2] == pytest.approx([1 / 2, 1 / 3])


def test_mean_iou_of_a_binary_mask():
    old = np.array([0.9, 0.8, 0.1, 0.2]).reshape(1, 1, 2, 2)
    new = np.array([0.9, 0.4, 0.1, 0.2]).reshape(1, 1, 2, 2)
    assert losses("mean_iou", old, new, axis=-3) == pytest.approx([1 - (1 / 2 + 2 / 3) / 2])
    assert losses("mean_iou", old, new, axis=-3, threshold=0.85).tolist() == [0.0]


def test_mean_iou_against_true_masks_may_gain():
    true = np.array([[[0, 1]]])
    good, bad = votes([[0, 1]], 2), votes([[1, 1]], 2)
    old, new = (m.transpose(0, 2, 1)[:, :, None, :] for m in (bad, good))
    assert losses("mean_iou", old, new, true, axis=-3) == pytest.approx([-0.75])


def test_the_default_limit_of_several_outputs_is_their_weighted_mean():
    both = [Measure("a", "agreement", 0.25), Measure("b", "relative_l2", 0.75)]
    assert default_limit(both) == pytest.approx(0.25 * 0.01 + 0.75 * 0.1)


def test_pixels_without_a_label_count_for_nothing():
    scores = votes([[0, 1, 1]], 2).transpose(0, 2, 1)[:, :, None, :]
    wrong = votes([[0, 1, 0]], 2).transpose(0, 2, 1)[:, :, None, :]
    true = np.array([[[0, 1, 255]]])
    assert losses("mean_iou", scores, wrong, true, axis=-3).tolist() == [0.0]
    assert losses("mean_iou", scores, wrong, np.array([[[0, 1, 1]]]), axis=-3)[0] > 0
