"""Sparse weights are read whole and cut where they are."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.analysis import analyse
from onnxprune.model.sparse import dense, fill
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.rewrite.prove import prove


def _sparse(array, *, flat):
    places = np.nonzero(array)
    indices = np.ravel_multi_index(places, array.shape) if flat else np.stack(places, axis=1)
    return helper.make_sparse_tensor(
        numpy_helper.from_array(array[places], "w"),
        numpy_helper.from_array(indices.astype(np.int64), "w_places"),
        list(array.shape),
    )


def _weight():
    rng = np.random.default_rng(0)
    array = rng.standard_normal((8, 16)).astype(np.float32)
    return np.where(rng.random(array.shape) < 0.7, np.float32(0), array)


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_tensors_are_read_and_written(flat, tmp_path):
    array = _weight()
    sparse = _sparse(array, flat=flat)
    np.testing.assert_array_equal(dense(sparse, tmp_path), array)
    fill(sparse, array[:, ::2])
    np.testing.assert_array_equal(dense(sparse, tmp_path), array[:, ::2])
    assert len(sparse.indices.dims) == (1 if flat else 2)


@pytest.mark.parametrize("attribute", [True, False])
def test_networks_with_sparse_weights_are_cut(attribute, tmp_path):
    array = _weight()
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    last = np.random.default_rng(1).standard_normal((16, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "sparse",
        [info("x", TensorProto.FLOAT, ["n", 8])],
        [info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(last, "v")],
    )
    if attribute:
        constant = helper.make_node("Constant", [], ["w"], sparse_value=_sparse(array, flat=True))
        graph.node.insert(0, constant)
    else:
        graph.sparse_initializer.append(_sparse(array, flat=True))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "m.onnx")
    found = analyse(tmp_path / "m.onnx", Options(), Silent())
    (group,) = found.coupling.groups
    proven = prove(found, [(group, range(0, 16, 2))])
    assert proven.guilty == {}
    cut = proven.model.graph
    kept = cut.node[0].attribute[0].sparse_tensor if attribute else cut.sparse_initializer[0]
    np.testing.assert_array_equal(dense(kept, tmp_path), array[:, 1::2])
