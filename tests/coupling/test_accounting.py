"""Every operator of the standard, and of onnxruntime's own, is ruled or frozen for a reason."""

from functools import cache

import onnx
import onnxruntime
import onnxruntime.capi.onnxruntime_pybind11_state as state
import pytest
from onnx import helper

from onnxprune.coupling.rules import MICROSOFT, NCHWC, registered
from onnxprune.coupling.rules.frozen import FROZEN
from tests.coupling import cases_frozen, cases_microsoft

# Operators that no rule ever sees.
_ELSEWHERE = {
    ("", "Constant"): "a value of the view, not a node",
    ("", "Shape"): "shape arithmetic (model/derived.py), mended by rewrite/shapes.py",
    ("", "Size"): "shape arithmetic (model/derived.py), mended by rewrite/shapes.py",
}
_SCHEMAS = {
    (s.domain, s.name): s for s in (*state.get_all_operator_schema(), *onnx.defs.get_all_schemas())
}
_KERNELS = {
    ("" if k.domain == "ai.onnx" else k.domain, k.op_name)
    for k in state.get_all_opkernel_def()
    if k.provider == "CPUExecutionProvider"
}
_NAMED = {(c.domain, c.op) for c in (*cases_frozen.CASES, *cases_microsoft.FROZEN)}
# They run only where a caller binds shared memory, or sparse tensors: no plain session can.
_NO_PLAIN_SESSION = {(MICROSOFT, "SparseAttention"), (MICROSOFT, "SparseToDenseMatMul")}


@cache
def _first_versions():
    versions = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        known = versions.get(_key(schema), schema.since_version)
        versions[_key(schema)] = min(known, schema.since_version)
    return versions


def _key(schema):
    return schema.domain, schema.name


@cache
def _newest_opset():
    """The newest version of the standard that onnxruntime loads."""
    for version in range(onnx.defs.onnx_opset_version(), 0, -1):
        relu = helper.make_node("Relu", ["x"], ["y"])
        ends = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
        graph = helper.make_graph([relu], "g", ends[:1], ends[1:])
        opset = helper.make_opsetid("", version)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        try:
            onnxruntime.InferenceSession(model.SerializeToString())
        except Exception:
            continue
        return version
    raise AssertionError


def _runs(key):
    """Whether onnxruntime runs the operator here: by a kernel, or by its definition."""
    if key in _KERNELS:
        return True
    schema = _SCHEMAS[key]
    standard = key[0] == "" and hasattr(schema, "has_function")
    defined = standard and (schema.has_function or schema.has_context_dependent_function)
    return defined and _first_versions()[key] <= _newest_opset()


def _has_body(key):
    return any("GRAPH" in str(a.type).upper() for a in _SCHEMAS[key].attributes.values())


def _accounted(key):
    return key in registered() or key in FROZEN or key in _ELSEWHERE


def _ids(key):
    return ".".join(filter(None, key))


@pytest.mark.parametrize("key", sorted(map(_key, onnx.defs.get_all_schemas())), ids=_ids)
def test_every_operator_of_the_standard_is_accounted_for(key):
    if _runs(key):
        assert _accounted(key)


@pytest.mark.parametrize("key", sorted(k for k in _KERNELS if k[0] in (MICROSOFT, NCHWC)), ids=_ids)
def test_every_operator_that_onnxruntime_writes_is_accounted_for(key):
    assert _accounted(key)


def test_operators_of_training_do_not_run():
    training = {"ai.onnx.preview", "ai.onnx.preview.training"}
    found = {_key(s) for s in onnx.defs.get_all_schemas() if s.domain in training}
    assert found
    assert not any(map(_runs, found))


def test_no_operator_is_both_ruled_and_frozen():
    assert not FROZEN.keys() & registered().keys()
    assert not FROZEN.keys() & _ELSEWHERE.keys()


@pytest.mark.parametrize("key", sorted(FROZEN), ids=_ids)
def test_frozen_operator_exists_and_has_a_reason(key):
    assert key in _SCHEMAS
    assert FROZEN[key].reason.startswith(key[1])
    assert FROZEN[key].unlock


@pytest.mark.parametrize("key", sorted(FROZEN), ids=_ids)
def test_frozen_operator_has_a_counter_example(key):
    """A row whose cut breaks the law (test_wrong_rules), or no tensors that a weight could make.

    Those are types without axes on one side, and decoders in a body: ids go in, ids come out.
    """
    assert (
        key in _NAMED or key in _NO_PLAIN_SESSION or _without_axes(_SCHEMAS[key]) or _has_body(key)
    )


def _without_axes(schema):
    """No tensor of the inputs reaches a tensor of the outputs: one side is no tensor at all."""
    return not (_takes_tensors(schema.inputs) and _takes_tensors(schema.outputs))


def _takes_tensors(parameters):
    return any(
        kind.startswith("tensor(") for p in parameters for kind in p.types if p.name != "position"
    )
