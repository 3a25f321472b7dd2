"""Onnxruntime's own way to keep inputs: a directory with ``input_0.pb``, ``input_1.pb``, …."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from onnxprune.data.conform import Table, full_feed
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError

__all__ = ["load_test_set", "tensor_number"]


def tensor_number(path: Path) -> int | None:
    """Return N of ``input_N.pb``, None for any other file."""
    match = re.fullmatch(r"input_(\d+)\.pb", path.name)
    return int(match.group(1)) if match else None


def load_test_set(folder: Path, specs: Sequence[InputSpec]) -> Table:
    """Read one ``test_data_set_N``: one full feed.

    Tensors belong to inputs by their names if all of these are input names, else in graph order.

    Raises
    ------
    InputError
        If there are too few or too many tensors, or one is unreadable or does not fit.
    """
    numbered = {n: f for f in folder.iterdir() if (n := tensor_number(f)) is not None}
    names = [spec.name for spec in specs]
    if sorted(numbered) != list(range(len(names))):
        wanted = ", ".join(f"input_{i}.pb for '{name}'" for i, name in enumerate(names))
        have = ", ".join(f"input_{n}.pb" for n in sorted(numbered))
        msg = f"{folder} has {have}; the model needs {wanted}"
        raise InputError(msg)
    tensors = [_load_tensor(numbered[n]) for n in range(len(names))]
    if sorted(name for name, _ in tensors) == sorted(names):
        return full_feed(str(folder), dict(tensors), specs)
    arrays = (array for _, array in tensors)
    return full_feed(str(folder), dict(zip(names, arrays, strict=True)), specs)


def _load_tensor(path: Path) -> tuple[str, NDArray[np.generic]]:
    tensor = onnx.TensorProto()
    try:
        tensor.ParseFromString(path.read_bytes())
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            msg = "its data lies in another file"
            raise ValueError(msg)
        return tensor.name, np.asarray(onnx.numpy_helper.to_array(tensor))
    except (OSError, DecodeError, ValueError, TypeError, KeyError) as error:
        lines = str(error).splitlines()
        msg = f"cannot read tensor {path}: {lines[0] if lines else type(error).__name__}"
        raise InputError(msg) from error
