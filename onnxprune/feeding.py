"""What a model is first run with: samples, a size for every dynamic axis, and feeds it runs on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from onnxprune.data.load import load_from_function, load_samples
from onnxprune.data.probes import OwnFeeds, RandomFeeds
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec, resolve_shapes
from onnxprune.data.synthetic import synthetic_samples
from onnxprune.errors import InputError
from onnxprune.model.load import Model
from onnxprune.model.view import View
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.rewrite.verify import is_comparable
from onnxprune.runtime.session import Feeds, RunFailedError, Session
from onnxprune.runtime.trace import Trace, trace

__all__ = ["DEADLINE", "Feeding", "Given", "look_first", "read_samples"]

DEADLINE = 120.0  # seconds for one run: an infinite Loop never ends by itself
# Of axes that nothing determines: the first that the model runs with. Detectors of images take
# multiples of 32 only, networks for sound some hundred numbers at least.
_SIZES = (16, 64, 256)
_MODERATE = 2**20  # elements of an input
Shapes = Mapping[str, tuple[int, ...]]


class Given(NamedTuple):
    """Samples, and the sizes that go with them.

    Attributes
    ----------
    samples : Samples
    shapes : mapping of input name to shape
        What costs and latency are stated for.
    size : int
        Of axes that nothing determines, batches apart.
    """

    samples: Samples
    shapes: Shapes
    size: int


@dataclass(frozen=True, slots=True)
class Feeding:
    """What a model is run with.

    Attributes
    ----------
    specs : sequence of InputSpec
    given : Given
    of : callable
        Makes a feed of given shapes, another one each time; None where there is none.
    plain : feed
        Of the given shapes.
    seen : Trace
        What running on ``plain`` shows.
    """

    specs: Sequence[InputSpec]
    given: Given
    of: Callable[[Shapes], Feeds | None]
    plain: Feeds
    seen: Trace

    def varied(self, view: View) -> tuple[list[Feeds], list[Trace]]:
        """Run the model at other sizes, on the first two feeds of such that it runs on."""
        feeds: list[Feeds] = []
        traces: list[Trace] = []
        for shapes in self._other_sizes():
            feed = self.of(shapes)
            seen = None if feed is None else _try(view, feed)[0]
            if feed is not None and seen is not None:
                feeds.append(feed)
                traces.append(seen)
            if len(feeds) == 2:
                break
        return feeds, traces

    def _other_sizes(self) -> Iterator[Shapes]:
        """A larger batch first, then other sizes everywhere; nothing for a model of fixed sizes."""
        seen = [dict(self.given.shapes)]
        for batch, scale in ((2, 1.0), (3, 2.0), (3, 0.5), (3, 1.0)):
            sizes = dict(self._scaled(batch, scale))
            if sizes not in seen:
                seen.append(sizes)
                yield sizes

    def _scaled(self, batch: int, scale: float) -> Shapes:
        dims: dict[str, int] = {}
        for spec in self.specs:
            for axis, size in enumerate(self.given.shapes[spec.name]):
                dim = spec.dim(axis)
                if isinstance(dim, str) and dim.isidentifier():
                    first = axis == spec.batch_axis
                    dims.setdefault(dim, max(batch, size) if first else max(2, int(size * scale)))
                    if first:
                        dims[dim] = max(batch, size)
        return resolve_shapes(
            self.specs,
            input_shapes={},
            dims=dims,
            samples=self.given.samples,
            batch=batch,
            other=int(self.given.size * scale),
        )


def look_first(
    model: Model, view: View, specs: Sequence[InputSpec], options: Options, progress: Progress
) -> Feeding:
    """Find out what a model runs with: random inputs, or the user's where those do not do.

    Raises
    ------
    InputError, UsageError
        If the data cannot be used, or the model runs on neither.
    """
    given = read_samples(model, specs, options)
    for note in () if given.samples.synthetic else given.samples.notes:
        progress.note(note)
    rng = np.random.default_rng(options.seed)
    of: Callable[[Shapes], Feeds | None] = RandomFeeds(model.proto, specs, rng).of
    plain = of(given.shapes)
    assert plain is not None
    seen, reason = _try(view, plain)
    if not given.samples.synthetic:
        if seen is not None and not is_comparable(view, seen, plain):
            seen, reason = None, "an output has no finite value"
        if seen is None:
            of = OwnFeeds(given.samples).of
            plain = of(given.shapes) or plain
            progress.note(f"looked at with samples of the data: on random inputs, {reason}")
            seen, reason = _try(view, plain)
    if seen is None:
        raise _rejected(model, plain, reason, synthetic=given.samples.synthetic)
    return Feeding(specs, given, of, plain, seen)


def read_samples(model: Model, specs: Sequence[InputSpec], options: Options) -> Given:
    """Read the calibration data, or make some up; and give every dynamic axis a size.

    Raises
    ------
    InputError, UsageError
        If the data cannot be used, or contradicts the options or the model.
    """
    samples = None
    if options.loader is not None:
        samples = load_from_function(options.loader, specs, limit=options.samples)
    elif options.data is not None:
        samples = load_samples(options.data, specs, limit=options.samples, seed=options.seed)

    def shapes(size: int) -> dict[str, tuple[int, ...]]:
        stated, dims = options.input_shapes, options.dims
        return resolve_shapes(specs, input_shapes=stated, dims=dims, samples=samples, other=size)

    def made_up(size: int) -> Given:
        count, sizes = min(options.samples, 64), shapes(size)
        made = synthetic_samples(model.proto, specs, sizes, count=count, seed=options.seed)
        return Given(made, sizes, size)

    least, *larger = _SIZES
    if samples is not None:
        return Given(samples, shapes(least), least)
    first = made_up(least)
    if first.shapes == shapes(least + 1) or _runs(model, first):
        return first
    tried = (made_up(size) for size in larger if _is_moderate(shapes, size))
    return next((given for given in tried if _runs(model, given)), first)


def _is_moderate(shapes: Callable[[int], Shapes], size: int) -> bool:
    """Whether inputs of a size nobody asked for are small enough to try."""
    try:
        return all(prod(shape) <= _MODERATE for shape in shapes(size).values())
    except InputError:
        return False


def _runs(model: Model, given: Given) -> bool:
    try:
        Session(model.runnable).run(next(given.samples.feeds([0], 1)), deadline=DEADLINE)
    except RunFailedError:
        return False
    return True


def _try(view: View, feed: Feeds) -> tuple[Trace | None, str]:
    """Trace one feed; None and the reason where the model does not run on it."""
    try:
        return trace(view, feed, deadline=DEADLINE), ""
    except RunFailedError as error:
        return None, str(error)


def _rejected(model: Model, feed: Feeds, reason: str, *, synthetic: bool) -> InputError:
    """A model that does not run is rejected before anything else is tried."""
    if not model.proto.graph.node:
        return InputError(f"{model.path} holds no operators: there is nothing to run or to prune")
    try:
        session = Session(model.runnable)
    except RunFailedError as plain:
        return InputError(f"{model.path}: onnxruntime cannot run this model: {plain}")
    try:
        session.run(feed, deadline=DEADLINE)
    except RunFailedError as plain:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        inputs, mend = f"inputs of the shapes {shapes}", ""
        if synthetic:
            inputs, mend = f"made-up {inputs}", "; give --data, or sizes by --dim or --input-shape"
        msg = f"{model.path}: onnxruntime cannot run this model on {inputs}: {plain}{mend}"
        return InputError(msg)
    return InputError(f"{model.path}: onnxruntime cannot show this model's inner values: {reason}")
