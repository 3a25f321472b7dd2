"""What a model wants to be fed, and with which sizes."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import onnx

from onnxprune.data.symbols import evaluate
from onnxprune.errors import InputError, OnnxPruneError, UsageError, did_you_mean

if TYPE_CHECKING:
    from onnxprune.data.samples import Samples

__all__ = [
    "InputSpec",
    "input_specs",
    "named_dims",
    "resolve_shapes",
]

_NAMELESS = ("none", "null", "unk", "unknown")
_LARGEST_INPUT = 4_000_000_000  # bytes

Dim: TypeAlias = str | tuple[str, int]
"""What gets one size: a named dimension, or the nameless dynamic axis (input, axis)."""


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One real input of a model.

    Attributes
    ----------
    name : str
    dtype : dtype
        ``object`` for strings; a dtype of ml_dtypes for bfloat16, float8 and int4.
    shape : tuple of int, str or None
        Fixed sizes are ints, named dynamic axes are strings, nameless ones are None.
    """

    name: str
    dtype: np.dtype[np.generic]
    shape: tuple[int | str | None, ...]

    @property
    def batch_axis(self) -> int:
        """The first axis with "batch" in its name, else 0."""
        named = (a for a, dim in enumerate(self.shape) if "batch" in str(dim).lower())
        return next(named, 0)

    def __str__(self) -> str:
        axes = ", ".join("?" if dim is None else str(dim) for dim in self.shape)
        return f"{'string' if self.dtype.kind == 'O' else self.dtype.name} [{axes}]"

    def dim(self, axis: int) -> Dim | None:
        """Return what gives the axis its size, or None where the size is fixed."""
        size = self.shape[axis]
        if isinstance(size, int):
            return None
        return (self.name, axis) if size is None else size


def input_specs(model: onnx.ModelProto) -> tuple[InputSpec, ...]:
    """Return the inputs that must be fed, in graph order.

    Old IR versions list initializers as inputs too; these are left out.

    Raises
    ------
    InputError
        If an input is no tensor, or declares no element type or not even a rank.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    constants |= {sparse.values.name for sparse in graph.sparse_initializer}
    return tuple(_spec(value) for value in graph.input if value.name not in constants)


def _spec(value: onnx.ValueInfoProto) -> InputSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = (kind or "untyped").removesuffix("_type").replace("_", " ")
        msg = f"model input '{value.name}' is not a tensor ({what}); only tensors can be fed"
        raise InputError(msg)
    tensor = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    except KeyError:
        msg = f"model input '{value.name}' has no known element type ({tensor.elem_type})"
        raise InputError(msg) from None
    if not tensor.HasField("shape"):
        msg = f"model input '{value.name}' declares no rank; export the model with input shapes"
        raise InputError(msg)
    return InputSpec(value.name, dtype, tuple(_dim(dim) for dim in tensor.shape.dim))


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Some exporters write 0 or -1 where they mean dynamic, or a "name" such as "?", "-1" or "None".
    named = re.search(r"[A-Za-z]", dim.dim_param) and dim.dim_param.lower() not in _NAMELESS
    return dim.dim_value if dim.dim_value > 0 else dim.dim_param if named else None


def resolve_shapes(
    specs: Sequence[InputSpec],
    *,
    input_shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, int],
    samples: "Samples | None",
    batch: int | None = None,
    other: int = 16,
) -> dict[str, tuple[int, ...]]:
    """Give every input a concrete shape; one name gets one size everywhere.

    Parameters
    ----------
    specs : sequence of InputSpec
    input_shapes : mapping of input name to shape
        Asked for by the user; wins over everything but the model's fixed sizes. The name "" means
        the only input.
    dims : mapping of dimension name to size
        Asked for by the user; wins over the data.
    samples : Samples, optional
        Their first feed's sizes come next (stacked samples say nothing about axis 0).
    batch : int, optional
        Size of batch axes that nothing else determines: 1 by default. The batch axis is the first
        one with "batch" in its name, else axis 0.
    other : int
        Size of all other axes that nothing else determines. Names that are sums or products of
        other names (``past + 1``) are computed.

    Raises
    ------
    UsageError
        If a name is unknown, or the user's sizes contradict each other or the model.
    InputError
        If the data gives one name two sizes, or an input would be larger than 4 GB.
    """
    sizes = _from_data(specs, samples) | _from_user(specs, input_shapes, dims)
    dynamic = [(s, a, d) for s in specs for a in range(len(s.shape)) if (d := s.dim(a)) is not None]
    # Sums come last, when their terms are known; batch axes first, whoever else uses their name.
    dynamic.sort(key=lambda item: (not _plain(item[2]), item[1] != item[0].batch_axis))
    for spec, axis, dim in dynamic:
        if dim not in sizes:
            fallback = (batch or 1) if axis == spec.batch_axis else other
            named = {name: size for name, size in sizes.items() if isinstance(name, str)}
            computed = None if _plain(dim) else evaluate(str(dim), named)
            sizes[dim] = computed or fallback
    shapes = {spec.name: tuple(_sized(spec, sizes)) for spec in specs}
    _check_room(specs, shapes)
    return shapes


def _check_room(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse sizes that no feed can be made of, before time is spent on trying."""
    for spec in specs:
        needed = prod(shapes[spec.name]) * spec.dtype.itemsize
        if needed > _LARGEST_INPUT:
            msg = (
                f"one run of input '{spec.name}' ({spec}) would take {needed / 1e9:,.1f} GB; "
                "choose smaller sizes, or export the model with a dynamic axis there"
            )
            raise InputError(msg)


def named_dims(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return what each dynamic axis was set to, for the report; nameless axes as ``x[2]``."""
    found: dict[str, int] = {}
    for spec in specs:
        for axis, size in enumerate(shapes[spec.name]):
            dim = spec.dim(axis)
            if dim is not None:
                found[dim if isinstance(dim, str) else f"{spec.name}[{axis}]"] = size
    return found


def _plain(dim: Dim) -> bool:
    return isinstance(dim, tuple) or dim.isidentifier()


def _sized(spec: InputSpec, sizes: Mapping[Dim, int]) -> Iterable[int]:
    for axis, size in enumerate(spec.shape):
        yield size if isinstance(size, int) else sizes[size or (spec.name, axis)]


def _from_user(
    specs: Sequence[InputSpec],
    input_shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, int],
) -> dict[Dim, int]:
    sizes: dict[Dim, int] = {}
    for name, shape in input_shapes.items():
        spec = _check_input(name, specs)
        if len(shape) != len(spec.shape):
            msg = f"input shape of '{spec.name}' has {len(shape)} axes, the model's input is {spec}"
            raise UsageError(msg)
        for axis, size in enumerate(shape):
            fixed = spec.shape[axis]
            if isinstance(fixed, int) and fixed != size:
                msg = f"input shape of '{spec.name}': axis {axis} is fixed at {fixed}, not {size}"
                raise UsageError(msg)
            _bind(sizes, spec.dim(axis), size, UsageError, "the input shapes and dimensions")
    known = sorted({dim for spec in specs for dim in spec.shape if isinstance(dim, str)})
    nameless = {
        f"{spec.name}[{axis}]": (spec.name, axis)
        for spec in specs
        for axis, dim in enumerate(spec.shape)
        if dim is None
    }
    for name, size in dims.items():
        if name in nameless:
            _bind(sizes, nameless[name], size, UsageError, "the input shapes and dimensions")
            continue
        if name not in known:
            hint = did_you_mean(name, known) or "; all are fixed or nameless (use --input-shape)"
            msg = f"no input has a dimension named '{name}'{hint}"
            raise UsageError(msg)
        _bind(sizes, name, size, UsageError, "the input shapes and dimensions")
    return sizes


def _from_data(specs: Sequence[InputSpec], samples: "Samples | None") -> dict[Dim, int]:
    sizes: dict[Dim, int] = {}
    if samples is None or samples.synthetic:
        return sizes
    example = samples.example()
    for spec in specs:
        # Axis 0 of stacked samples counts samples; it says nothing about the model's batch.
        for axis in range(1 if samples.stacked else 0, len(spec.shape)):
            size = example[spec.name].shape[axis]
            _bind(sizes, spec.dim(axis), size, InputError, "the data")
    return sizes


def _bind(
    sizes: dict[Dim, int], dim: Dim | None, size: int, error: type[OnnxPruneError], who: str
) -> None:
    if dim is not None and sizes.setdefault(dim, size) != size:
        msg = f"{who} give dimension '{dim}' two sizes: {sizes[dim]} and {size}"
        raise error(msg)


def _check_input(name: str, specs: Sequence[InputSpec]) -> InputSpec:
    if not name and len(specs) == 1:
        return specs[0]
    if not name:
        names = ", ".join(f"'{spec.name}'" for spec in specs)
        msg = f"an input shape must name its input: the model has {names or 'no inputs'}"
        raise UsageError(msg)
    for spec in specs:
        if spec.name == name:
            return spec
    msg = f"the model has no input '{name}'{did_you_mean(name, [spec.name for spec in specs])}"
    raise UsageError(msg)
