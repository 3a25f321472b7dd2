"""Several cuts of a few samples in one run: copies of them below one another, a mask for each.

An operator on one sample is mostly overhead, or the reading of weights; on many it is not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.coupling.keeps import Mask, per_block
from onnxprune.coupling.relations import Axis
from onnxprune.model.view import View
from onnxprune.runtime.gates import Gated, mask_name
from onnxprune.runtime.session import Feeds, RunFailedError, batch_size
from onnxprune.runtime.suffix import Suffix
from onnxprune.runtime.trace import Trace

__all__ = ["Stack", "by_row", "close", "make_stack"]

_CLOSE = 1e-3  # of the largest number; what differs in more than rounding differs by far more
Array = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Stack:
    """Runs several cuts of one batch at once.

    Attributes
    ----------
    count : int
        Cuts of one run.
    """

    count: int
    _suffix: Suffix
    _cache: Feeds
    _shapes: Mapping[Axis, tuple[int, ...]]

    def run(self, cuts: Sequence[Mapping[Axis, Mask]]) -> list[dict[str, Array]]:
        """Return the outputs of each cut; those that are missing have not changed.

        Parameters
        ----------
        cuts : sequence of mappings of Axis to mask
            At most ``count``; every gated axis must lose something.

        Raises
        ------
        RunFailedError
            If onnxruntime fails, or an output has not got a row for each sample.
        """
        filled = [*cuts, *[cuts[-1]] * (self.count - len(cuts))]
        masks = {mask_name(axis): self._mask(axis, filled) for axis in self._shapes}
        found = self._suffix.feed({**self._cache, **masks})
        if any(array.ndim == 0 or len(array) % self.count for array in found.values()):
            msg = "an output has no rows for samples"
            raise RunFailedError(msg)
        parts = {name: np.split(array, self.count) for name, array in found.items()}
        return [{name: part[k] for name, part in parts.items()} for k in range(len(cuts))]

    def _mask(self, axis: Axis, cuts: Sequence[Mapping[Axis, Mask]]) -> Mask:
        shape = self._shapes[axis]
        each = [np.repeat(per_block(axis, keeps[axis], shape), shape[0], axis=0) for keeps in cuts]
        return np.concatenate(each)


def by_row(view: View, gated: Gated, trace: Trace) -> Gated | None:
    """Let every row of a gated value have a mask of its own.

    Parameters
    ----------
    view : View
    gated : Gated
    trace : Trace

    Returns
    -------
    Gated or None
        None where what belongs to a sample has no rows of its own: where a statistic is taken over
        channels, or a gate stands before a weight, in a body or on the first axis.
    """
    traced = _samples(view, trace)
    for axis, shape in gated.values.items():
        inner = view.is_constant(axis.value) or axis.value in view.inner
        if inner or axis.axis == 0 or axis.by == 0 or shape[0] % traced:
            return None
    if gated.ratios:
        return None
    model = onnx.ModelProto()
    model.CopyFrom(gated.model)
    names = {mask_name(axis) for axis in gated.values}
    for value in model.graph.input:
        if value.name in names:
            value.type.tensor_type.ClearField("shape")
    return replace(gated, model=model)


def make_stack(
    view: View,
    gated: Gated,
    suffix: Suffix,
    trace: Trace,
    values: Callable[[Feeds], Feeds],
    feed: Feeds,
    count: int,
) -> Stack | None:
    """Prepare to run several cuts of a batch at once.

    Parameters
    ----------
    view : View
    gated : Gated
        Of `by_row`.
    suffix : Suffix
        Of that.
    trace : Trace
    values : callable
        Gives what the original computes from a feed.
    feed : mapping of input name to array
    count : int
        Cuts of one run.

    Returns
    -------
    Stack or None
        None where samples see one another before the gates, or the model takes one batch size
        only. Whether they do so behind the gates is for the caller to try.
    """
    samples = batch_size(feed)
    if any(len(array) != samples for array in feed.values()):
        return None
    try:
        many = values({name: np.concatenate([array] * count) for name, array in feed.items()})
    except RunFailedError:
        return None
    once, cache = suffix.cache(values(feed)), suffix.cache(many)

    def copied(name: str, array: Array) -> bool:
        return array.ndim > 0 and close(cache[name], np.concatenate([array] * count))

    if not all(close(cache[name], array) or copied(name, array) for name, array in once.items()):
        return None
    traced = _samples(view, trace)
    shapes = {
        axis: (shape[0] // traced * samples, *shape[1:]) for axis, shape in gated.values.items()
    }
    return Stack(count, suffix, cache, shapes)


def close(a: Array, b: Array) -> bool:
    """Say whether two arrays are the same but for rounding."""
    if a.shape != b.shape:
        return False
    x, y = (np.nan_to_num(np.asarray(array, np.float64)) for array in (a, b))
    return bool(np.abs(x - y).max(initial=0.0) <= _CLOSE * np.abs(y).max(initial=0.0))


def _samples(view: View, trace: Trace) -> int:
    return max((*trace.shapes[next(iter(view.inputs))], 1)[0], 1)
