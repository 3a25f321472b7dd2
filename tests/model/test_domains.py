"""The standard's domain under both of its names, and versions that are named twice or never."""

import onnx
from onnx import helper

from onnxprune.model.domains import called, defined, opset_of, versions_of


def test_both_names_of_the_standard_are_one():
    for domain in ("", "ai.onnx"):
        assert called(helper.make_node("Relu", ["x"], ["y"], domain=domain)) == ("", "Relu", "")
        assert defined(onnx.FunctionProto(domain=domain, name="f", overload="o")) == ("", "f", "o")
    assert called(onnx.NodeProto(domain="ai.onnx.ml", op_type="Scaler"))[0] == "ai.onnx.ml"


def test_the_highest_version_counts():
    imports = [helper.make_opsetid(d, v) for d, v in (("", 13), ("ai.onnx", 17), ("own", 2))]
    assert versions_of(imports) == {"": 17, "own": 2}
    assert versions_of(imports[::-1]) == {"": 17, "own": 2}
    assert opset_of(onnx.ModelProto(opset_import=imports)) == 17
    assert opset_of(onnx.ModelProto()) == 1
