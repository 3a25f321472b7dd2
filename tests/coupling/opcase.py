"""Single-operator models, and what the law must find on them."""

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

Array = NDArray[np.generic]
_VERSIONS = {"ai.onnx.ml": 5}


@dataclass(frozen=True)
class X:
    """A graph input with random elements; ``kind`` says from which range."""

    shape: tuple[int, ...]
    kind: str = "f"


@dataclass(frozen=True)
class W(X):
    """An initializer with random elements."""


@dataclass(frozen=True)
class P(X):
    """A graph input that says how, not what: its axes are no channels."""


@dataclass(frozen=True, eq=False)
class K:
    """An initializer with given elements; a Constant node if ``node``."""

    value: object
    dtype: str = "int64"
    node: bool = False

    def array(self) -> Array:
        return np.asarray(self.value, self.dtype)

    def tensor(self, name: str) -> onnx.TensorProto:
        """Return the elements as a tensor attribute."""
        return numpy_helper.from_array(self.array(), name)


Input = X | K | None


@dataclass(frozen=True, eq=False)
class OpCase:
    """One operator, and which of its axes can be cut.

    Attributes
    ----------
    op, note : str
        ``note`` tells the variants of an operator apart.
    inputs : mapping of one-letter name to input
        In the order of the slots; None where absent, the same letter in ``repeat`` twice.
    cut : str
        Every axis that can be cut, as in ``x01 w0``; every other axis of size > 1 is frozen.
    why : mapping of axes (as in ``cut``) to text
        Words of the reasons of frozen axes.
    refused : mapping of axes to text
        Axes of ``cut`` that the rewrite refuses to cut, with words of its refusal; axes "" for a
        refusal of some cuts only.
    skip : mapping of judge to reason
        A judge (``reference`` or ``onnxruntime``) that does not implement the operator.
    dtype : str
        Element type of outputs that onnx cannot infer; one for all, or one each.
    rounding : float
        Relative error that the operator's own rounding makes; its fp32 clone has none.
    version : int
        Of the domain; 0 for the newest.
    """

    op: str
    note: str
    inputs: Mapping[str, Input]
    attributes: Mapping[str, object] = field(default_factory=dict)
    cut: str = ""
    why: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    outputs: str = "y"
    opset: int = 18
    domain: str = ""
    slots: str = ""
    skip: Mapping[str, str] = field(default_factory=dict)
    dtype: str = "float32"
    rounding: float = 1e-4
    version: int = 0

    def __str__(self) -> str:
        return f"{self.op}-{self.note}" if self.note else self.op

    def rng(self) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(str(self).encode()))


def parse_axes(text: str) -> set[tuple[str, int]]:
    """Read ``x01 w0`` as {(x, 0), (x, 1), (w, 0)}."""
    return {(word[0], int(digit)) for word in text.split() for digit in word[1:]}


def make_model(case: OpCase) -> tuple[onnx.ModelProto, list[dict[str, Array]]]:
    """Return the model and two feeds."""
    rng = case.rng()
    nodes, initializers, feed, other = [], [], {}, {}
    for name, given in case.inputs.items():
        match given:
            case None:
                continue
            case K(node=True):
                tensor = numpy_helper.from_array(given.array(), name)
                nodes.append(helper.make_node("Constant", [], [name], value=tensor))
            case K():
                initializers.append(numpy_helper.from_array(given.array(), name))
            case W():
                initializers.append(numpy_helper.from_array(draw(rng, given), name))
            case X():
                feed[name], other[name] = draw(rng, given), draw(rng, given)
    slots = case.slots or "".join(case.inputs)
    names = [name if case.inputs.get(name) is not None else "" for name in slots]
    outputs = ["" if name == "_" else name for name in case.outputs]
    nodes.append(
        helper.make_node(
            case.op, names, outputs, name="op", domain=case.domain, **dict(case.attributes)
        )
    )
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in feed.items()
    ]
    graph = helper.make_graph(
        nodes, "law", inputs, [onnx.ValueInfoProto(name=o) for o in outputs if o], initializers
    )
    opsets = [helper.make_opsetid("", case.opset)]
    if case.domain:
        opsets.append(
            helper.make_opsetid(case.domain, case.version or _VERSIONS.get(case.domain, 1))
        )
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return _with_output_types(model, case.dtype), [feed, other]


def _with_output_types(model: onnx.ModelProto, dtype: str) -> onnx.ModelProto:
    """Give outputs an element type only: their shapes are what the cut changes."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in dtype.split()]
    pairs = zip(model.graph.output, inferred.graph.output, strict=True)
    for (output, found), given in zip(pairs, itertools.cycle(kinds), strict=False):
        kind = found.type.tensor_type.elem_type or given
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, None))
    return model


def draw(rng: np.random.Generator, given: X) -> Array:
    """Draw elements of a kind.

    f normal, d the same in float64, n with NaN, o with infinities, + positive, - negative,
    u in (-0.9, 0.9), p in (0, 1), g above 1, i, j and 8 integers, 1 and 5 that number, 2 and 4 that
    number in int32, O zero in float32, b truth values, t text; of quantized tensors s scales, z and
    B bytes (few and all), q signed bytes, h signed halves of words, 0 no zero point, I biases.
    """
    normal = rng.standard_normal(given.shape).astype(np.float32)
    uniform = rng.random(given.shape, np.float32)
    return {
        "f": lambda: normal,
        "+": lambda: uniform + np.float32(0.5),
        "-": lambda: np.float32(-0.5) - uniform,
        "u": lambda: uniform * np.float32(1.8) - np.float32(0.9),
        "p": lambda: uniform,
        "g": lambda: uniform + np.float32(1.1),
        "i": lambda: rng.integers(1, 6, given.shape),
        "j": lambda: rng.integers(1, 5, given.shape).astype(np.int32),
        "8": lambda: rng.integers(1, 6, given.shape).astype(np.uint8),
        "4": lambda: np.full(given.shape, 4, np.int32),
        "2": lambda: np.full(given.shape, 2, np.int32),
        "1": lambda: np.full(given.shape, 1),
        "5": lambda: np.full(given.shape, 5),
        "O": lambda: np.zeros(given.shape, np.float32),
        "b": lambda: uniform > np.float32(0.5),
        "t": lambda: np.array(["a", "b", "ab", "ac", "c"])[rng.integers(0, 5, given.shape)].astype(
            object
        ),
        "d": lambda: normal.astype(np.float64),
        "s": lambda: uniform * np.float32(0.1) + np.float32(0.02),
        "z": lambda: rng.integers(0, 10, given.shape).astype(np.uint8),
        "B": lambda: rng.integers(0, 256, given.shape).astype(np.uint8),
        "q": lambda: rng.integers(-20, 20, given.shape).astype(np.int8),
        "h": lambda: rng.integers(-90, 90, given.shape).astype(np.int16),
        "0": lambda: np.zeros(given.shape, np.int8),
        "I": lambda: rng.integers(-90, 90, given.shape).astype(np.int32),
        "n": lambda: np.where(normal > 0.7, np.float32(np.nan), normal),
        "o": lambda: np.where(normal > 0.7, np.float32(np.inf), normal),
    }[given.kind]()
