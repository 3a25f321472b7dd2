"""One run with every intermediate value looked at: true shapes, and the small values."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session

__all__ = ["Trace", "trace"]

_SMALL = 1024  # elements; shapes, paddings and position numbers are smaller, activations larger


@dataclass(frozen=True, slots=True)
class Trace:
    """What one run shows.

    Attributes
    ----------
    shapes : mapping of value name to shape
        Of every tensor of the view, constants included.
    dtypes : mapping of value name to dtype
    values : mapping of value name to array
        Values of at most 1,024 elements.
    """

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, np.dtype[np.generic]]
    values: Mapping[str, NDArray[np.generic]]


def trace(view: View, feed: Feeds, *, deadline: float | None = None) -> Trace:
    """Run a model once and record every value's shape.

    Declared shapes are not trusted: exporters write wrong ones, and optimizers leave stale ones.

    Parameters
    ----------
    view : View
    feed : mapping of input name to array
    deadline : float, optional
        Seconds after which the run is given up.

    Returns
    -------
    Trace

    Raises
    ------
    RunFailedError
        If onnxruntime cannot load or run the model.
    """
    model = onnx.ModelProto()
    model.CopyFrom(view.model)
    del model.graph.output[:]
    names = [value for node in view.nodes for value in node.outputs if value]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = Session(model, optimize=False)
    found = session.run(feed, names, deadline=deadline)
    shapes = {name: tuple(np.shape(array)) for name, array in feed.items()}
    dtypes = {name: array.dtype for name, array in feed.items()}
    values: dict[str, NDArray[np.generic]] = {}
    for name, array in found.items():
        if not hasattr(array, "dtype"):
            continue  # sequences, maps and optionals have no axes
        shapes[name], dtypes[name] = array.shape, array.dtype
        if array.size <= _SMALL:
            values[name] = array
    for name in view.uses:
        array = view.constant(name)
        shapes[name], dtypes[name] = array.shape, array.dtype
        if array.size <= _SMALL:
            values[name] = array
    return Trace(shapes, dtypes, values)
