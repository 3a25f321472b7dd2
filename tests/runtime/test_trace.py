"""A trace tells the truth about shapes, whatever the file declares."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnxprune.model.view import build_view
from onnxprune.runtime.session import RunFailedError
from onnxprune.runtime.trace import Trace, agree, trace
from tests import nets

IMAGE = {"x": np.ones((2, 3, 6, 6), np.float32)}


def seen(model, feed, folder):
    return trace(build_view(model, folder), feed)


def test_shapes_and_types_of_everything(tmp_path):
    found = seen(nets.residual(), IMAGE, tmp_path)
    assert found.shapes["x"] == (2, 3, 6, 6)
    assert found.shapes["v0"] == (2, 8, 6, 6)
    assert found.shapes["w0"] == (8, 3, 3, 3)
    assert found.shapes["v8"] == (2, 8)
    assert found.shapes["v9"] == (2, 4)
    assert {str(d) for d in found.dtypes.values()} == {"float32"}


def test_small_values_are_kept_large_ones_not(tmp_path):
    net = nets.Net()
    shape = net.op("Shape", "x")
    model = net.model(
        nets.IMAGES,
        shape,
        net.op("Resize", "x", "", net.const(np.array([1, 1, 8, 8], np.float32))),
        types={shape: TensorProto.INT64},
    )
    found = seen(model, IMAGE, tmp_path)
    assert found.values[shape].tolist() == [2, 3, 6, 6]
    assert found.values["c0"].tolist() == [1, 1, 8, 8]
    assert "v1" not in found.values
    assert found.shapes["v1"] == (2, 3, 48, 48)
    assert found.dtypes[shape] == np.int64


def test_wrong_annotations_are_not_believed(tmp_path):
    model = nets.residual()
    model.graph.value_info.append(
        helper.make_tensor_value_info("v0", TensorProto.FLOAT, [7, 7, 7, 7])
    )
    assert seen(model, IMAGE, tmp_path).shapes["v0"] == (2, 8, 6, 6)


def test_the_model_is_not_changed(tmp_path):
    model = nets.residual()
    before = model.SerializeToString(deterministic=True)
    seen(model, IMAGE, tmp_path)
    assert model.SerializeToString(deterministic=True) == before


def test_values_that_are_no_tensors_have_no_shape(tmp_path):
    net = nets.Net()
    pair = net.op("SequenceConstruct", "x", "x")
    y = net.op("ConcatFromSequence", pair, axis=0)
    found = seen(net.model(nets.IMAGES, y), IMAGE, tmp_path)
    assert pair not in found.shapes
    assert found.shapes[y] == (4, 3, 6, 6)


def test_a_model_that_does_not_run(tmp_path):
    with pytest.raises(RunFailedError):
        seen(nets.mlp(8, 3), {"x": np.ones((2, 9), np.float32)}, tmp_path)


def test_what_traces_agree_on_keeps_its_order():
    names = [f"v{i}" for i in range(50)]
    first = Trace(
        dict.fromkeys(names, (2, 3)),
        dict.fromkeys(names, np.dtype("f4")),
        {n: np.zeros(1) for n in names},
    )
    shapes = dict.fromkeys(reversed(names), (3, 3)) | {"v7": (3, 3, 1)}
    second = Trace(shapes, first.dtypes, dict(first.values))
    both = agree([first, second])
    assert len(both) == 2
    for kept in both:
        assert list(kept.shapes) == [n for n in names if n != "v7"]
        assert list(kept.values) == list(kept.shapes)
