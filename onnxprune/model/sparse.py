"""Sparse tensors of a file, as dense arrays and back."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.model.tensors import from_array, to_array

__all__ = ["dense", "fill"]

Array = NDArray[np.generic]


def dense(sparse: onnx.SparseTensorProto, base: Path) -> Array:
    """Read a sparse tensor.

    Parameters
    ----------
    sparse : SparseTensorProto
    base : Path
        As `to_array`.

    Returns
    -------
    array, of the tensor's shape
    """
    values, indices = to_array(sparse.values, base), to_array(sparse.indices, base)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    places = tuple(indices.T) if indices.ndim == 2 else np.unravel_index(indices, array.shape)
    array[places] = values
    return array


def fill(sparse: onnx.SparseTensorProto, array: Array) -> None:
    """Put an array into a sparse tensor, in place; its indices keep their form.

    Parameters
    ----------
    sparse : SparseTensorProto
    array : array
        Of the type of the tensor's values.
    """
    places = np.nonzero(array)
    flat = len(sparse.indices.dims) == 1
    indices = np.ravel_multi_index(places, array.shape) if flat else np.stack(places, axis=1)
    sparse.values.CopyFrom(from_array(array[places], sparse.values))
    sparse.indices.CopyFrom(from_array(np.asarray(indices, np.int64), sparse.indices))
    sparse.dims[:] = array.shape
