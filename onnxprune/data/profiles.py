"""Shape profiles: the sizes at which a model has to be fast, each with what it is fed then."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.data.probes import OwnFeeds
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec, named_dims, resolve_shapes
from onnxprune.data.synthetic import random_feed
from onnxprune.errors import UsageError
from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, RunFailedError
from onnxprune.runtime.trace import Trace, trace

__all__ = ["Profile", "feeds_at", "look", "said"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Profile:
    """A model at some sizes.

    Attributes
    ----------
    dims : mapping of dimension name to size
    feed : Feeds
    stated : Trace
        Of this feed.
    """

    dims: Mapping[str, int]
    feed: Feeds
    stated: Trace


def look(
    view: View,
    model: onnx.ModelProto,
    specs: Sequence[InputSpec],
    samples: Samples,
    shapes: Shapes,
    profiles: Sequence[Mapping[str, int]],
    deadline: float,
) -> tuple[Profile, ...]:
    """Run a model at the sizes of every profile.

    Parameters
    ----------
    view : View
    model : ModelProto
    specs : sequence of InputSpec
    samples : Samples
    shapes : mapping of input name to shape
        What profiles leave open.
    profiles : sequence of mapping of dimension name to size
    deadline : float
        Seconds that one run may take.

    Raises
    ------
    UsageError
        If a profile names no dimension of the model, or the model does not run at its sizes.
    """
    found = []
    for profile in profiles:
        sizes, (feed,) = feeds_at(model, specs, samples, shapes, profile, 1)
        try:
            stated = trace(view, feed, deadline=deadline)
        except RunFailedError as error:
            msg = f"--profile {said(profile)}: the model does not run at these sizes: {error}"
            raise UsageError(msg) from error
        found.append(Profile(named_dims(specs, sizes), feed, stated))
    return tuple(found)


def feeds_at(
    model: onnx.ModelProto,
    specs: Sequence[InputSpec],
    samples: Samples,
    shapes: Shapes,
    profile: Mapping[str, int],
    count: int,
) -> tuple[dict[str, tuple[int, ...]], list[Feeds]]:
    """Return a profile's shapes, and feeds of them: samples where they fit, else random ones.

    Raises
    ------
    UsageError
        If a profile names no dimension of the model.
    """
    plain = named_dims(specs, shapes)
    # Sums of other dimensions follow from these.
    kept = {name: size for name, size in plain.items() if "[" in name or name.isidentifier()}
    sizes = resolve_shapes(specs, input_shapes={}, dims={**kept, **profile}, samples=None)
    own, rng = OwnFeeds(samples), np.random.default_rng(0)
    feeds = [own.of(sizes) or random_feed(model, specs, sizes, rng) for _ in range(count)]
    return sizes, feeds


def said(profile: Mapping[str, int]) -> str:
    """Write a profile as the command line takes it."""
    return ",".join(f"{name}={size}" for name, size in profile.items())
