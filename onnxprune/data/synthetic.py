"""Inputs made by chance, for a model without calibration data."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec
from onnxprune.data.tables import table_rows
from onnxprune.errors import InputError
from onnxprune.runtime.session import Feeds

__all__ = ["random_feed", "synthetic_samples"]

_NOTE = (
    "inputs are synthetic (random): what the model does on real inputs is not measured, so "
    "sensitivity and drop are weak guesses; give --data"
)


def synthetic_samples(
    model: onnx.ModelProto,
    specs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    *,
    count: int,
    seed: int,
) -> Samples:
    """Make ``count`` random samples.

    They are stacked where axis 0 of all inputs counts the same; else (a batch that is not on
    axis 0, inputs without one) each is a full feed of the given shapes.

    Parameters
    ----------
    model : ModelProto
        Says which integers are legal: indices into its tables.
    specs : sequence of InputSpec
    shapes : mapping of input name to shape
        From :func:`onnxprune.data.specs.resolve_shapes`.
    count : int
    seed : int

    Raises
    ------
    InputError
        If an input's element type cannot be made by chance (strings).
    """
    rng = np.random.default_rng(seed)
    rows = table_rows(model, tuple(specs))
    stacked = _stackable(specs)
    fixed = next((s.shape[0] for s in specs if s.shape and isinstance(s.shape[0], int)), None)
    if stacked:
        shapes = {name: (1, *shape[1:]) if shape else () for name, shape in shapes.items()}
        count = max(count, fixed or 1)
    scalars = {s.name: _values(s, (), rng, rows.get(s.name)) for s in specs if not s.shape}
    entries = tuple(
        {s.name: _values(s, shapes[s.name], rng, rows.get(s.name)) for s in specs} | scalars
        for _ in range(count)
    )
    return Samples(
        names=tuple(spec.name for spec in specs),
        entries=entries,
        stacked=stacked,
        synthetic=True,
        notes=(_NOTE,),
        fixed_batch=fixed if stacked and isinstance(fixed, int) else None,
    )


def random_feed(
    model: onnx.ModelProto,
    specs: Sequence[InputSpec],
    shapes: Mapping[str, tuple[int, ...]],
    rng: np.random.Generator,
) -> Feeds:
    """Make one random feed of the given shapes.

    Floats are N(0, 1); integers that index a constant table are uniform over its rows, those of
    uint8 over 0-255 (pixels), others 0 or 1 with a leading 1; bools are random. Inputs with "mask"
    in their name are ones (nothing masked), bools with "padding_mask" False (nothing padded).

    Raises
    ------
    InputError
        If an input's element type cannot be made by chance (strings).
    """
    rows = table_rows(model, tuple(specs))
    return {s.name: _values(s, shapes[s.name], rng, rows.get(s.name)) for s in specs}


def _values(
    spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator, rows: int | None
) -> NDArray[np.generic]:
    name, dtype = spec.name.lower(), spec.dtype
    if dtype.kind in "OUSc":
        msg = f"no random values can be made for input '{spec.name}' ({spec}); give --data"
        raise InputError(msg)
    if dtype.kind == "b":
        masked = np.full(shape, "padding_mask" not in name)
        return masked if "mask" in name else rng.integers(0, 2, shape).astype(bool)
    if "mask" in name:
        return np.ones(shape, dtype)
    if dtype.kind in "iu" or dtype.name.startswith(("int", "uint")):
        top = rows or (256 if dtype == np.uint8 else 2)
        values = np.asarray(rng.integers(0, top, shape))
        if top == 2:
            values.flat[:1] = 1
        return values.astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(dtype)


def _stackable(specs: Sequence[InputSpec]) -> bool:
    leading = {spec.shape[0] for spec in specs if spec.shape}
    return len(leading) == 1 and all(spec.batch_axis == 0 for spec in specs)
