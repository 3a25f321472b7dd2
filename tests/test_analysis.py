"""The look at a model: sizes, traces, probes; models and data that cannot be used."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune import feeding
from onnxprune.analysis import analyse
from onnxprune.data.specs import input_specs
from onnxprune.data.synthetic import synthetic_samples
from onnxprune.errors import InputError, UsageError
from onnxprune.feeding import read_samples
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.progress import Silent
from tests import nets


class Listener(Silent):
    """Remembers what the stages say."""

    def __init__(self):
        self.stages, self.notes = [], []

    def stage(self, name):
        self.stages.append(name)

    def note(self, text):
        self.notes.append(text)


def test_dynamic_axes_are_seen_at_several_sizes_and_stated_at_one(tmp_path):
    found = nets.look(nets.residual(), tmp_path)
    assert found.shapes == {"x": (1, 3, 6, 6)}
    assert found.dims == {"N": 1}
    assert len({t.shapes["x"] for t in found.traces}) == 2
    assert all(t.shapes["x"][0] > 1 for t in found.traces), "a batch of one looks like a broadcast"
    assert len(found.probes) == 2
    assert all(len(probe["x"]) > 1 for probe in found.probes)
    assert found.costs.total.macs == 36 * 9 * (3 * 8 + 8 * 6 + 6 * 8) + 32


def test_fixed_sizes_are_traced_once_and_probed_twice(tmp_path):
    net = nets.Net()
    y = net.op("Gemm", net.op("Gemm", "x", net.weight(8, 6)), net.weight(6, 3))
    found = nets.look(net.model({"x": (1, 8)}, y), tmp_path)
    assert [t.shapes["x"] for t in found.traces] == [(1, 8)]
    assert len(found.probes) == 2
    assert not np.array_equal(found.probes[0]["x"], found.probes[1]["x"])
    assert found.dims == {}


def test_sizes_that_only_work_as_asked_do_no_harm(tmp_path):
    """The model declares any batch but runs on one sample only."""
    net = nets.Net()
    y = net.op("Gemm", net.op("Gemm", "x", net.weight(8, 6)), net.weight(6, 3))
    y = net.op("Reshape", y, net.const(np.array([3])))
    found = nets.look(net.model({"x": ("N", 8)}, y), tmp_path)
    assert [t.shapes["x"] for t in found.traces] == [(1, 8)]
    assert len(found.coupling.groups) == 1


def test_the_user_states_the_sizes(tmp_path):
    asked = nets.look(nets.residual(), tmp_path, dims={"N": 4})
    assert asked.shapes == {"x": (4, 3, 6, 6)}
    shaped = nets.look(nets.residual(), tmp_path, input_shapes={"x": (4, 3, 6, 6)})
    assert asked.costs.total == shaped.costs.total
    assert asked.costs.total.macs == 4 * nets.look(nets.residual(), tmp_path).costs.total.macs
    assert asked.stated_feed()["x"].shape == (4, 3, 6, 6)


def test_a_real_sample_is_stated_where_it_has_the_size():
    found = nets.digits("digits_resnet")
    feed = found.stated_feed()
    np.testing.assert_array_equal(feed["input"], found.samples.entries[0]["input"])
    assert not found.samples.synthetic


def test_the_same_seed_sees_the_same(tmp_path):
    first, again, other = (nets.look(nets.residual(), tmp_path, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.probes[0]["x"], again.probes[0]["x"])
    assert not np.array_equal(first.probes[0]["x"], other.probes[0]["x"])


def test_synthetic_samples_are_marked_and_bounded(tmp_path):
    assert nets.look(nets.residual(), tmp_path, samples=5).samples.synthetic
    assert len(nets.look(nets.residual(), tmp_path, samples=5).samples) == 5
    assert len(nets.look(nets.residual(), tmp_path, samples=500).samples) == 64


def test_stages_and_notes_are_told(tmp_path):
    onnx.save(nets.mlp(8, 6, 3), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((9, 8), np.float32), labels=np.arange(9))
    listener = Listener()
    analyse(tmp_path / "m.onnx", Options(data=tmp_path / "d.npz"), listener)
    assert listener.stages == ["load", "couple"]
    assert any("labels" in note for note in listener.notes)


def test_samples_come_from_a_function_of_the_users(tmp_path):
    onnx.save(nets.mlp(8, 6, 3), tmp_path / "m.onnx")
    (tmp_path / "l.py").write_text(
        "import numpy as np\n"
        "def feeds():\n"
        "    for i in range(7):\n"
        "        yield {'x': np.full((1, 8), i, np.float32)}\n"
    )
    model = load(tmp_path / "m.onnx")
    specs = input_specs(model.proto)
    options = Options(loader=f"{tmp_path / 'l.py'}:feeds", samples=4)
    samples, shapes, _ = read_samples(model, specs, options)
    assert len(samples) == 4
    assert not samples.synthetic
    assert shapes == {"x": (1, 8)}


def test_a_model_that_does_not_run_is_rejected(tmp_path):
    net = nets.Net()
    y = net.op("Reshape", "x", net.const(np.array([7, 7])))
    with pytest.raises(InputError, match=r"model\.onnx: onnxruntime cannot run this model") as e:
        nets.look(net.model({"x": ("N", 8)}, y), tmp_path)
    assert "made-up inputs of the shapes x [1, 8]" in str(e.value)
    assert str(e.value).endswith("give --data, or sizes by --dim or --input-shape")
    assert "\n" not in str(e.value)


def test_a_model_that_does_not_load_in_onnxruntime_is_rejected(tmp_path):
    net = nets.Net()
    with pytest.raises(InputError, match="onnxruntime cannot run this model"):
        nets.look(net.model({"x": ("N", 8)}, net.op("NoSuchOperator", "x")), tmp_path)


def test_unknown_names_are_the_users_mistake(tmp_path):
    with pytest.raises(UsageError, match="'M'"):
        nets.look(nets.residual(), tmp_path, dims={"M": 3})
    with pytest.raises(UsageError, match="'y'"):
        nets.look(nets.residual(), tmp_path, input_shapes={"y": (1, 3, 6, 6)})


def test_data_of_another_model_is_rejected(tmp_path):
    np.savez(tmp_path / "d.npz", z=np.ones((9, 8), np.float32))
    with pytest.raises(InputError, match="'x'"):
        nets.look(nets.mlp(8, 6, 3), tmp_path, data=tmp_path / "d.npz")


def test_external_data_is_seen(tmp_path):
    onnx.save(nets.mlp(8, 64, 3), tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    found = analyse(tmp_path / "m.onnx", Options(macs=0.5, samples=8), Silent())
    assert found.view.constant("w0").shape == (8, 64)
    assert [g.size for g in found.coupling.groups] == [64]


def _picky():
    """A network that looks up rows at + 5 of a table of five: random numbers lie outside."""
    net = nets.Net()
    rows = net.op("Gather", net.weight(5, 6), net.op("Add", "at", net.const(np.array([5]))))
    y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6)))
    y = net.op("Gemm", net.op("Add", y, rows), net.weight(6, 3))
    return net.model({"x": ("N", 8), "at": ("N",)}, y, types={"at": onnx.TensorProto.INT64})


def test_a_model_that_runs_on_real_samples_only_is_looked_at_with_them(tmp_path):
    onnx.save(_picky(), tmp_path / "m.onnx")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, at=-1 - np.arange(9) % 5)
    listener = Listener()
    found = analyse(tmp_path / "m.onnx", Options(data=tmp_path / "d.npz"), listener)
    assert len(found.coupling.groups) == 1
    assert all(set(probe["at"].tolist()) <= {-5, -4, -3, -2, -1} for probe in found.probes)
    assert not np.array_equal(found.probes[0]["x"], found.probes[1]["x"])
    assert any("on random inputs" in note for note in listener.notes)


def _detector():
    """A network that goes down by 32 and up again, and adds: only multiples of 32 fit."""
    net = nets.Net()
    y = net.op("Relu", net.op("Conv", "x", net.weight(6, 3, 1, 1)))
    down = net.op("AveragePool", y, kernel_shape=[32, 32], strides=[32, 32], ceil_mode=1)
    scales = net.const(np.array([1, 1, 32, 32], np.float32))
    y = net.op("Add", y, net.op("Resize", down, "", scales, mode="nearest"))
    y = net.op("Conv", y, net.weight(2, 6, 1, 1))
    return net.model({"x": ("N", 3, "height", "width")}, y)


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_sizes_that_nobody_gives_are_found(tmp_path, command):
    onnx.save(_detector(), tmp_path / "m.onnx")
    report = getattr(onnxprune, command)(tmp_path / "m.onnx")
    assert {report.dims[name] for name in ("height", "width")} == {64}


def test_sizes_that_are_given_are_kept(tmp_path):
    with pytest.raises(InputError, match=r"x \[1, 3, 17, 16\].*--dim"):
        nets.look(_detector(), tmp_path, dims={"height": 17})


def test_no_huge_inputs_are_tried(tmp_path, monkeypatch):
    def made(model, specs, shapes, **rest):
        assert np.prod(shapes["x"]) <= 2**20
        return synthetic_samples(model, specs, shapes, **rest)

    monkeypatch.setattr(feeding, "synthetic_samples", made)
    net = nets.Net()
    y = net.op("Reshape", "x", net.const(np.array([7, 7])))
    with pytest.raises(InputError, match=r"x \[1, 3, 16, 16, 16, 16\]"):
        nets.look(net.model({"x": ("N", 3, *"abcd")}, y), tmp_path)


def _logarithmic():
    """A network that takes the logarithm of a number that random inputs make negative."""
    net = nets.Net()
    bound = net.op("Log", net.op("ReduceMin", "x", keepdims=1))
    y = net.op("Relu", net.op("Gemm", "x", net.weight(8, 6)))
    return net.model({"x": ("N", 8)}, net.op("Add", net.op("Gemm", y, net.weight(6, 3)), bound))


def test_a_model_that_is_finite_on_real_samples_only_is_looked_at_with_them(tmp_path):
    onnx.save(_logarithmic(), tmp_path / "m.onnx")
    x = np.random.default_rng(0).uniform(1, 2, (9, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    listener = Listener()
    found = analyse(tmp_path / "m.onnx", Options(data=tmp_path / "d.npz"), listener)
    assert all((probe["x"] >= 1).all() for probe in found.probes)
    assert any("no finite value" in note for note in listener.notes)
    assert found.verifier.noisiest == 0.0  # it refuses feeds that give no finite output


@pytest.mark.parametrize("data", [False, True], ids=["without-data", "data-does-not-run"])
def test_a_model_that_runs_on_neither_is_rejected(tmp_path, data):
    onnx.save(_picky(), tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=np.ones((9, 8), np.float32), at=np.full(9, 7))
    options = Options(data=tmp_path / "d.npz" if data else None)
    with pytest.raises(InputError, match="onnxruntime cannot run this model"):
        analyse(tmp_path / "m.onnx", options, Silent())


def test_model_without_operators_is_rejected(tmp_path):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([], "g", [x], [x])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"model\.onnx holds no operators"):
        analyse(tmp_path / "model.onnx", Options(), Silent())
