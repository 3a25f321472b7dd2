"""What operators and functions are called: the standard's own domain goes by two names."""

from collections.abc import Iterable
from typing import TypeAlias

import onnx

__all__ = ["Key", "called", "defined", "opset_of", "short", "versions_of"]

Key: TypeAlias = tuple[str, str, str]
"""Domain, name and overload."""


def short(domain: str) -> str:
    """Return a domain's name, "" for the standard's own."""
    return "" if domain == "ai.onnx" else domain


def called(node: onnx.NodeProto) -> Key:
    """Return what a node calls: an operator or a function."""
    return short(node.domain), node.op_type, node.overload


def defined(function: onnx.FunctionProto) -> Key:
    """Return what a function is called by."""
    return short(function.domain), function.name, function.overload


def versions_of(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """Return the version of every domain, the highest where one is imported twice."""
    found: dict[str, int] = {}
    for opset in imports:
        domain = short(opset.domain)
        found[domain] = max(opset.version, found.get(domain, opset.version))
    return found


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of the standard's operators, 1 where none is named."""
    return versions_of(model.opset_import).get("", 1)
