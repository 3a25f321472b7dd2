"""Networks in other types: as much of them can be cut, cuts are proven, files run as they are."""

from functools import cache

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxprune.analysis import Analysis, analyse
from onnxprune.inspection import inspect_groups
from onnxprune.model.upcast import upcast
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.rewrite.native import NativeCheck
from onnxprune.rewrite.prove import prove
from onnxprune.runtime.session import Session
from tests import nets
from tests.variants import DATA, MAKERS, make, source

_BLOCKS = {"4-bits": 32, "8-bits-symmetric": 16}  # inputs that go as a whole: a byte of zeros
_SOME = ("fp16", "qdq-per-channel", "qoperator", "dynamic", "4-bits")  # of the slow networks
_PAIRS = [
    (name, variant) for name in DATA for variant in (_SOME if name in ("mobile", "vit") else MAKERS)
]


@cache
def _float(name: str) -> tuple[Analysis, float, float, int]:
    return _looked_at(source(name))


def _looked_at(path):
    found = analyse(path, Options(), Silent())
    seen = inspect_groups(found, found.coupling.groups, verify=False, progress=Silent())
    return found, seen.coverage.params, seen.coverage.macs, seen.params


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("types")


@pytest.mark.parametrize(("name", "variant"), _PAIRS)
def test_network_in_other_types_is_cut_to_half(name, variant, folder):
    path = make(name, variant, folder)
    found, params, macs, count = _looked_at(path)
    _, whole_params, whole_macs, whole_count = _float(name)
    assert (params, macs, count) == (whole_params, whole_macs, whole_count)
    proven = prove(found, [(g, range(0, g.size, 2)) for g in found.coupling.groups])
    assert proven.guilty == {}
    assert proven.error <= 1e-4
    before, after = (Session(m).run(found.probes[0]) for m in (found.view.model, proven.model))
    for key, array in before.items():
        assert after[key].shape == array.shape
        assert np.isfinite(after[key].astype(np.float64)).all()
    kinds = {t.data_type for t in found.view.model.graph.initializer} | {TensorProto.INT64}
    assert {t.data_type for t in proven.model.graph.initializer} <= kinds
    assert found.costs.total.bytes > 0


@pytest.mark.parametrize("variant", ["fp16", "qdq", "qoperator", "dynamic"])
def test_groups_are_those_of_the_float_network(variant, folder):
    found, *_ = _looked_at(make("resnet", variant, folder))
    wanted = sorted(g.size for g in _float("resnet")[0].coupling.groups)
    assert sorted(g.size for g in found.coupling.groups) == wanted


@pytest.mark.parametrize("variant", _BLOCKS)
def test_blocks_go_whole(variant, folder):
    found, *_ = _looked_at(make("mlp", variant, folder))
    node = next(n for n in found.view.nodes if n.op_type == "MatMulNBits" and "1" in n.name)
    member = [m for g in found.coupling.groups for m in g.members if m.axis.value == node.inputs[0]]
    assert [m.positions.shape[1] for m in member] == [_BLOCKS[variant]]
    assert (np.diff(member[0].positions, axis=1) == 1).all()


def test_native_file_that_rounds_far_worse_is_refused(folder):
    found, *_ = _looked_at(make("mlp", "qdq", folder))
    check = NativeCheck(found.view, found.probes)
    assert check.reason(found.view.model) == ""
    worse = onnx.ModelProto()
    worse.CopyFrom(found.view.model)
    scales = {n.input[1] for n in worse.graph.node if n.op_type == "QuantizeLinear"}
    for tensor in worse.graph.initializer:
        if tensor.name in scales:
            wide = onnx.numpy_helper.to_array(tensor) * np.float32(60)
            tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))
    assert "rounds by" in check.reason(worse)


def test_clone_of_quantized_network_computes_what_it_rounds(folder):
    path = make("mlp", "qoperator-per-channel", folder)
    found, *_ = _looked_at(path)
    feed = found.probes[0]
    native, clone = (Session(m).run(feed) for m in (found.view.model, upcast(found.view.model)))
    floats = [key for key, array in native.items() if array.dtype == np.float32]
    assert floats
    for key in floats:
        assert np.abs(native[key] - clone[key]).max() < 0.1
        assert not np.array_equal(native[key], clone[key])


def _convolve_bytes(net: nets.Net, x: str, inner: int, outer: int) -> str:
    """As onnxruntime's quantizer of 2020 wrote it: the bias rounded in the scale of the input."""
    x, scale, zero = net.ops(3, "DynamicQuantizeLinear", x)
    weight = net.const(net.rng.integers(-99, 99, (outer, inner, 3, 3)).astype(np.int8))
    scale = net.op("Mul", scale, net.const(np.float32(0.004)))
    y = net.op("ConvInteger", x, weight, zero, net.const(np.int8(0)), pads=[1] * 4)
    bias = net.op("Floor", net.op("Div", net.weight(outer), scale))
    bias = net.op("Cast", bias, to=TensorProto.INT32)
    y = net.op("Add", y, net.op("Reshape", bias, net.const(np.array([1, -1, 1, 1]))))
    return net.op("Mul", net.op("Cast", y, to=TensorProto.FLOAT), scale)


def test_biases_that_are_rounded_while_running(tmp_path):
    net = nets.Net()
    y = _convolve_bytes(net, net.op("Relu", _convolve_bytes(net, "x", 3, 8)), 8, 4)
    found = nets.look(net.model({"x": ("N", 3, 6, 6)}, y), tmp_path)
    (group,) = found.coupling.groups
    proven = prove(found, [(group, range(0, 8, 2))])
    assert proven.guilty == {}
    feed = found.probes[0]
    native, clone = (Session(m).run(feed)[y] for m in (found.view.model, found.view.real))
    assert np.abs(native - clone).max() < 0.02 * np.abs(clone).max()


def test_integers_behind_a_gather_are_parameters(tmp_path):
    table = np.arange(-20, 20, dtype=np.int8).reshape(10, 4)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Gather", ["t", "i"], ["g"]),
            onnx.helper.make_node("DequantizeLinear", ["g", "s", "z"], ["e"]),
            onnx.helper.make_node("MatMul", ["e", "w"], ["y"]),
        ],
        "embedding",
        [info("i", TensorProto.INT64, ["n"])],
        [info("y", TensorProto.FLOAT, ["n", 3])],
        [
            onnx.numpy_helper.from_array(table, "t"),
            onnx.numpy_helper.from_array(np.float32(0.1), "s"),
            onnx.numpy_helper.from_array(np.int8(0), "z"),
            onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w"),
        ],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    found, params, *_, count = _looked_at(tmp_path / "m.onnx")
    assert count == 40 + 12
    assert params == 1.0
    (group,) = found.coupling.groups
    assert prove(found, [(group, [0, 2])]).guilty == {}
