"""Without data: BatchNormalizations retuned to made-up inputs, and their own statistics back."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnxprune import pipeline
from onnxprune.analysis import analyse
from onnxprune.model.view import build_view
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.recovery.retune import lifelike, restored, retuned
from onnxprune.runtime.session import Session, with_outputs
from tests import nets
from tests.lossless.test_free import DEAD, conv, reader

MODEL = nets.MODELS / "digits_resnet_bn.onnx"


@pytest.fixture(scope="module")
def found():
    return analyse(MODEL, Options(), Silent())


def norms(model):
    return [node for node in model.graph.node if node.op_type == "BatchNormalization"]


def test_every_normalization_meets_what_it_expects(found):
    made = lifelike(found).view.model
    feed = next(found.samples.feeds(range(len(found.samples)), len(found.samples)))
    names = [node.input[0] for node in norms(made)]
    values = Session(with_outputs(made, names)).run(feed, names)
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in made.graph.initializer}
    assert len(names) > 5
    for node in norms(made):
        seen, mean, variance = (
            values[node.input[0]], constants[node.input[3]], constants[node.input[4]]
        )  # fmt: skip
        awake = seen.var(axis=(0, 2, 3)) > 1e-4
        assert np.allclose(seen.mean(axis=(0, 2, 3))[awake], mean[awake], atol=1e-3)
        assert np.allclose(seen.var(axis=(0, 2, 3))[awake], variance[awake], rtol=1e-2)


def test_the_original_comes_back_to_the_byte(found):
    view = lifelike(found).view
    assert view.model.SerializeToString() != found.view.model.SerializeToString()
    back = restored(view.model, view, found.view, {})
    assert back.SerializeToString() == found.view.model.SerializeToString()


def test_real_inputs_and_models_without_normalizations_are_left_alone(found):
    real = replace(found, samples=replace(found.samples, synthetic=False))
    assert lifelike(real) is real
    plain = analyse(nets.MODELS / "digits_resnet.onnx", Options(), Silent())
    assert lifelike(plain) is plain


def test_a_sleeping_channel_keeps_what_it_holds():
    net = nets.Net(3)
    y = conv(net, "x", 3, 8, 0.5)
    parts = [net.const(np.full(8, v, np.float32)) for v in (1, 0.5, 0.2, 2)]
    x = net.op("Relu", net.op("BatchNormalization", y, *parts))
    view = build_view(net.model(nets.IMAGES, reader(net, x, 8)), MODEL)
    feed = {"x": np.random.default_rng(0).standard_normal((20, 3, 6, 6)).astype(np.float32)}
    made = build_view(retuned(view, [feed]), MODEL)
    mean, variance = (made.constant(p) for p in parts[2:])
    assert np.allclose(mean[list(DEAD)], 0.2)
    assert np.allclose(variance[list(DEAD)], 2)
    assert not np.isclose(np.delete(mean, DEAD), 0.2).any()


def test_shared_statistics_are_left_alone():
    net = nets.Net(3)
    one = net.const(np.ones(8, np.float32))
    y = net.op("BatchNormalization", net.conv("x", 3, 8), one, one, one, one)
    view = build_view(net.model(nets.IMAGES, reader(net, y, 8)), MODEL)
    assert retuned(view, []) is None


def test_without_data_most_of_the_accuracy_stays(tmp_path, untimed):
    target, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    pipeline.run(MODEL, target, Options(macs=0.6), save_plan=plan)
    held = np.load(nets.MODELS / "digits_images_heldout.npz")
    scores = next(iter(Session(target).run({"input": held["input"]}).values()))
    assert (scores.argmax(axis=-1) == held["labels"]).mean() > 0.9  # 0.6 as it stands
    assert pipeline.verify(MODEL, target, plan, Options()).ok
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(MODEL).graph.initializer}
    for tensor in onnx.load(target).graph.initializer:
        if "running" in tensor.name:
            assert np.isin(onnx.numpy_helper.to_array(tensor), stored[tensor.name]).all()
