"""The derivative while it is written down: nodes that a forward and a backward model are made of.

What does not depend on a cotangent (masks, derivatives of activations, statistics) is put behind
the original and computed once; only the rest runs again for every cotangent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model.view import View
from onnxprune.runtime.session import Feeds, Session, keep_outputs, with_outputs
from onnxprune.runtime.trace import Trace

__all__ = ["Tape", "UnsupportedError"]

Array = NDArray[np.generic]
_OPSET = 17  # of the backward model, whatever the original has


class UnsupportedError(Exception):
    """A rule cannot say what the derivative of this use of its operator is."""


class Tape:
    """Writes nodes and knows which of them depend on a cotangent.

    Parameters
    ----------
    view : View
    trace : Trace
        Of a run with the same sizes as the samples on all axes but the batch.
    feed : mapping of input name to array
        Any; values made of constants alone are computed with it.
    """

    def __init__(self, view: View, trace: Trace, feed: Feeds) -> None:
        self.view, self.trace = view, trace
        self._feed = feed
        self._early: list[onnx.NodeProto] = []
        self._late: list[onnx.NodeProto] = []
        self._dependent: set[str] = set()
        self._constants: dict[str, Array] = {}
        self._known: dict[tuple[object, ...], tuple[str, ...]] = {}
        self._scaled: dict[str, tuple[str, NDArray[np.float64]]] = {}
        self._folded: dict[str, Array] = {}
        double = any(trace.dtypes.get(name) == np.float64 for name in view.outputs)
        self.dtype: np.dtype[np.generic] = np.dtype(np.float64 if double else np.float32)

    def cotangent(self, name: str) -> str:
        """Declare an input of the backward model."""
        self._dependent.add(name)
        return name

    def const(self, array: object) -> str:
        """Add a constant; floats take the precision of the model that reads them."""
        given = np.asarray(array)
        name = f"onnxprune/vjp/c{len(self._constants)}"
        key = ("const", given.dtype.str, given.shape, given.tobytes() if given.size < 99 else name)
        if key not in self._known:
            self._known[key] = (name,)
            self._constants[name] = given
        return self._known[key][0]

    def op(self, op_type: str, *inputs: str, late: bool = False, **attributes: object) -> str:
        """Add a node with one output."""
        return self.ops(1, op_type, *inputs, late=late, **attributes)[0]

    def ops(
        self, count: int, op_type: str, *inputs: str, late: bool = False, **attributes: object
    ) -> tuple[str, ...]:
        """Add a node, or find the same one again.

        Parameters
        ----------
        count : int
            Outputs.
        op_type : str
        *inputs : str
            Values of the view or of the tape.
        late : bool
            Compute it anew for every cotangent though it depends on none: casts of masks are
            cheaper than keeping them as floats.
        **attributes
            Of the operator; None is left out.

        Returns
        -------
        tuple of str
        """
        late = late or any(name in self._dependent for name in inputs)
        names = [self._read(name, late) for name in inputs]
        settings = tuple((k, repr(v)) for k, v in sorted(attributes.items()) if k != "body")
        key = (op_type, count, *names, settings)
        if key not in self._known:
            number = len(self._early) + len(self._late)
            outputs = tuple(f"onnxprune/vjp/{number}.{i}" for i in range(count))
            given: dict[str, Any] = {k: v for k, v in attributes.items() if v is not None}
            node = helper.make_node(op_type, names, outputs, **given)
            (self._late if late else self._early).append(node)
            if late:
                self._dependent.update(outputs)
            self._known[key] = outputs
        return self._known[key]

    def _read(self, name: str, late: bool) -> str:
        if name in self._constants or not self.view.is_constant(name):
            return name
        return self.const(self.array(name)) if late else self.view.original(name)

    def array(self, value: str) -> Array:
        """Return a value that is made of constants alone.

        Raises
        ------
        UnsupportedError
            If it depends on the inputs.
        """
        if value in self._constants:
            return self._constants[value]
        if self.view.is_constant(value):
            return self.view.constant(value)
        if value not in self._folded:
            pruned = with_outputs(self.view.real, [value])
            needed = {name for node in pruned.graph.node for name in node.input}
            if needed.intersection(self.view.inputs):
                msg = f"{value} is not constant"
                raise UnsupportedError(msg)
            self._folded[value] = Session(pruned).run(self._feed, [value])[value]
        return self._folded[value]

    def shape(self, value: str) -> str:
        """Return the run-time shape of a value."""
        return self.op("Shape", value)

    def reduce(self, op_type: str, x: str, axes: Sequence[int], *, keepdims: bool = True) -> str:
        """Reduce over axes, in the spelling of the opset of the model that it lands in."""
        if not axes:
            return x
        opset = _OPSET if x in self._dependent else self.view.opset
        keep = int(keepdims)
        if opset >= (13 if op_type == "ReduceSum" else 18):
            given = self.const(np.asarray(axes, np.int64))
            return self.op(op_type, x, given, keepdims=keep)
        return self.op(op_type, x, axes=[int(a) for a in axes], keepdims=keep)

    def reshape(self, x: str, shape: str | Sequence[int]) -> str:
        """Reshape to a constant shape or to a run-time one."""
        target = shape if isinstance(shape, str) else self.const(np.asarray(shape, np.int64))
        return self.op("Reshape", x, target)

    def transpose(self, x: str, perm: Sequence[int]) -> str:
        """Transpose, unless there is nothing to do."""
        order = [int(p) for p in perm]
        return x if order == list(range(len(order))) else self.op("Transpose", x, perm=order)

    def masked(self, gradient: str, mask: str) -> str:
        """Multiply a gradient with a bool mask."""
        to = helper.np_dtype_to_tensor_dtype(self.dtype)
        return self.op("Mul", gradient, self.op("Cast", mask, to=to, late=True))

    def scaled(self, gradient: str, factors: NDArray[np.float64], rank: int) -> str:
        """Multiply with a factor per channel of axis 1; convolutions take it into the weight."""
        shaped = factors.reshape(-1, *[1] * (rank - 2))
        name = self.op("Mul", gradient, self.const(shaped))
        self._scaled[name] = (gradient, factors)
        return name

    def unscaled(self, gradient: str) -> tuple[str, NDArray[np.float64] | None]:
        """Return a gradient before its factors per channel, and the factors."""
        return self._scaled.get(gradient, (gradient, None))

    def total(self, terms: Sequence[str]) -> str:
        """Add up gradients."""
        return terms[0] if len(terms) == 1 else self.op("Sum", *terms)

    def forward(self, outputs: Sequence[str], crossing: Sequence[str]) -> onnx.ModelProto:
        """Return the original with what the backward model reads as outputs."""
        model = onnx.ModelProto()
        model.CopyFrom(self.view.real)
        del model.graph.value_info[:]
        model.graph.node.extend(self._early)
        model.graph.initializer.extend(self._tensors(self._early))
        keep_outputs(model, list(dict.fromkeys([*outputs, *crossing])))
        return model

    def crossing(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Return the values that the backward model reads besides cotangents."""
        made = {o for node in self._late for o in node.output} | set(self._constants)
        found = (n for node in self._needed(wanted) for n in node.input)
        read = dict.fromkeys([*found, *wanted])
        return tuple(n for n in read if n and n not in made and n not in self._dependent)

    def backward(
        self, wanted: Sequence[str], inputs: Mapping[str, np.dtype[np.generic]]
    ) -> onnx.ModelProto:
        """Return the model from cotangents and crossing values to what is wanted.

        Parameters
        ----------
        wanted : sequence of str
        inputs : mapping of name to dtype
            Cotangents and crossing values.

        Returns
        -------
        ModelProto
        """
        nodes = self._needed(wanted)
        given = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(d), None)
            for n, d in inputs.items()
        ]
        graph = helper.make_graph(
            nodes,
            "backward",
            given,
            [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted)],
            self._tensors(nodes),
        )
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)

    def _needed(self, wanted: Sequence[str]) -> list[onnx.NodeProto]:
        needed, kept = set(wanted), []
        for node in reversed(self._late):
            if needed.intersection(node.output):
                kept.append(node)
                needed.update(node.input)
        return kept[::-1]

    def _tensors(self, nodes: Sequence[onnx.NodeProto]) -> list[TensorProto]:
        used = dict.fromkeys(n for node in nodes for n in node.input if n in self._constants)
        arrays = ((name, self._constants[name]) for name in used)
        return [
            numpy_helper.from_array(
                np.asarray(a, self.dtype if a.dtype.kind == "f" else a.dtype, order="C"), name
            )
            for name, a in arrays
        ]
