"""Channels that go for free: planted in every form; and what only looks like them stays."""

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune.lossless.find import find_free, fold
from onnxprune.rewrite.prove import prove
from onnxprune.runtime.session import Session
from tests.nets import IMAGES, ROWS, Net, look

DEAD = (1, 4)  # channels that are planted


def conv(net, x, size, channels, bias, kernel=1, pads=0):
    """Convolve; the planted filters are zero and hold ``bias``."""
    weight = net.rng.standard_normal((channels, size, kernel, kernel)).astype(np.float32)
    biases = net.rng.standard_normal(channels).astype(np.float32) + 2  # the rest stays awake
    weight[DEAD, :], biases[DEAD,] = 0, bias
    return net.op("Conv", x, net.const(weight), net.const(biases), pads=[pads] * 4)


def reader(net, x, size, kernel=1, pads=0):
    """A layer that reads all channels, and a classifier behind it."""
    y = net.op("Conv", x, net.weight(5, size, kernel, kernel), net.weight(5), pads=[pads] * 4)
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.op("LeakyRelu", y)))
    return net.op("Gemm", flat, net.weight(5, 3), net.weight(3))


def zero_filters():
    net = Net(1)
    x = net.op("Relu", conv(net, "x", 3, 8, -0.5))
    return net.model(IMAGES, reader(net, x, 8, kernel=3, pads=1))


def constant_filters():
    net = Net(2)
    x = net.op("Relu", conv(net, "x", 3, 8, 0.5))
    return net.model(IMAGES, reader(net, x, 8))


def constant_before_valid_padding():
    net = Net(3)
    x = net.op("Sigmoid", conv(net, "x", 3, 8, -1.0))
    return net.model(IMAGES, reader(net, x, 8, kernel=3))


def norm_without_scale():
    net = Net(4)
    gamma, beta = np.ones(8, np.float32), np.full(8, 2, np.float32)
    gamma[DEAD,], beta[DEAD,] = 0, 0.25
    y = net.op("Conv", "x", net.weight(8, 3, 1, 1))
    ones = np.ones(8, np.float32)
    parts = [net.const(a) for a in (gamma, beta, 0 * ones, ones)]
    return net.model(
        IMAGES, reader(net, net.op("Relu", net.op("BatchNormalization", y, *parts)), 8)
    )


def unread_filters():
    net = Net(5)
    x = net.op("Relu", net.op("Conv", "x", net.weight(8, 3, 1, 1), net.weight(8)))
    weight = net.rng.standard_normal((5, 8, 3, 3)).astype(np.float32)
    weight[:, DEAD] = 0
    y = net.op("Conv", x, net.const(weight), net.weight(5), pads=[1] * 4)
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.model(IMAGES, net.op("Gemm", flat, net.weight(5, 3), net.weight(3)))


def flattened_constants():
    net = Net(6)
    x = net.op("Flatten", net.op("Tanh", conv(net, "x", 3, 8, 0.7)))
    return net.model(IMAGES, net.op("Gemm", x, net.weight(8 * 36, 3), net.weight(3)))


def pooled_constants():
    net = Net(7)
    x = net.op("GlobalAveragePool", net.op("Relu", conv(net, "x", 3, 8, 0.7)))
    logits = net.op("Gemm", net.op("Flatten", x), net.weight(3, 8), net.weight(3), transB=1)
    return net.model(IMAGES, logits)


def neurons():
    net = Net(8)
    weight = net.rng.standard_normal((12, 8)).astype(np.float32)
    bias = np.full(8, 0.3, np.float32)
    weight[:, DEAD] = 0
    x = net.op("Relu", net.op("Add", net.op("MatMul", "x", net.const(weight)), net.const(bias)))
    return net.model(ROWS, net.linear(x, 8, 4))


def chained():
    """A filter that only reads dead channels is dead as well."""
    net = Net(9)
    x = net.op("Relu", conv(net, "x", 3, 8, 0.0))
    weight = net.rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    bias = np.full(8, 1, np.float32)
    alive = [c for c in range(8) if c not in DEAD]
    weight[np.ix_(DEAD, alive)], bias[DEAD,] = 0, 0
    y = net.op("Relu", net.op("Conv", x, net.const(weight), net.const(bias), pads=[1] * 4))
    return net.model(IMAGES, reader(net, y, 8, kernel=3, pads=1))


def gated():
    """A channel that its gate closes for good."""
    net = Net(10)
    x = net.op("Conv", "x", net.weight(8, 3, 1, 1), net.weight(8))
    mask = np.ones((1, 8, 1, 1), np.float32)
    mask[:, DEAD] = 0
    return net.model(IMAGES, reader(net, net.op("Mul", x, net.const(mask)), 8, kernel=3, pads=1))


PROVEN = [
    zero_filters, constant_filters, constant_before_valid_padding, norm_without_scale,
    unread_filters, flattened_constants, pooled_constants, neurons, chained, gated,
]  # fmt: skip


def asleep():
    """Filters that no sample of unit size wakes, but a larger input could."""
    net = Net(11)
    weight = net.rng.standard_normal((8, 3, 1, 1)).astype(np.float32)
    bias = np.full(8, 2, np.float32)
    bias[DEAD,] = -100
    x = net.op("Relu", net.op("Conv", "x", net.const(weight), net.const(bias)))
    return net.model(IMAGES, reader(net, x, 8, kernel=3, pads=1))


def constant_inside_a_border():
    net = Net(12)
    x = net.op("Relu", conv(net, "x", 3, 8, 0.5))
    return net.model(IMAGES, reader(net, x, 8, kernel=3, pads=1))


def skipped():
    net = Net(13)
    x = net.op("Conv", "x", net.weight(8, 3, 1, 1), net.weight(8))
    total = net.op("Add", x, conv(net, x, 8, 8, 0.0))
    return net.model(IMAGES, reader(net, total, 8))


def normed():
    """Zero, but part of a mean and a variance."""
    net = Net(14)
    weight = net.rng.standard_normal((12, 8)).astype(np.float32)
    weight[:, DEAD] = 0
    x = net.op("MatMul", "x", net.const(weight))
    x = net.op("LayerNormalization", x, net.weight(8), net.weight(8))
    return net.model(ROWS, net.linear(x, 8, 4))


def constant_without_a_bias():
    net = Net(15)
    x = net.op("Sigmoid", net.op("MatMul", "x", net.const(_columns(net))))
    return net.model(ROWS, net.op("MatMul", x, net.weight(8, 4)))


def _columns(net):
    weight = net.rng.standard_normal((12, 8)).astype(np.float32)
    weight[:, DEAD] = 0
    return weight


def read_twice():
    """One reader has zero weights, the other has not."""
    net = Net(16)
    x = net.op("Relu", net.op("Conv", "x", net.weight(8, 3, 1, 1), net.weight(8)))
    weight = net.rng.standard_normal((5, 8, 1, 1)).astype(np.float32)
    weight[:, DEAD] = 0
    y = net.op("Conv", x, net.const(weight), net.weight(5))
    z = net.op("Conv", x, net.weight(5, 8, 1, 1), net.weight(5))
    flat = net.op("Flatten", net.op("GlobalAveragePool", net.op("Add", y, z)))
    return net.model(IMAGES, net.op("Gemm", flat, net.weight(5, 3), net.weight(3)))


ALIVE = [constant_inside_a_border, skipped, normed, constant_without_a_bias, read_twice]


def looked_at(model, folder, samples=48):
    """Analyse a model; with samples, beside data of unit size."""
    shape = [d.dim_value or samples for d in model.graph.input[0].type.tensor_type.shape.dim]
    if samples == 0:
        return look(model, folder)
    data = np.random.default_rng(5).standard_normal(shape).astype(np.float32).clip(-3, 3)
    np.savez(folder / "data.npz", x=data)
    return look(model, folder, data=folder / "data.npz", samples=samples)


def free_of(found):
    return find_free(found, found.coupling.groups, np.arange(len(found.samples)))


def changed_by(found, free):
    """Return how much outputs change on other, larger inputs when all that is free goes."""
    removed = [(g, free.channels[g.name]) for g in found.coupling.groups if g.name in free.channels]
    proven = prove(found, removed)
    assert not proven.guilty
    model = fold(found, proven, free.constants).model
    feed = {name: 5 * array for name, array in found.probes[0].items()}
    models = (found.view.model, model)
    before, after = (next(iter(Session(m).run(feed).values())) for m in models)
    return np.abs(after - before).max() / np.abs(before).max()


@pytest.mark.parametrize("build", PROVEN, ids=lambda build: build.__name__)
@pytest.mark.parametrize("samples", [0, 48])
def test_planted_channels_are_found_and_change_nothing(build, samples, tmp_path):
    found = looked_at(build(), tmp_path, samples)
    free = free_of(found)
    assert DEAD in free.channels.values()
    assert all(channels == DEAD for channels in free.channels.values())
    assert free.proven == free.channels
    assert free.saved.macs > 0
    assert changed_by(found, free) < 1e-5


@pytest.mark.parametrize("build", ALIVE, ids=lambda build: build.__name__)
@pytest.mark.parametrize("samples", [0, 48])
def test_what_an_exit_would_miss_stays(build, samples, tmp_path):
    assert free_of(looked_at(build(), tmp_path, samples)).channels == {}


def test_what_only_sleeps_needs_samples_to_say_so(tmp_path):
    assert free_of(looked_at(asleep(), tmp_path, 0)).channels == {}
    assert free_of(looked_at(asleep(), tmp_path, 31)).channels == {}
    free = free_of(looked_at(asleep(), tmp_path))
    assert list(free.channels.values()) == [DEAD]
    assert list(free.proven.values()) == [()]
    assert free.samples == 48


def test_a_group_that_is_dead_keeps_a_channel(tmp_path):
    net = Net(17)
    weight, bias = net.const(np.zeros((8, 3, 1, 1), np.float32)), net.const(-np.ones(8, np.float32))
    x = net.op("Relu", net.op("Conv", "x", weight, bias))
    free = free_of(looked_at(net.model(IMAGES, reader(net, x, 8)), tmp_path))
    assert len(free.channels["Conv_0"]) == 7


def test_as_many_go_of_each_block(tmp_path):
    net = Net(18)
    weight = net.rng.standard_normal((8, 3, 1, 1)).astype(np.float32)
    bias = np.full(8, 3, np.float32)
    weight[[0, 1, 5]], bias[[0, 1, 5]] = 0, 0
    x = net.op("Relu", net.op("Conv", "x", net.const(weight), net.const(bias)))
    y = net.conv(x, 8, 6, group=2)
    flat = net.op("Flatten", net.op("GlobalAveragePool", y))
    logits = net.op("Gemm", flat, net.weight(6, 3), net.weight(3))
    found = looked_at(net.model(IMAGES, logits), tmp_path)
    free = free_of(found)
    group = next(g for g in found.coupling.groups if g.name in free.channels)
    assert group.step == 2
    assert free.channels[group.name] == (0, 5)
    assert changed_by(found, free) < 1e-5


def test_units_of_a_recurrence_that_nothing_reads(tmp_path):
    net = Net(19)
    recur = net.rng.standard_normal((1, 32, 8)).astype(np.float32)
    recur[..., DEAD] = 0
    outputs = net.ops(2, "LSTM", "x", net.weight(1, 32, 12), net.const(recur), hidden_size=8)
    y = net.op("Squeeze", outputs[0], net.const(np.array([1])))
    weight = net.rng.standard_normal((8, 4)).astype(np.float32)
    weight[DEAD, :] = 0
    logits = net.op("Add", net.op("MatMul", y, net.const(weight)), net.weight(4))
    model = net.model({"x": (5, "N", 12)}, logits)
    free = free_of(looked_at(model, tmp_path, 0))
    assert list(free.channels.values()) == [DEAD]


def test_half_precision_folds_in_its_own_type(tmp_path):
    model = constant_filters()
    for tensor in model.graph.initializer:
        array = np.frombuffer(tensor.raw_data, np.float32).astype(np.float16)
        tensor.data_type, tensor.raw_data = TensorProto.FLOAT16, array.tobytes()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    found = look(model, tmp_path)
    free = free_of(found)
    assert list(free.channels.values()) == [DEAD]
    assert changed_by(found, free) < 3e-3
