"""The drop, against formulas of its own; and the guess which output holds class scores."""

import numpy as np
import pytest
from onnx import TensorProto
from scipy.stats import beta

from onnxprune.selection.drop import class_scores, measure_drop
from tests import nets


class Fake:
    """A session that answers with what it was given, feed by feed."""

    def __init__(self, *answers):
        self.answers = iter(answers)

    def run(self, feed):
        assert feed == {}
        return next(self.answers)


def drop_of(before, after, scores=None, seed=0):
    """Compare lists of outputs, one mapping per feed."""
    return measure_drop(Fake(*before), Fake(*after), [{}] * len(before), scores, seed=seed)


def votes(classes, count=4):
    return np.eye(count, dtype=np.float32)[classes]


def clopper_pearson(hits, n):
    low = beta.ppf(0.025, hits, n - hits + 1) if hits else 0.0
    high = beta.ppf(0.975, hits + 1, n - hits) if hits < n else 1.0
    return low, high


class TestDisagreement:
    @pytest.mark.parametrize("hits", [0, 1, 7, 40])
    def test_value_and_exact_interval(self, hits):
        old = np.arange(40) % 4
        new = old.copy()
        new[:hits] = (new[:hits] + 1) % 4
        before = [{"y": votes(old[:30])}, {"y": votes(old[30:])}]
        after = [{"y": votes(new[:30])}, {"y": votes(new[30:])}]
        drop = drop_of(before, after, "y")
        assert drop.metric == "disagreement"
        assert drop.value == hits / 40
        assert drop.samples == 40
        assert drop.interval == pytest.approx(clopper_pearson(hits, 40), abs=1e-9)
        assert drop.certified is None

    def test_worst_class_is_that_of_the_original(self):
        """Class 2 loses 4 of 5; class 3 loses all but has too few samples to say so."""
        old = np.array([0] * 20 + [1] * 10 + [2] * 5 + [3] * 4)
        new = old.copy()
        new[0], new[30:34], new[35:] = 1, 0, 0
        drop = drop_of([{"y": votes(old)}], [{"y": votes(new)}], "y")
        assert drop.value == 9 / 39
        assert drop.worst_class == 0.8

    def test_no_class_with_enough_samples(self):
        drop = drop_of([{"y": votes([0, 1, 2])}], [{"y": votes([1, 1, 2])}], "y")
        assert drop.worst_class is None

    def test_scale_does_not_matter_only_the_top(self):
        old = votes([0, 1, 2, 3])
        assert drop_of([{"y": old}], [{"y": 0.1 * old + 5}], "y").value == 0.0

    def test_scores_that_are_no_numbers_agree_with_nothing(self):
        old, new = votes([0, 1, 2, 3]), votes([0, 1, 2, 3])
        new[0, 0] = np.nan
        assert drop_of([{"y": old}], [{"y": new}], "y").value == 0.25


class TestRelative:
    def test_value_is_norm_of_change_over_norm(self):
        rng = np.random.default_rng(0)
        a, b = rng.standard_normal((2, 20, 3, 5)).astype(np.float32)
        drop = drop_of([{"y": a[:12]}, {"y": a[12:]}], [{"y": b[:12]}, {"y": b[12:]}])
        assert drop.metric == "relative_l2"
        assert drop.value == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
        assert drop.samples == 20
        low, high = drop.interval
        assert low < drop.value < high
        assert high - low < 0.5 * drop.value
        assert drop.worst_class is None

    def test_one_sample_a_feed(self):
        rng = np.random.default_rng(1)
        a, b = rng.standard_normal((2, 9, 1, 4)) * np.arange(9)[:, None, None]
        drop = drop_of([{"y": v} for v in a], [{"y": v} for v in b])
        assert drop.samples == 9
        assert drop.value == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)

    def test_masked_infinities_do_not_count(self):
        a = np.array([[1, -np.inf, np.nan], [2, -np.inf, 1]], np.float32)
        b = np.array([[2, -np.inf, np.nan], [2, -np.inf, 1]], np.float32)
        assert drop_of([{"y": a}], [{"y": b}]).value == pytest.approx(np.sqrt(1 / 6))

    @pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
    def test_an_output_that_breaks_is_a_huge_drop(self, broken):
        a = np.ones((4, 3), np.float32)
        b = a.copy()
        b[2, 1] = broken
        drop = drop_of([{"y": a}], [{"y": b}])
        assert 1e4 < drop.value < np.inf
        assert np.isfinite(drop.interval).all()

    def test_an_output_of_another_shape_is_lost(self):
        a, b = np.ones((4, 3), np.float32), np.ones((2, 3), np.float32)
        assert drop_of([{"y": a}], [{"y": b}]).value == pytest.approx(1.0)

    def test_equal_models(self):
        a = np.ones((5, 2), np.float32)
        drop = drop_of([{"y": a}], [{"y": a}])
        assert (drop.value, drop.interval) == (0.0, (0.0, 0.0))

    def test_outputs_of_any_scale_count_alike(self):
        """One of two outputs is lost whole: sqrt(1/2), whichever it is."""
        rng = np.random.default_rng(2)
        a = {"u": rng.standard_normal((8, 3)), "v": 1e4 * rng.standard_normal((8, 100))}
        a = {n: v.astype(np.float32) for n, v in a.items()}
        for lost in a:
            b = {**a, lost: np.zeros_like(a[lost])}
            assert drop_of([a], [b]).value == pytest.approx(np.sqrt(0.5), rel=1e-3)

    def test_integers_are_left_out_and_scalars_counted(self):
        a = {"n": np.arange(4), "loss": np.float32(2.0).reshape(())}
        b = {"n": np.zeros(4, int), "loss": np.float32(1.0).reshape(())}
        drop = drop_of([a], [b])
        assert drop.value == pytest.approx(0.5)
        assert drop.samples == 1

    def test_the_interval_follows_the_seed_only(self):
        rng = np.random.default_rng(3)
        a, b = rng.standard_normal((2, 20, 4))
        first, again, other = (drop_of([{"y": a}], [{"y": b}], seed=s).interval for s in (0, 0, 1))
        assert first == again
        assert first != other

    def test_no_float_output_at_all(self):
        assert drop_of([{"n": np.arange(4)}], [{"n": np.zeros(4, int)}]).value == 0.0

    def test_an_output_of_zeros(self):
        zero = np.zeros((4, 2), np.float32)
        assert drop_of([{"y": zero}], [{"y": zero}]).value == 0.0
        assert drop_of([{"y": zero}], [{"y": zero + 1}]).value > 1.0


class TestClassScores:
    def guess(self, folder, name, shape=(2, 10), last="Identity"):
        net = nets.Net()
        y = net.op("Gemm", "x", net.weight(8, int(np.prod(shape[1:]))))
        target = net.const(np.array([-1 if i == 0 else n for i, n in enumerate(shape)]))
        y = net.op("Reshape", y, target)
        net.op(last, y)
        net.nodes[-1].output[0] = name
        found = nets.look(net.model({"x": (2, 8)}, name), folder)
        return class_scores(found.view, found.traces[0])

    @pytest.mark.parametrize(
        "name",
        [
            "logits", "output", "output_0", "scores", "class_probs", "predictions", "dense_2",
            "1459", "y", "Identity:0", "Identity_1:0", "StatefulPartitionedCall:0", "model/Softmax",
        ],
    )  # fmt: skip
    def test_names_that_say_so(self, name, tmp_path):
        assert self.guess(tmp_path, name) == name

    @pytest.mark.parametrize(
        "name",
        ["embedding", "last_hidden_state", "pooler_output", "image_features", "boxes", "mask", "z"],
    )
    def test_names_that_do_not(self, name, tmp_path):
        assert self.guess(tmp_path, name) is None

    @pytest.mark.parametrize("last", ["Softmax", "LogSoftmax"])
    def test_softmax_needs_no_name(self, last, tmp_path):
        assert self.guess(tmp_path, "z", last=last) == "z"

    @pytest.mark.parametrize("shape", [(2, 5, 10), (2, 1), (2, 3, 4, 4)])
    def test_other_ranks_and_single_scores_are_no_classes(self, shape, tmp_path):
        assert self.guess(tmp_path, "logits", shape) is None

    def test_scores_before_argmax(self, tmp_path):
        net = nets.Net()
        scores = net.op("Softmax", net.op("Gemm", "x", net.weight(8, 4)))
        label = net.op("ArgMax", scores, axis=1, keepdims=0)
        types = {label: TensorProto.INT64}
        found = nets.look(net.model({"x": ("N", 8)}, label, types=types), tmp_path)
        assert class_scores(found.view, found.traces[0]) == scores

    def test_the_projects_models_have_classes(self):
        for name in nets.DATA:
            found = nets.digits(name)
            guess = class_scores(found.view, found.traces[0])
            assert guess is not None, name
            assert found.traces[0].shapes[guess][1] == 10
