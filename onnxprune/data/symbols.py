"""Sizes of named dimensions; exporters also write sums such as ``past_length + 1`` as a name."""

import ast
import operator
from collections.abc import Callable, Mapping

__all__ = ["evaluate"]

_OPERATORS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}
_LONGEST = 200  # characters; nobody writes more, and parsing hostile nesting is slow


def evaluate(expression: str, sizes: Mapping[str, int]) -> int | None:
    """Compute a dimension's name as integer arithmetic over the names in ``sizes``.

    Returns
    -------
    int or None
        None if it is no such arithmetic, uses an unknown name, or is not a positive size.
    """
    if len(expression) > _LONGEST:
        return None
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, sizes)
    except (SyntaxError, ValueError, KeyError, ZeroDivisionError, RecursionError, MemoryError):
        return None
    return value if value > 0 else None


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    if isinstance(node, ast.Name):
        return sizes[node.id]
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_value(node.left, sizes), _value(node.right, sizes))
    msg = "not integer arithmetic"
    raise ValueError(msg)
