"""Does this data fit these inputs? Arrays become samples here, or one line says why not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.casts import cast, check_dtype, reinterpret
from onnxprune.data.samples import Samples, choose
from onnxprune.data.specs import InputSpec
from onnxprune.errors import InputError, did_you_mean
from onnxprune.runtime.session import Feeds

__all__ = ["Table", "collect", "fixed_batch", "full_feed", "table"]

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Table:
    """The samples of one source, checked against the inputs but for their values.

    Attributes
    ----------
    source : str
        What errors call it.
    arrays : mapping of input name to array
        Samples along axis 0; rank 0 where a scalar input is the same in all.
    stacked : bool
        Axis 0 of the arrays is axis 0 of the input; else each entry is a full feed.
    count : int
        Number of samples, at least 1.
    notes : tuple of str
    """

    source: str
    arrays: Mapping[str, Array]
    stacked: bool
    count: int
    notes: tuple[str, ...]


def table(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> Table:
    """Check arrays against the inputs: names, ranks, numbers of samples, fixed sizes, dtypes.

    Raises
    ------
    InputError
        With one line that names the source and what does not fit.
    """
    _check_names(source, arrays, specs)
    notes = [f"ignored extra key '{key}'" for key in arrays if key not in {s.name for s in specs}]
    used = {spec.name: reinterpret(arrays[spec.name], spec.dtype) for spec in specs}
    stacked = _is_stacked(source, used, specs)
    count = _count(source, used, stacked)
    for spec in specs:
        _check_sizes(source, spec, used[spec.name], stacked)
        notes += check_dtype(source, spec, used[spec.name].dtype)
        if used[spec.name].ndim == 0:
            notes.append(f"scalar input '{spec.name}' is the same for all samples")
    return Table(source, used, stacked, count, tuple(notes))


def full_feed(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> Table:
    """Check one full feed: the ranks are the model's own.

    Raises
    ------
    InputError
        As :func:`table`.
    """
    for spec in specs:
        if spec.name in arrays and arrays[spec.name].ndim != len(spec.shape):
            msg = (
                f"{source}: '{spec.name}' has shape {_show(arrays[spec.name].shape)}, "
                f"the model's input is {spec}"
            )
            raise InputError(msg)
    return table(source, {name: array[None] for name, array in arrays.items()}, specs)


def collect(
    tables: Sequence[Table],
    specs: Sequence[InputSpec],
    *,
    limit: int,
    seed: int,
    notes: Sequence[str] = (),
) -> Samples:
    """Take up to ``limit`` samples of all tables at random, in order, cast to the inputs' dtypes.

    Raises
    ------
    InputError
        If the tables are laid out differently, or a value is not finite or does not fit.
    """
    for other in tables[1:]:
        if other.stacked != tables[0].stacked:
            msg = (
                f"{tables[0].source} and {other.source} are laid out differently: one has its "
                "samples on axis 0 of the input, the other on one axis more"
            )
            raise InputError(msg)
    origins = [(source, i) for source in tables for i in range(source.count)]
    fixed = fixed_batch(specs) if tables[0].stacked else None
    chosen = choose(len(origins), max(limit, fixed or 1), seed)
    said = [*notes, *(note for source in tables for note in source.notes)]
    if len(chosen) < len(origins):
        said.append(f"took {len(chosen)} of {len(origins)} samples at random (seed {seed})")
    entries = tuple(_entry(*origins[int(i)], specs=specs) for i in chosen)
    stacked = tables[0].stacked and _joinable(entries)
    if tables[0].stacked and not stacked:
        if fixed not in (None, 1):
            msg = f"{tables[0].source} and others differ in size: no batches of {fixed} can be made"
            raise InputError(msg)
        said.append("sizes or scalars differ between samples: one sample per run")
    return Samples(
        names=tuple(spec.name for spec in specs),
        entries=entries,
        stacked=stacked,
        notes=tuple(dict.fromkeys(said)),
        fixed_batch=fixed if stacked else None,
        origin=tuple(int(i) for i in chosen),
        there=len(origins),
    )


def fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    """Return the size that the model fixes for axis 0 of its inputs, None where it is dynamic.

    Raises
    ------
    InputError
        If inputs fix it at different sizes: then axis 0 does not count samples.
    """
    fixed = {spec.name: spec.shape[0] for spec in specs if spec.shape}
    sizes = {size: name for name, size in fixed.items() if isinstance(size, int)}
    if len(sizes) > 1:
        (a, first), (b, second) = list(sizes.items())[:2]
        msg = (
            f"axis 0 of input '{first}' is fixed at {a} and of '{second}' at {b}, so samples "
            "cannot be joined along it; give every input one full feed per entry (one axis more)"
        )
        raise InputError(msg)
    return next(iter(sizes), None)


def _check_names(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> None:
    for spec in specs:
        if spec.name in arrays:
            continue
        hint = did_you_mean(spec.name, arrays)
        if any(key.startswith("arr_") for key in arrays):
            hint = f"; name it when saving: np.savez(path, **{{'{spec.name}': array}})"
        msg = f"{source} has no data for input '{spec.name}'{hint}"
        raise InputError(msg)


def _is_stacked(source: str, arrays: Mapping[str, Array], specs: Sequence[InputSpec]) -> bool:
    more = {spec.name: arrays[spec.name].ndim - len(spec.shape) for spec in specs}
    for spec in specs:
        if more[spec.name] not in (0, 1):
            msg = (
                f"{source}: '{spec.name}' has shape {_show(arrays[spec.name].shape)}, the model's "
                f"input is {spec}; samples go on axis 0, or full feeds on one axis more"
            )
            raise InputError(msg)
    layouts = {more[spec.name]: spec.name for spec in specs if spec.shape}
    if len(layouts) > 1:
        msg = (
            f"{source}: '{layouts[0]}' has its samples on axis 0, '{layouts[1]}' one full feed per "
            "entry (one axis more); lay all inputs out alike"
        )
        raise InputError(msg)
    return 0 in layouts


def _count(source: str, arrays: Mapping[str, Array], stacked: bool) -> int:
    counts = {name: array.shape[0] for name, array in arrays.items() if array.ndim}
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"'{name}' {count}" for name, count in counts.items())
        hint = "; an input without a sample axis needs one full feed per entry (one axis more)"
        msg = f"{source}: different numbers of samples: {listed}{hint if stacked else ''}"
        raise InputError(msg)
    if 0 in counts.values():
        msg = f"{source} holds no samples (axis 0 has size 0)"
        raise InputError(msg)
    return next(iter(counts.values()), 1)


def _check_sizes(source: str, spec: InputSpec, array: Array, stacked: bool) -> None:
    if array.ndim == 0:
        return
    sizes = array.shape if stacked else array.shape[1:]
    for axis in range(1 if stacked else 0, len(spec.shape)):
        wanted = spec.shape[axis]
        if isinstance(wanted, int) and sizes[axis] != wanted:
            msg = (
                f"{source}: '{spec.name}' has size {sizes[axis]} on axis {axis}, the model wants "
                f"{wanted} ({spec}){_moved_channels(spec, sizes)}"
            )
            raise InputError(msg)


def _moved_channels(spec: InputSpec, sizes: Sequence[int]) -> str:
    """Say so where the data would fit with its channels moved to the other end."""
    if len(sizes) < 3:
        return ""
    for name, order in (
        ("last", (0, len(sizes) - 1, *range(1, len(sizes) - 1))),
        ("first", (0, *range(2, len(sizes)), 1)),
    ):
        pairs = list(zip((sizes[a] for a in order), spec.shape, strict=True))[1:]
        if all(got == wanted for got, wanted in pairs if isinstance(wanted, int)):
            return f"; its channels are {name}: try np.transpose(x, {order})"
    return ""


def _entry(source: Table, index: int, *, specs: Sequence[InputSpec]) -> Feeds:
    entry: dict[str, Array] = {}
    for spec in specs:
        array = source.arrays[spec.name]
        if array.ndim:
            # A scalar input has no axis 0 to stay on, however the others are laid out.
            keep_axis = source.stacked and spec.shape
            array = array[index : index + 1] if keep_axis else array[index, ...]
        where = f"{source.source}: '{spec.name}' in sample {index}"
        entry[spec.name] = cast(np.asarray(array), spec.dtype, where)
    return entry


def _joinable(entries: Sequence[Feeds]) -> bool:
    first = entries[0]
    return all(
        array.shape == first[name].shape and (array.ndim > 0 or bool(array == first[name]))
        for entry in entries
        for name, array in entry.items()
    )


def _show(shape: Sequence[int]) -> str:
    return f"[{', '.join(str(size) for size in shape)}]"
