"""Structured, sensitivity-based pruning of ONNX models from any framework."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxprune.api import apply, bench, inspect, prune, sensitivity, verify
    from onnxprune.errors import (
        BudgetError,
        InputError,
        OnnxPruneError,
        UsageError,
        VerificationError,
    )
    from onnxprune.plan import Plan
    from onnxprune.result import Result

__version__ = "0.1.0"

__all__ = [
    "BudgetError",
    "InputError",
    "OnnxPruneError",
    "Plan",
    "Result",
    "UsageError",
    "VerificationError",
    "apply",
    "bench",
    "inspect",
    "prune",
    "sensitivity",
    "verify",
]

_ROOMS = {"Plan": "plan", "Result": "result"}


def __getattr__(name: str) -> object:
    """Import what is asked for: the command line shows its help without onnxruntime."""
    if name not in __all__:
        msg = f"module 'onnxprune' has no attribute '{name}'"
        raise AttributeError(msg)
    from importlib import import_module

    room = _ROOMS.get(name, "errors" if name.endswith("Error") else "api")
    return getattr(import_module(f"onnxprune.{room}"), name)


class _Package(ModuleType):
    """Rooms named like functions (bench, sensitivity) are imported, but do not hide these."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
