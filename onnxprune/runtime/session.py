"""Sessions: the one place that talks to onnxruntime."""

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnxprune.errors import UsageError
from onnxprune.model.scopes import values_read
from onnxprune.runtime.threads import allowed
from onnxprune.runtime.weights import Weights, apart

__all__ = [
    "RUNTIME_VERSION",
    "Feeds",
    "RunFailedError",
    "Session",
    "TensorInfo",
    "available_providers",
    "batch_size",
    "check_provider",
    "keep_outputs",
    "with_outputs",
]

RUNTIME_VERSION: str = ort.__version__

Feeds = Mapping[str, NDArray[np.generic]]


class RunFailedError(Exception):
    """Onnxruntime could not load or run a model; the caller says what that means to the user."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A graph input or output as onnxruntime sees it.

    Attributes
    ----------
    name : str
    type : str
        Onnxruntime's own type name, such as ``tensor(float)``.
    shape : tuple of int, str or None
        Fixed sizes are ints, named dynamic axes are strings, nameless ones are ``None``.
    """

    name: str
    type: str
    shape: tuple[int | str | None, ...]


def batch_size(feed: Feeds) -> int:
    """Return how many samples a feed holds."""
    first = next(iter(feed.values()))
    return len(first) if first.ndim else 1


def available_providers() -> tuple[str, ...]:
    """Return the execution providers of this onnxruntime, best first."""
    return tuple(ort.get_available_providers())


def check_provider(provider: str) -> None:
    """Refuse a provider that this onnxruntime lacks, before anything takes time.

    Raises
    ------
    UsageError
    """
    if provider not in available_providers():
        names = ", ".join(available_providers())
        msg = f"onnxruntime has no provider '{provider}' here; it has {names}"
        raise UsageError(msg)


def with_outputs(
    model: onnx.ModelProto, names: Sequence[str], known: Feeds | None = None
) -> onnx.ModelProto:
    """Copy a model with other outputs, inner values included, and only the nodes they need.

    Onnxruntime infers the types of the new outputs, but would run nodes that nobody needs.

    Parameters
    ----------
    model : ModelProto
    names : sequence of str
        The outputs.
    known : mapping of value name to array, optional
        Inner values that are fed instead of computed.

    Returns
    -------
    ModelProto
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    keep_outputs(copy, names, known)
    return copy


def keep_outputs(model: onnx.ModelProto, names: Sequence[str], known: Feeds | None = None) -> None:
    """Give a model other outputs in place, as `with_outputs` does."""
    given = {output.name: output for output in model.graph.output}
    outputs = [given.get(name) or onnx.ValueInfoProto(name=name) for name in names]
    needed, kept = set(names), []
    for node in reversed(model.graph.node):
        if needed.difference(known or ()).intersection(node.output):
            kept.append(node)
            needed.update(values_read(node))
    nodes = kept[::-1]
    del model.graph.output[:], model.graph.node[:]
    model.graph.output.extend(outputs)
    model.graph.node.extend(nodes)
    if known is not None:
        _feed_inner(model.graph, needed, known)


def _feed_inner(graph: onnx.GraphProto, needed: set[str], known: Feeds) -> None:
    """Make the inputs of a graph just what its nodes need, of the given and the known values."""
    inputs = [value for value in graph.input if value.name in needed]
    sizes, values = _sizes(graph), _attended(graph)
    for name in sorted(needed.intersection(known).difference(v.name for v in inputs)):
        array = known[name]
        kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
        shape = array.shape if name in sizes and array.ndim == 1 else (None,) * array.ndim
        if name in values:
            shape = (*shape[:-1], array.shape[-1])
        inputs.append(onnx.helper.make_tensor_value_info(name, kind, shape))
    del graph.input[:]
    graph.input.extend(inputs)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _sizes(graph: onnx.GraphProto) -> set[str]:
    """Return what the sizes of a Resize are made of: onnxruntime must know how many they are."""
    found: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type == "Resize":
            found.update(node.input[1:])
        elif found.intersection(node.output):
            found.update(node.input)
    return found


def _attended(graph: onnx.GraphProto) -> set[str]:
    """Return the values of Attention: where their width is unknown, that of the output is wrong."""
    nodes = [node for node in graph.node if node.op_type == "Attention" and not node.domain]
    return {name for node in nodes for name in node.input[2:3]}


class Session:
    """An onnxruntime session that keeps its warnings off the screen and can be stopped.

    Parameters
    ----------
    model : ModelProto, bytes or Path
        A path is opened by onnxruntime itself, external data included.
    threads : int, optional
        Intra-op threads, by default as many as there are to be had. They do not spin: measuring
        processes share the machine with others.
    provider : str
        Execution provider, such as ``CPUExecutionProvider``.
    optimize : bool
        Off only to trace every intermediate value: convolutional nets run 2-4x slower without.

    Raises
    ------
    RunFailedError
        If onnxruntime cannot load the model.
    UsageError
        If this onnxruntime lacks the provider.
    """

    def __init__(
        self,
        model: onnx.ModelProto | bytes | Path,
        *,
        threads: int | None = None,
        provider: str = "CPUExecutionProvider",
        optimize: bool = True,
    ) -> None:
        check_provider(provider)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = allowed() if threads is None else threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        level = ort.GraphOptimizationLevel
        options.graph_optimization_level = (
            level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
        )
        self._weights: Weights = {}  # onnxruntime reads them as long as the session lives
        try:
            if isinstance(model, onnx.ModelProto):
                light, self._weights = apart(model)
                values = [ort.OrtValue.ortvalue_from_numpy(a) for a in self._weights.values()]
                options.add_external_initializers(list(self._weights), values)
                model = light.SerializeToString()
            self._session = _open(model, options, provider)
        except Exception as error:  # onnxruntime raises many unrelated types
            raise RunFailedError(_first_line(error)) from error
        self.inputs = tuple(_info(i) for i in self._session.get_inputs())
        self.outputs = tuple(_info(o) for o in self._session.get_outputs())

    def run(
        self,
        feeds: Feeds,
        outputs: Sequence[str] | None = None,
        *,
        deadline: float | None = None,
    ) -> dict[str, NDArray[np.generic]]:
        """Run once.

        Parameters
        ----------
        feeds : mapping of input name to array
        outputs : sequence of str, optional
            Names to compute; all graph outputs by default.
        deadline : float, optional
            Seconds after which the run is stopped (a hostile Loop never ends by itself).

        Returns
        -------
        dict of output name to array

        Raises
        ------
        RunFailedError
            If onnxruntime fails or the deadline passes.
        """
        names = list(outputs) if outputs is not None else [o.name for o in self.outputs]
        options = ort.RunOptions()
        options.log_severity_level = 4
        timer = None
        if deadline is not None:
            timer = threading.Timer(deadline, lambda: setattr(options, "terminate", True))
            timer.daemon = True
            timer.start()
        try:
            values = self._session.run(names, self.fitted(feeds), options)
        except Exception as error:  # onnxruntime raises many unrelated types
            if options.terminate:
                msg = f"still running after {deadline:g} s"
                raise RunFailedError(msg) from error
            raise RunFailedError(_first_line(error)) from error
        finally:
            if timer is not None:
                timer.cancel()
        return dict(zip(names, values, strict=True))

    def fitted(self, feeds: Feeds) -> dict[str, NDArray[np.generic]]:
        """Cast floats of other widths to what the model reads: clones read fp32."""
        floats = {i.name for i in self.inputs if i.type == "tensor(float)"}
        return {
            name: array.astype(np.float32)
            if name in floats and array.dtype.kind in "fV" and array.dtype != np.float32
            else array
            for name, array in feeds.items()
        }


def _open(model: bytes | Path, options: ort.SessionOptions, provider: str) -> ort.InferenceSession:
    if isinstance(model, Path):
        name = os.fsencode(model).decode()  # onnxruntime takes UTF-8, whatever the locale is
        return ort.InferenceSession(name, options, providers=[provider])
    return ort.InferenceSession(model, options, providers=[provider])


def _info(arg: ort.NodeArg) -> TensorInfo:
    return TensorInfo(arg.name, arg.type, tuple(arg.shape or ()))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
