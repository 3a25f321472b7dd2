"""The judge on small models: rows, runs, labels, the user's own function."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from onnxprune.analysis import analyse
from onnxprune.coupling.relations import Axis
from onnxprune.data.splits import split_samples
from onnxprune.errors import InputError, UsageError
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.quality.judge import Judge
from onnxprune.runtime.session import Session
from tests import nets

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 8)).astype(np.float32)


def linear(batch="N"):
    net = nets.Net()
    net.op("Gemm", "x", net.weight(8, 4))
    net.nodes[-1].output[0] = "logits"
    return net.model({"x": (batch, 8)}, "logits")


def other(model, name="", seed=5, scale=0.3):
    """The same model with noise on its weights."""
    model, rng = onnx.ModelProto.FromString(model.SerializeToString()), np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and name in tensor.name:
            array = numpy_helper.to_array(tensor)
            noise = (scale * rng.standard_normal(array.shape)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array + noise, tensor.name))
    return model


def judge_of(model, folder, arrays=None, **choices):
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "data.npz", **(arrays or {"x": X}))
    options = Options(data=folder / "data.npz", **choices)
    found = analyse(folder / "model.onnx", options, Silent())
    return Judge(found, split_samples(len(found.samples), 0), options)


def outputs(model, x=X):
    return Session(model).run({"x": x})["logits"]


def test_one_loss_per_sample_in_order(tmp_path):
    model = linear()
    found = judge_of(model, tmp_path).losses(other(model), [3, 1, 39])
    differ = outputs(model).argmax(1) != outputs(other(model)).argmax(1)
    assert found.values.tolist() == differ[[3, 1, 39]].tolist()
    assert (found.kind, found.samples) == ("binary", 3)
    assert found.drop == differ[[3, 1, 39]].mean()


def test_more_samples_than_one_batch(tmp_path):
    model = linear()
    found = judge_of(model, tmp_path).losses(other(model), range(40))
    differ = outputs(model).argmax(1) != outputs(other(model)).argmax(1)
    assert found.values.tolist() == differ.tolist()
    assert 0 < found.drop < 1
    assert found.by_class.shape == (40, 4)


def test_relative_l2_is_relative_to_the_selection_samples(tmp_path):
    model = linear()
    judge = judge_of(model, tmp_path, metric=("relative_l2",))
    select = split_samples(40, 0).select
    scale = np.sqrt((outputs(model)[select] ** 2).mean())
    change = np.sqrt(((outputs(model) - outputs(other(model))) ** 2).mean(axis=1))
    found = judge.losses(other(model), range(40))
    assert found.values == pytest.approx(np.minimum(change / scale, 1), rel=1e-5)
    assert found.kind == "bounded"


def test_several_outputs_are_weighted(tmp_path):
    net = nets.Net()
    names = ["logits", "z"]
    for name in names:
        net.op("Gemm", "x", net.weight(8, 4))
        net.nodes[-1].output[0] = name
    model = net.model({"x": ("N", 8)}, *names)
    judge = judge_of(model, tmp_path, metric=("z=relative_l2*3",))
    assert judge.metric == "0.25 agreement(logits) + 0.75 relative_l2(z)"
    assert judge.default == pytest.approx(0.25 * 0.01 + 0.75 * 0.1)
    worse = other(model)
    parts = [
        judge_of(model, tmp_path, metric=m).losses(worse, range(40)).values
        for m in (("z=kl*0",), ("logits=kl*0",))
    ]
    found = judge.losses(worse, range(40))
    assert found.values == pytest.approx(0.25 * parts[0] + 0.75 * parts[1])
    assert (found.kind, found.by_class) == ("bounded", None)


def test_a_fixed_batch_counts_no_sample_twice(tmp_path):
    model = linear(batch=16)
    judge = judge_of(model, tmp_path)
    assert judge.losses_count(range(40)) == 32
    assert judge.losses_count([1, 5, 9]) == 3
    found = judge.losses(other(model), [1, 5, 9])
    differ = outputs(linear()).argmax(1) != outputs(other(linear())).argmax(1)
    assert found.values.tolist() == differ[[1, 5, 9]].tolist()


def test_an_output_that_does_not_go_by_samples_counts_by_run(tmp_path):
    net = nets.Net()
    y = net.op("Gemm", "x", net.weight(8, 4))
    net.op("Transpose", y, perm=[1, 0])
    net.nodes[-1].output[0] = "z"
    model = net.model({"x": ("N", 8)}, "z")
    judge = judge_of(model, tmp_path, metric=("relative_l2",))
    found = judge.losses(other(model), range(40))
    assert found.samples == 40
    assert len(set(found.values.tolist())) > 30


def test_a_sample_that_the_model_does_not_run_on_is_told(tmp_path):
    net = nets.Net()
    net.op("Gemm", net.op("Gather", net.weight(4, 8), "x"), net.weight(8, 4))
    net.nodes[-1].output[0] = "y"
    model = net.model({"x": ("N",)}, "y", types={"x": TensorProto.INT64})
    numbers = np.where(np.arange(40) < 4, 1, 9)
    with pytest.raises(InputError, match="model on every sample: "):
        judge_of(model, tmp_path, {"x": numbers})


@pytest.mark.filterwarnings("error")
def test_an_output_that_holds_nothing_loses_nothing(tmp_path):
    net = nets.Net()
    y = net.op("Gemm", "x", net.weight(8, 4))
    net.op("Slice", y, *map(net.const, (np.array([n]) for n in (4, 9, 1))))
    net.nodes[-1].output[0] = "rest"
    model = net.model({"x": ("N", 8)}, "rest")
    assert judge_of(model, tmp_path).losses(other(model), [3, 1]).values.tolist() == [0.0, 0.0]


def test_an_output_of_another_shape_is_lost(tmp_path):
    model = linear()
    judge = judge_of(model, tmp_path)
    net = nets.Net()
    net.op("Gemm", "x", net.weight(8, 3))
    net.nodes[-1].output[0] = "logits"
    found = judge.losses(net.model({"x": ("N", 8)}, "logits"), range(10))
    assert found.values.tolist() == [1.0] * 10


class TestLabels:
    def labels(self):
        return np.random.default_rng(4).integers(0, 4, 40)

    def judged(self, folder, **choices):
        model = linear()
        arrays = {"x": X, "truth": self.labels()}
        judge = judge_of(model, folder, arrays, **choices)
        return model, judge, judge.losses(other(model), [7, 2, 30, 31])

    def wanted(self, model):
        right = outputs(model).argmax(1) == self.labels()
        now = outputs(other(model)).argmax(1) == self.labels()
        return (right.astype(float) - now)[[7, 2, 30, 31]]

    def test_from_a_key_of_the_data(self, tmp_path):
        model, judge, found = self.judged(tmp_path, labels="truth")
        assert found.values.tolist() == self.wanted(model).tolist()
        assert (judge.metric, found.kind) == ("accuracy", "discordant")

    @pytest.mark.parametrize("suffix", ["npy", "npz", "txt"])
    def test_from_a_file(self, suffix, tmp_path):
        path = tmp_path / f"truth.{suffix}"
        if suffix == "npy":
            np.save(path, self.labels()[:, None])
        elif suffix == "npz":
            np.savez(path, labels=self.labels())
        else:
            np.savetxt(path, self.labels(), fmt="%d")
        model, _, found = self.judged(tmp_path, labels=str(path))
        assert found.values.tolist() == self.wanted(model).tolist()

    def test_count_classes_that_a_cut_left_no_score_of(self, tmp_path):
        """What a narrowed output says is its class's number in the original."""
        model, keep = linear(), np.array([True, False, True, True])
        cut = onnx.ModelProto.FromString(model.SerializeToString())
        for tensor in cut.graph.initializer:
            array = numpy_helper.to_array(tensor)[:, keep]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
        del cut.graph.output[0].type.tensor_type.shape.dim[:]
        truth = outputs(model).argmax(1)
        judge = judge_of(model, tmp_path, {"x": X, "truth": truth}, labels="truth")
        found = judge.losses(cut, range(40), {Axis("logits", 1): keep})
        assert 0 < (truth == 1).sum() < 40
        assert found.values.tolist() == (truth == 1).astype(float).tolist()
        assert judge_of(model, tmp_path).losses(cut, range(40), {Axis("logits", 1): keep}).drop == 0

    def test_follow_the_samples_that_were_taken(self, tmp_path):
        model = linear()
        judge = judge_of(model, tmp_path, {"x": X, "t": self.labels()}, labels="t", samples=10)
        chosen = np.sort(np.random.default_rng(0).choice(40, 10, replace=False))
        assert judge.labels.tolist() == self.labels()[chosen].tolist()

    @pytest.mark.parametrize(
        ("labels", "error", "message"),
        [
            (np.zeros(39, int), InputError, "39 labels, the data 40"),
            (np.zeros(41, int), InputError, "41 labels, the data 40"),
            (np.full(40, 0.5), InputError, "class numbers"),
            (np.array(["cat"] * 40), InputError, "class numbers"),
            (np.full(40, np.nan), InputError, "class numbers"),
            (np.zeros((40, 2), int), InputError, "shape"),
            (np.full(40, 4), InputError, "0 to 3"),
        ],
    )
    def test_what_is_no_label(self, labels, error, message, tmp_path):
        with pytest.raises(error, match=message):
            judge_of(linear(), tmp_path, {"x": X, "t": labels}, labels="t")

    def test_neither_file_nor_key(self, tmp_path):
        with pytest.raises(UsageError, match="no key 'truth'; it has 'x'"):
            judge_of(linear(), tmp_path, labels="truth")

    def test_need_the_data_that_they_label(self, tmp_path):
        onnx.save(linear(), tmp_path / "model.onnx")
        options = Options(labels="truth", samples=8)
        found = analyse(tmp_path / "model.onnx", options, Silent())
        with pytest.raises(UsageError, match="--data"):
            Judge(found, split_samples(8, 0), options)


class TestUsersFunction:
    def judged(self, folder, text, **choices):
        (folder / "mine.py").write_text(f"import numpy as np\n{text}\n")
        judge = judge_of(linear(), folder, metric=(f"{folder}/mine.py:loss",), **choices)
        assert judge.default is None
        return judge.losses(other(linear()), range(40))

    def test_per_sample(self, tmp_path):
        text = "def loss(a, b):\n  return np.abs(a['logits'] - b['logits']).max(axis=1) > 1"
        found = self.judged(tmp_path, text)
        change = np.abs(outputs(linear()) - outputs(other(linear()))).max(axis=1)
        assert found.values.tolist() == (change > 1).tolist()
        assert found.kind == "bounded"

    def test_of_the_whole(self, tmp_path):
        found = self.judged(tmp_path, "def loss(a, b):\n  return 0.25")
        assert (found.drop, found.values, found.kind, found.samples) == (0.25, None, None, 40)

    def test_losses_without_bounds_have_no_kind(self, tmp_path):
        assert self.judged(tmp_path, "def loss(a, b):\n  return np.full(40, 3.0)").kind is None

    def test_with_labels(self, tmp_path):
        text = "def loss(a, b, labels):\n  return labels == 1"
        found = self.judged(tmp_path, text, arrays={"x": X, "t": np.arange(40)}, labels="t")
        assert found.values.tolist() == [0.0, 1.0] + [0.0] * 38

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ("return np.zeros(7)", r"shape \(7,\).*40 losses"),
            ("return float('nan')", "not finite"),
            ("return a['nothing']", r"failed \(line 3\): KeyError"),
        ],
    )
    def test_that_fails_is_told_in_one_line(self, body, message, tmp_path):
        with pytest.raises(InputError, match=message):
            self.judged(tmp_path, f"def loss(a, b):\n  {body}")
