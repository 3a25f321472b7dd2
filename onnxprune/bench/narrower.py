"""What the second of two models is fed: the same, or less of it where it reads fewer channels."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from onnxprune.data.specs import InputSpec, input_specs
from onnxprune.errors import InputError
from onnxprune.model.load import Model
from onnxprune.runtime.session import Feeds

__all__ = ["narrower_feeds"]


def narrower_feeds(models: Sequence[Model], feeds: Sequence[Feeds]) -> tuple[list[Feeds], str]:
    """Fit feeds of the first model to the last one, and say what of them it does not get.

    Which numbers are left out does not matter to a clock; those of the first positions stay.

    Parameters
    ----------
    models : sequence of Model
    feeds : sequence of Feeds
        For the first of them.

    Returns
    -------
    feeds : list of Feeds
    note : str
        "" where both get the same.

    Raises
    ------
    InputError
        If the inputs have other names, or one of the last model is no narrower, but another.
    """
    specs = {spec.name: spec for spec in input_specs(models[-1].proto)}
    if specs.keys() != feeds[0].keys():
        first, last = (", ".join(sorted(names)) or "none" for names in (feeds[0], specs))
        msg = (
            f"{models[0].path} and {models[-1].path} take different inputs ({first}; {last}), "
            "so no data fits both; time each alone"
        )
        raise InputError(msg)
    for name, array in feeds[0].items():
        if not _fits(specs[name], array.shape):
            msg = (
                f"'{name}' is {list(array.shape)} for {models[0].path}, but {models[-1].path} has "
                f"{specs[name]}; both must take the same, or the second one less on an axis other "
                "than the first"
            )
            raise InputError(msg)
    fitted: list[Feeds] = [
        {n: _first(a, _sizes(specs[n], a.shape)) for n, a in f.items()} for f in feeds
    ]
    fewer = [
        f"'{name}' of {list(fitted[0][name].shape)} in place of {list(array.shape)}"
        for name, array in feeds[0].items()
        if fitted[0][name].shape != array.shape
    ]
    return fitted, f"{models[-1].path} was fed {', '.join(fewer)}" if fewer else ""


def _sizes(spec: InputSpec, shape: Sequence[int]) -> list[int]:
    pairs = zip(spec.shape, shape, strict=True)
    return [fixed if isinstance(fixed, int) else size for fixed, size in pairs]


def _fits(spec: InputSpec, shape: Sequence[int]) -> bool:
    if len(spec.shape) != len(shape):
        return False
    sizes = _sizes(spec, shape)
    return sizes[:1] == list(shape[:1]) and all(a <= b for a, b in zip(sizes, shape, strict=True))


def _first(array: NDArray[np.generic], sizes: Sequence[int]) -> NDArray[np.generic]:
    # Of an array without axes, a slice is no array.
    return np.asarray(array[tuple(slice(size) for size in sizes)])
