"""The command line: arguments become values, one call does the work, its report is printed."""

from onnxprune.cli.commands import app, main

__all__ = ["app", "main"]
