"""Structured, sensitivity-based pruning of ONNX models from any framework."""

__version__ = "0.1.0"
