"""What every command needs to know of a model before it decides anything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from onnxprune.coupling import Coupling, couple
from onnxprune.coupling.relations import Axis
from onnxprune.data.load import load_from_function, load_samples
from onnxprune.data.probes import OwnFeeds, RandomFeeds
from onnxprune.data.profiles import Profile, look
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec, input_specs, named_dims, resolve_shapes
from onnxprune.data.synthetic import random_feed, synthetic_samples
from onnxprune.errors import InputError
from onnxprune.layers.branches import StandIn, without
from onnxprune.model.cost import CostModel
from onnxprune.model.external import is_external
from onnxprune.model.functions import Expansion, expand
from onnxprune.model.load import Model, load
from onnxprune.model.order import in_order
from onnxprune.model.tensors import from_array, iter_tensors, to_array
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View, build_view
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.rewrite.native import runs_natively
from onnxprune.rewrite.verify import Verifier, is_comparable
from onnxprune.runtime.session import LARGEST_PROTO, Feeds, RunFailedError, Session
from onnxprune.runtime.trace import Trace, agree, trace

__all__ = ["Analysis", "analyse", "read_samples", "shorten"]

_DEADLINE = 120.0  # seconds for one run: an infinite Loop never ends by itself
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A model looked at from all sides.

    Attributes
    ----------
    model : Model
    expansion : Expansion
        The model with its functions written out: what is looked at, and cut.
    view : View
    specs : tuple of InputSpec
    samples : Samples
    shapes : mapping of input name to shape
        The sizes that costs and latency are stated for.
    traces : tuple of Trace
        At most two, at other sizes than ``shapes`` where the model allows it (the first with a
        larger batch only); the first is what positions are counted in.
    stated : Trace
        At ``shapes``.
    costs : CostModel
        At ``shapes``.
    coupling : Coupling
    probes : tuple of Feeds
        Two random samples for verification; the user's where the model runs on no random ones.
    steps : mapping of Axis to int
        Widths that pay are multiples of these; empty where nobody asked.
    profiles : tuple of Profile
        At the sizes that the user wants to be timed; empty where nobody asked.
    longer : Analysis, optional
        The original, where residual branches of it are gone here.
    gone : tuple of StandIn
        These branches.
    """

    model: Model
    expansion: Expansion
    view: View
    specs: tuple[InputSpec, ...]
    samples: Samples
    shapes: Shapes
    traces: tuple[Trace, ...]
    stated: Trace
    costs: CostModel
    coupling: Coupling
    probes: tuple[Feeds, ...]
    steps: Mapping[Axis, int] = field(default_factory=dict)
    profiles: tuple[Profile, ...] = ()
    longer: "Analysis | None" = None
    gone: tuple[StandIn, ...] = ()

    @property
    def original(self) -> "Analysis":
        """The model that the user gave, with all of its branches."""
        return self.longer or self

    @cached_property
    def verifier(self) -> Verifier:
        """The masked original, ready to be compared with cuts."""
        return Verifier(self.view, self.traces[0], self.coupling, self.probes)

    @cached_property
    def native(self) -> bool:
        """Whether onnxruntime runs the model in its own types."""
        return self.view.real is self.view.model or runs_natively(self.view, self.probes[0])

    def runnable(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return what can be run of a model or its cuts: the fp32 clone where that alone can."""
        return model if self.native else upcast(model)

    def stated_feed(self) -> Feeds:
        """Return one feed at the stated sizes: a real sample where it has them."""
        example = self.samples.example()
        if all(example[name].shape == shape for name, shape in self.shapes.items()):
            return example
        return random_feed(self.model.proto, self.specs, self.shapes, np.random.default_rng(0))

    def timed_at(self) -> tuple[Profile, ...]:
        """Return what is timed: the profiles, or the stated sizes."""
        return self.profiles or (Profile(self.dims, self.stated_feed(), self.stated),)

    @property
    def dims(self) -> dict[str, int]:
        """Sizes that the dynamic axes were given."""
        return named_dims(self.specs, self.shapes)


def analyse(source: Path | onnx.ModelProto, options: Options, progress: Progress) -> Analysis:
    """Load a model, run it, and find what can be cut.

    Parameters
    ----------
    source : Path or ModelProto
    options : Options
    progress : Progress

    Returns
    -------
    Analysis

    Raises
    ------
    InputError
        If the model or the data cannot be used.
    UsageError
        If the options contradict the model.
    """
    progress.stage("load")
    model = load(source)
    specs = input_specs(model.proto)
    samples, shapes = read_samples(model, specs, options)
    for note in () if samples.synthetic else samples.notes:
        progress.note(note)
    expansion = expand(in_order(_embedded(model)))
    view = build_view(expansion.model, model.path)
    progress.stage("couple")
    chance = RandomFeeds(model.proto, specs, np.random.default_rng(options.seed))
    feeds: Callable[[Shapes], Feeds | None] = chance.of
    plain = chance.of(shapes)
    first, reason = _try(view, plain)
    if first is not None and not samples.synthetic and not is_comparable(view, first, plain):
        first, reason = None, "an output has no finite value"
    if first is None and not samples.synthetic:
        feeds = OwnFeeds(samples).of
        plain = feeds(shapes) or plain
        progress.note(f"looked at with samples of the data: on random inputs, {reason}")
        first, reason = _try(view, plain)
    if first is None:
        raise _rejected(model, plain, reason, synthetic=samples.synthetic)
    others = [feeds(s) for s in _other_sizes(specs, shapes, samples)]
    found = list(_further_traces(view, [feed for feed in others if feed is not None]))
    probes = (*(probe for probe, _ in found), plain, feeds(shapes) or plain)[:2]
    traces = agree([seen for _, seen in found] or [first])
    coupling = couple(view, traces[0], change_interface=options.allow_interface_change)
    return Analysis(
        model=model,
        expansion=expansion,
        view=view,
        specs=specs,
        samples=samples,
        shapes=shapes,
        traces=traces,
        stated=first,
        costs=CostModel(view, first),
        coupling=coupling,
        probes=probes,
        profiles=look(view, model.proto, specs, samples, shapes, options.profiles, _DEADLINE),
    )


def shorten(found: Analysis, gone: Sequence[StandIn], *, change_interface: bool) -> Analysis:
    """Look at a model anew without some residual branches.

    Parameters
    ----------
    found : Analysis
        Of the original, without functions.
    gone : sequence of StandIn
    change_interface : bool
        As when the original was looked at.

    Returns
    -------
    Analysis
        With the original as what layers are refitted to; ``found`` itself where nothing goes.
    """
    if not gone:
        return found
    model = without(found.view.model, gone)
    view = build_view(model, found.view.base)
    traces = agree([trace(view, feed) for feed in found.probes[: len(found.traces)]])
    stated = trace(view, found.stated_feed())
    return replace(
        found,
        expansion=replace(found.expansion, model=model),
        view=view,
        traces=traces,
        stated=stated,
        costs=CostModel(view, stated),
        coupling=couple(view, traces[0], change_interface=change_interface),
        longer=found,
        gone=tuple(gone),
    )


def _embedded(model: Model) -> onnx.ModelProto:
    """Take external data into memory: sessions made of edited models have no folder to look in.

    Raises
    ------
    InputError
        If that is more than protobuf can hold.
    """
    if not any(is_external(tensor) for tensor in iter_tensors(model.proto)):
        return model.proto
    if model.bytes > LARGEST_PROTO:
        msg = f"{model.path} holds {model.bytes / 1e9:.1f} GB; models over 1.9 GB cannot be cut yet"
        raise InputError(msg)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in iter_tensors(proto):
        if is_external(tensor):
            tensor.CopyFrom(from_array(to_array(tensor, model.path), tensor))
    return proto


def read_samples(
    model: Model, specs: Sequence[InputSpec], options: Options
) -> tuple[Samples, dict[str, tuple[int, ...]]]:
    """Read the calibration data, or make some up; and give every dynamic axis a size."""
    samples = None
    if options.loader is not None:
        samples = load_from_function(options.loader, specs, limit=options.samples)
    elif options.data is not None:
        samples = load_samples(options.data, specs, limit=options.samples, seed=options.seed)
    shapes = resolve_shapes(
        specs, input_shapes=options.input_shapes, dims=options.dims, samples=samples
    )
    if samples is None:
        count = min(options.samples, 64)
        samples = synthetic_samples(model.proto, specs, shapes, count=count, seed=options.seed)
    return samples, shapes


def _other_sizes(specs: Sequence[InputSpec], shapes: Shapes, samples: Samples) -> Iterator[Shapes]:
    """A larger batch first, then other sizes everywhere; nothing for a model of fixed sizes."""
    seen = [dict(shapes)]
    for batch, scale in ((2, 1.0), (3, 2.0), (3, 0.5), (3, 1.0)):
        sizes = dict(_varied(specs, shapes, samples, batch, scale))
        if sizes not in seen:
            seen.append(sizes)
            yield sizes


def _varied(
    specs: Sequence[InputSpec], shapes: Shapes, samples: Samples, batch: int, scale: float
) -> Shapes:
    dims: dict[str, int] = {}
    for spec in specs:
        for axis, size in enumerate(shapes[spec.name]):
            dim = spec.dim(axis)
            if isinstance(dim, str) and dim.isidentifier():
                first = axis == spec.batch_axis
                dims.setdefault(dim, max(batch, size) if first else max(2, int(size * scale)))
                if first:
                    dims[dim] = max(batch, size)
    return resolve_shapes(
        specs, input_shapes={}, dims=dims, samples=samples, batch=batch, other=int(16 * scale)
    )


def _try(view: View, feed: Feeds) -> tuple[Trace | None, str]:
    """Trace one feed; None and the reason where the model does not run on it."""
    try:
        return trace(view, feed, deadline=_DEADLINE), ""
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
        session.run(feed, deadline=_DEADLINE)
    except RunFailedError as plain:
        given = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        inputs, mend = f"inputs of the shapes {given}", ""
        if synthetic:
            inputs, mend = f"made-up {inputs}", "; give --data, or sizes by --dim or --input-shape"
        msg = f"{model.path}: onnxruntime cannot run this model on {inputs}: {plain}{mend}"
        return InputError(msg)
    return InputError(f"{model.path}: onnxruntime cannot show this model's inner values: {reason}")


def _further_traces(view: View, feeds: Sequence[Feeds]) -> Iterator[tuple[Feeds, Trace]]:
    """Trace the first two feeds that the model runs on."""
    count = 0
    for feed in feeds:
        if count == 2:
            return
        try:
            seen = trace(view, feed, deadline=_DEADLINE)
        except RunFailedError:
            continue  # sizes that the user did not ask for need not work
        count += 1
        yield feed, seen
