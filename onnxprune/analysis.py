"""What every command needs to know of a model before it decides anything."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from onnxprune.coupling import Coupling, couple
from onnxprune.coupling.relations import Axis
from onnxprune.data.profiles import Profile, look
from onnxprune.data.samples import Samples
from onnxprune.data.specs import InputSpec, input_specs, named_dims
from onnxprune.errors import InputError
from onnxprune.feeding import DEADLINE, look_first
from onnxprune.layers.branches import StandIn, without
from onnxprune.model.cost import CostModel
from onnxprune.model.direct import read_directly
from onnxprune.model.external import is_external
from onnxprune.model.files import LARGEST_PROTO
from onnxprune.model.functions import Expansion, expand
from onnxprune.model.load import Model, load
from onnxprune.model.order import in_order
from onnxprune.model.tensors import from_array, iter_tensors, to_array
from onnxprune.model.upcast import upcast
from onnxprune.model.view import View, build_view
from onnxprune.options import Options
from onnxprune.progress import Progress
from onnxprune.rewrite.native import runs_natively
from onnxprune.rewrite.verify import Verifier
from onnxprune.runtime.session import Feeds
from onnxprune.runtime.trace import Trace, agree, trace

__all__ = ["Analysis", "analyse", "shorten"]

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Analysis:
    """A model looked at from all sides.

    Attributes
    ----------
    model : Model
    expansion : Expansion
        The original with its functions written out: what is looked at, and cut.
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
    plain : Feeds
        One of ``shapes`` that the model is known to run on.
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
    plain: Feeds
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

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Bytes of every value that one sample makes; never empty."""
        first = next(iter(self.probes[0].values()))
        batch = max(*first.shape[:1], 1) if first.ndim else 1
        shapes = self.traces[0].shapes.items()
        made = [4 * int(np.prod(s)) // batch for v, s in shapes if not self.view.is_constant(v)]
        return tuple(made) or (0,)

    def stated_feed(self) -> Feeds:
        """Return one feed at the stated sizes: a real sample where it has them."""
        example = self.plain if self.samples.synthetic else self.samples.example()
        fits = all(example[name].shape == shape for name, shape in self.shapes.items())
        return example if fits else self.plain

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
    expansion = expand(read_directly(in_order(_embedded(model)), model.path))
    view = build_view(expansion.model, model.path)
    progress.stage("couple")
    feeding = look_first(model, view, specs, options, progress)
    given, plain = feeding.given, feeding.plain
    varied, traces = feeding.varied(view)
    probes = (*varied, plain, feeding.of(given.shapes) or plain)[:2]
    seen = agree(traces or [feeding.seen])
    coupling = couple(view, seen[0], change_interface=options.allow_interface_change)
    return Analysis(
        model=model,
        expansion=expansion,
        view=view,
        specs=specs,
        samples=given.samples,
        shapes=given.shapes,
        traces=seen,
        stated=feeding.seen,
        costs=CostModel(view, feeding.seen),
        coupling=coupling,
        probes=probes,
        plain=plain,
        profiles=look(view, model.proto, specs, *given[:2], options.profiles, DEADLINE),
    )


def shorten(found: Analysis, gone: Sequence[StandIn], *, change_interface: bool) -> Analysis:
    """Look at a model anew without some residual branches.

    Parameters
    ----------
    found : Analysis
        Of the original.
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
