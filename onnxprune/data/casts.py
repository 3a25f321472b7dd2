"""Which casts keep the meaning of calibration data, and the casts themselves."""

import re

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError

__all__ = ["cast", "check_dtype", "reinterpret"]

Array = NDArray[np.generic]
DType = np.dtype[np.generic]

_KINDS = {
    "bool": "bool",
    "float": "float",
    "bfloat": "float",
    "int": "int",
    "uint": "int",
    "str": "string",
    "bytes": "string",
    "object": "string",
}
_KEEPING = {
    ("float", "float"),
    ("int", "int"),
    ("bool", "int"),
    ("bool", "float"),
    ("int", "bool"),
    ("string", "string"),
}


def kind(dtype: DType) -> str:
    """Return ``float``, ``int``, ``bool``, ``string``, or else the dtype's own name."""
    # By name: the dtypes of ml_dtypes (bfloat16, float8, int4) all have NumPy kind "V".
    stem = re.match(r"[a-z]*", dtype.name)
    return _KINDS.get(stem.group() if stem else "", dtype.name)


def reinterpret(array: Array, dtype: DType) -> Array:
    """Give bfloat16, float8 and int4 back their type: NumPy files keep them as nameless bytes."""
    nameless = array.dtype.kind == "V" and array.dtype.names is None
    if nameless and dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        return array.view(dtype)
    return array


def check_dtype(source: str, spec: InputSpec, have: DType) -> list[str]:
    """Return a note where a cast is needed, nothing where none is.

    Raises
    ------
    InputError
        If a cast would change what the values mean.
    """
    if spec.dtype in (have, have.newbyteorder("=")):
        return []
    pair = (kind(have), kind(spec.dtype))
    if pair == ("string", "string"):
        return []
    if pair in _KEEPING:
        return [f"'{spec.name}' is cast from {have.name} to {spec.dtype.name}"]
    wanted = "strings" if pair[1] == "string" else spec.dtype.name
    why = f"{source}: '{spec.name}' is {have.name}, the model wants {wanted}"
    if pair == ("int", "float"):
        why += (
            "; a cast would feed unnormalised values: convert them in the file as the model was "
            "trained (such as x / 255), or use --loader"
        )
    elif pair in {("float", "int"), ("float", "bool")}:
        why += "; a cast could lose fractions: save the data with that type"
    raise InputError(why)


def cast(array: Array, dtype: DType, where: str) -> Array:
    """Copy an array to the input's dtype, its values proven finite and representable.

    Parameters
    ----------
    array : array
        Of a dtype that :func:`check_dtype` passed.
    dtype : dtype
    where : str
        How errors begin, such as ``calib.npz: 'x' in sample 3``.

    Raises
    ------
    InputError
        If a value is NaN or infinite, or the dtype cannot hold it.
    """
    have, want = kind(array.dtype), kind(dtype)
    if want == "string":
        return np.array(array.astype(str), dtype=object)
    if have == "float":
        _check_finite(array, where)
    if have == "int":
        _check_range(array, dtype, where)
    with np.errstate(over="ignore"):
        result = np.array(array, dtype=dtype)
    if have == "float" and not np.isfinite(result).all():
        msg = f"{where} has values that are too large for {dtype.name}"
        raise InputError(msg)
    return result


def _check_finite(array: Array, where: str) -> None:
    if not np.isfinite(array).all():
        what = "NaN" if np.isnan(array).any() else "infinite values"
        msg = f"{where} has {what}; leave that sample out, or put a finite value there"
        raise InputError(msg)


def _check_range(array: Array, dtype: DType, where: str) -> None:
    if not array.size:
        return
    # NumPy's own iinfo does not know int4.
    info = ml_dtypes.iinfo(dtype) if kind(dtype) == "int" else None  # type: ignore[no-untyped-call]
    low, high = (int(info.min), int(info.max)) if info else (0, 1)
    least, most = int(array.min()), int(array.max())
    if least < low or most > high:
        msg = f"{where} has values from {least} to {most}, {dtype.name} holds {low} to {high}"
        raise InputError(msg)
