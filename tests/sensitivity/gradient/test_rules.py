"""Every rule's gradient against central differences."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.sensitivity.gradient.rules import registered
from tests.sensitivity.gradient.differences import Double, Fine, Single, check, one_node


def normal(*shape, seed=1, scale=1.0):
    return np.random.default_rng(seed).standard_normal(shape) * scale


def positive(*shape, seed=1):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def ints(*values):
    return np.array(values, np.int64)


@dataclass(frozen=True)
class Case:
    op: str
    inputs: dict
    constants: dict = field(default_factory=dict)
    attributes: dict = field(default_factory=dict)
    opset: int = 17
    low: float = -2.0
    high: float = 2.0
    wanted: tuple = ()
    order: tuple = ()
    note: str = ""
    batch: str = "first"
    outputs: tuple = ("y",)
    read: tuple = ()
    by: type = Double

    def __str__(self):
        return f"{self.op}{self.opset}-{self.note}" if self.note else f"{self.op}{self.opset}"


X = {"x": (3, 4)}
MAPS = {"x": (3, 4, 6, 5)}
LINE = {"x": (3, 4, 9)}

UNARY = [
    *(Case(op, X) for op in (
        "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Selu", "Celu",
        "Softplus", "Softsign", "Exp", "Abs", "Sin", "Cos", "Neg", "Relu", "Identity",
        "ThresholdedRelu",
    )),
    Case("Mish", X, opset=18),
    *(Case(op, X, low=0.3) for op in ("Sqrt", "Log", "Reciprocal")),
    Case("Erf", X, by=Single),
    Case("Gelu", X, opset=20, by=Single),
    Case("Gelu", X, attributes={"approximate": "tanh"}, opset=20, note="tanh"),
    Case("Swish", X, attributes={"alpha": 1.3}, opset=24),
    Case("LeakyRelu", X, attributes={"alpha": 0.3}, note="alpha"),
    Case("Elu", X, attributes={"alpha": 0.7}, note="alpha"),
    Case("HardSigmoid", X, attributes={"alpha": 0.4, "beta": 0.3}, note="alpha"),
    Case("ThresholdedRelu", X, attributes={"alpha": -0.5}, note="alpha"),
    Case("Clip", X, {"low": np.float64(-1), "high": np.float64(0.5)}),
    Case("Clip", X, {"low": np.float64(0.5)}, note="low"),
    Case("Clip", X, {"high": np.float64(0.5)}, order=("x", "", "high"), note="high"),
    Case("Dropout", X),
    Case("Cast", X, attributes={"to": 11}),
]  # fmt: skip

TWO = [
    *(Case(op, {"a": (3, 4), "b": (3, 4)}) for op in ("Add", "Sub", "Mul", "Max", "Min", "Mean")),
    *(Case(op, {"a": (3, 4, 5), "b": (4, 1)}, note="stretched")
      for op in ("Add", "Sub", "Mul", "Max", "Mean", "Sum")),
    *(Case(op, {"a": (4, 1), "b": (3, 4, 5)}, note="stretched first") for op in ("Add", "Mul")),
    Case("Mul", {"x": (3, 4, 2, 2), "gate": (3, 4, 1, 1)}, note="squeeze-excite"),
    Case("Div", {"a": (3, 4), "b": (3, 1)}, low=0.5),
    Case("Div", {"a": (4,), "b": (3, 4)}, low=0.5, note="stretched"),
    Case("Sum", {"a": (3, 4), "b": (3, 4), "c": (3, 4)}, note="three"),
    Case("Sub", {"x": (3, 4)}, {"c": normal(3)[:1]}, order=("c", "x"), note="from a constant"),
    Case("Pow", X, {"p": np.float64(3)}),
    Case("Pow", X, {"p": np.float64(2)}, note="square"),
    Case("Pow", X, {"p": normal(4)}, low=0.5, note="fraction"),
    Case("Where", {"a": (3, 4), "b": (4,)}, {"c": np.array([True, False, True, False])},
         order=("c", "a", "b")),
    Case("PRelu", X, {"slope": normal(4)}),
    Case("PRelu", {"x": (3, 4, 5), "slope": (4, 1)}, note="gate"),
]  # fmt: skip

WEIGHTED = [
    Case("MatMul", X, {"w": normal(4, 5)}),
    Case("MatMul", {"x": (3, 6, 4)}, {"w": normal(4, 5)}, note="rows"),
    Case("MatMul", {"x": (3, 4, 6)}, {"w": normal(5, 4)}, order=("w", "x"), note="left constant"),
    Case("MatMul", {"a": (3, 2, 4, 6), "b": (3, 2, 6, 5)}, note="both"),
    Case("MatMul", {"a": (3, 2, 4, 6), "b": (2, 6, 5)}, note="broadcast right"),
    Case("MatMul", {"a": (4, 6), "b": (3, 6, 5)}, note="broadcast left"),
    Case("MatMul", {"a": (3, 1, 4, 6), "b": (3, 2, 6, 5)}, note="broadcast inside"),
    *(Case("Gemm", {"x": (4, 3) if a else (3, 4), "w": (5, 4) if b else (4, 5)},
           {"c": normal(5)}, {"transA": a, "transB": b, "alpha": 0.7}, note=f"{a}{b}",
           batch="second" if a else "first")
      for a in (0, 1) for b in (0, 1)),
    Case("Gemm", {"x": (3, 4), "c": (5,)}, {"w": normal(4, 5)}, {"beta": 0.3},
         order=("x", "w", "c"), note="bias"),
    Case("Einsum", {"a": (3, 4, 6), "b": (3, 6, 5)}, attributes={"equation": "bij,bjk->bik"}),
    Case("Einsum", {"a": (3, 4, 2, 6)}, {"w": normal(2, 6, 5)},
         {"equation": "bthd,hde->bte"}, note="heads"),
    Case("Conv", MAPS, {"w": normal(7, 4, 3, 3)}, {"pads": [1, 1, 1, 1]}),
    Case("Conv", MAPS, {"w": normal(7, 4, 1, 1), "b": normal(7)}, note="1x1"),
    Case("Conv", MAPS, {"w": normal(7, 4, 1, 1)}, {"strides": [2, 2]}, note="1x1 strided"),
    Case("Conv", MAPS, {"w": normal(7, 4, 3, 3)}, {"strides": [2, 2], "pads": [1, 1, 1, 1]},
         note="strided"),
    Case("Conv", MAPS, {"w": normal(7, 4, 3, 2)}, {"strides": [2, 3], "pads": [0, 1, 2, 0]},
         note="uneven"),
    Case("Conv", MAPS, {"w": normal(7, 4, 2, 2)}, {"strides": [3, 3]}, note="gaps"),
    Case("Conv", MAPS, {"w": normal(7, 4, 3, 3)}, {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
         note="dilated"),
    Case("Conv", MAPS, {"w": normal(4, 1, 3, 3)}, {"group": 4, "pads": [1, 1, 1, 1]},
         note="depthwise"),
    Case("Conv", MAPS, {"w": normal(8, 1, 3, 3)},
         {"group": 4, "pads": [1, 1, 1, 1], "strides": [2, 2]}, note="depthwise strided",
         by=Single),
    Case("Conv", MAPS, {"w": normal(6, 2, 3, 3)}, {"group": 2, "pads": [0, 1, 0, 1]},
         note="grouped"),
    Case("Conv", MAPS, {"w": normal(6, 4, 3, 3)}, {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
         note="same"),
    Case("Conv", MAPS, {"w": normal(6, 4, 2, 2)}, {"auto_pad": "SAME_LOWER"}, note="same lower"),
    Case("Conv", MAPS, {"w": normal(6, 4, 3, 3)}, {"pads": [3, 3, 3, 3]}, note="wide padding"),
    Case("Conv", LINE, {"w": normal(6, 4, 3)}, {"pads": [1, 1]}, note="1d"),
    Case("Conv", LINE, {"w": normal(6, 4, 3)}, {"pads": [1, 0], "strides": [2]}, note="1d strided"),
    Case("Conv", {"x": (3, 2, 4, 4, 3)}, {"w": normal(3, 2, 2, 2, 2)}, note="3d"),
    Case("ConvTranspose", MAPS, {"w": normal(4, 5, 3, 3)}),
    Case("ConvTranspose", MAPS, {"w": normal(4, 5, 3, 3)},
         {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, note="strided"),
    Case("ConvTranspose", MAPS, {"w": normal(4, 5, 2, 2)}, {"strides": [2, 2]}, note="2x2"),
    Case("ConvTranspose", LINE, {"w": normal(4, 5, 3)}, {"dilations": [2]}, note="1d dilated"),
]  # fmt: skip

NORMAL = [
    Case("BatchNormalization", MAPS,
         {"s": positive(4), "b": normal(4), "m": normal(4), "v": positive(4, seed=2)}),
    Case("BatchNormalization", X,
         {"s": positive(4), "b": normal(4), "m": normal(4), "v": positive(4)}, note="flat"),
    Case("LayerNormalization", {"x": (3, 5, 4)}, {"s": normal(4), "b": normal(4)}),
    Case("LayerNormalization", {"x": (3, 5, 4)}, {"s": normal(5, 4)}, {"axis": 1}, note="two axes"),
    Case("InstanceNormalization", MAPS, {"s": normal(4), "b": normal(4)}),
    Case("GroupNormalization", {"x": (3, 4, 5)}, {"s": normal(4), "b": normal(4)},
         {"num_groups": 2}, opset=21, by=Single),
    Case("LpNormalization", {"x": (3, 5, 4)}, attributes={"axis": 1, "p": 2}),
    Case("RMSNormalization", {"x": (3, 5, 4)}, {"s": normal(4)}, opset=23),
    Case("Softmax", {"x": (3, 5, 4)}),
    Case("Softmax", {"x": (3, 5, 4)}, attributes={"axis": 1}, note="inside"),
    Case("LogSoftmax", {"x": (3, 5, 4)}, attributes={"axis": 1}),
]  # fmt: skip

POOLED = [
    Case("GlobalAveragePool", MAPS),
    Case("GlobalMaxPool", MAPS),
    Case("MaxPool", MAPS, attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("MaxPool", {"x": (3, 2, 4, 4)}, attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
         note="overlapping", by=Fine),
    Case("MaxPool", MAPS,
         attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
         note="stem"),
    Case("AveragePool", MAPS, attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case("AveragePool", MAPS, attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
         note="padding left out"),
    Case("AveragePool", MAPS,
         attributes={"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
         note="padding counted"),
    Case("AveragePool", LINE, attributes={"kernel_shape": [3], "strides": [2]}, note="1d"),
    Case("AveragePool", LINE, attributes={"kernel_shape": [2], "strides": [2], "ceil_mode": 1},
         note="ceil"),
    Case("Resize", MAPS, {"s": np.array([1, 1, 2, 2], np.float32)},
         {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
         order=("x", "", "s")),
    Case("Resize", MAPS, {"n": ints(3, 4, 9, 7)}, {"mode": "linear"},
         order=("x", "", "", "n"), note="linear", batch="none"),
    Case("Resize", MAPS, {"s": np.array([1, 1, 1.5, 0.6], np.float32)},
         {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
         order=("x", "", "s"), note="cubic"),
    Case("Resize", {"x": (3, 4, 6)}, {"s": np.array([1, 2, 1], np.float32)},
         {"mode": "nearest"}, order=("x", "", "s"), note="inner axis"),
]  # fmt: skip

REDUCED = [
    *(Case(op, {"x": (3, 4, 5)}, {}, {"axes": [1], "keepdims": keep}, note=f"keep{keep}")
      for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare",
                 "ReduceL1") for keep in (0, 1)),
    Case("ReduceMean", MAPS, {}, {"axes": [2, 3]}, note="pooling"),
    Case("ReduceMean", {"x": (3, 4, 5)}, {"axes": ints(-1)}, opset=18),
    Case("ReduceSum", {"x": (3, 4, 5)}, {"axes": ints(0, 2)}, {"keepdims": 0}),
    Case("ReduceSum", {"x": (3, 4, 5)}, note="all"),
    Case("CumSum", {"x": (3, 4, 5)}, {"axis": ints(1)[0]}),
    Case("CumSum", {"x": (3, 4, 5)}, {"axis": ints(1)[0]}, {"exclusive": 1, "reverse": 1},
         note="reverse"),
]  # fmt: skip

MOVED = [
    Case("Reshape", {"x": (3, 4, 6)}, {"s": ints(0, 2, 12)}),
    Case("Flatten", MAPS),
    Case("Squeeze", {"x": (3, 1, 4)}, {"axes": ints(1)}),
    Case("Unsqueeze", X, {"axes": ints(1)}),
    Case("Transpose", {"x": (3, 4, 5)}, attributes={"perm": [0, 2, 1]}),
    Case("Transpose", {"x": (3, 4, 5)}, attributes={"perm": [1, 2, 0]}, note="turned"),
    Case("Concat", {"a": (3, 4, 5), "b": (3, 2, 5)}, attributes={"axis": 1}),
    Case("Concat", {"a": (2, 4)}, {"c": normal(2, 4)}, {"axis": 1}, order=("a", "c"), wanted=("a",),
         note="constant", batch="none"),
    Case("Split", {"x": (3, 6, 2)}, {"s": ints(1, 3, 2)}, {"axis": 1}, outputs=("y", "z", "w"),
         read=("y", "w")),
    Case("Split", {"x": (3, 6, 2)}, {}, {"axis": 1, "num_outputs": 2}, outputs=("y", "z"),
         opset=18, read=("z",), note="one is read"),
    Case("Slice", {"x": (3, 8, 5)}, {"s": ints(2), "e": ints(6), "a": ints(1)}),
    Case("Slice", {"x": (3, 8, 6)},
         {"s": ints(1, 0), "e": ints(8, 6), "a": ints(1, 2), "t": ints(3, 2)}, note="steps"),
    Case("Slice", {"x": (3, 8, 6)}, {"s": ints(-1), "e": ints(-99), "a": ints(2), "t": ints(-1)},
         note="reversed"),
    Case("Gather", {"x": (3, 6, 4)}, {"i": ints(0)[0]}, {"axis": 1}, note="class token"),
    Case("Gather", {"x": (3, 6, 4)}, {"i": ints(4, 1, 1, -1)}, {"axis": 1}),
    Case("Gather", {"x": (3, 6, 4)}, {"i": ints(4, 1, 1, 0).reshape(2, 2)}, {"axis": 1},
         note="table"),
    Case("Expand", {"x": (3, 4, 1)}, {"s": ints(1, 4, 5)}),
    Case("Expand", {"x": (4,)}, {"s": ints(3, 4)}, note="new axis"),
    Case("Tile", {"x": (3, 4, 2)}, {"r": ints(1, 2, 3)}),
    Case("Tile", {"x": (3, 4)}, {"r": ints(2, 1)}, note="batch", batch="none"),
    Case("Pad", {"x": (3, 4, 5)}, {"p": ints(0, 1, 2, 0, 3, 1)}),
    Case("Pad", {"x": (3, 4, 5)}, {"p": ints(0, 1, -2, 0, 0, 1)}, note="cropped", by=Single),
    Case("Pad", {"x": (3, 4, 5)}, {"p": ints(0, 1, 2, 0, 0, 3)}, {"mode": "reflect"},
         note="reflected"),
    Case("Pad", {"x": (3, 4, 5)}, {"p": ints(0, 0, 2, 0, 0, 1)}, {"mode": "edge"}, note="edge"),
    Case("DepthToSpace", {"x": (3, 8, 2, 3)}, attributes={"blocksize": 2}),
    Case("DepthToSpace", {"x": (3, 8, 2, 3)}, attributes={"blocksize": 2, "mode": "CRD"},
         note="CRD"),
    Case("SpaceToDepth", {"x": (3, 2, 4, 6)}, attributes={"blocksize": 2}),
]  # fmt: skip

CASES = [*UNARY, *TWO, *WEIGHTED, *NORMAL, *POOLED, *REDUCED, *MOVED]


def model_of(case):
    return one_node(
        case.op, case.inputs, case.constants, case.attributes,
        outputs=case.outputs, order=case.order, opset=case.opset, by=case.by,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_is_that_of_central_differences(case):
    check(
        model_of(case), case.inputs, wanted=case.wanted, low=case.low, high=case.high,
        batch=case.batch, outputs=case.read, by=case.by,
    )  # fmt: skip


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.mark.parametrize("read", [("y",), ("h",), ("y", "h")], ids="-".join)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "GRU-before", "RNN"])
def test_recurrent_gradient_is_that_of_central_differences(op, direction, read):
    name, *before = op.split("-")
    gates, ways = RECURRENT[name], 2 if direction == "bidirectional" else 1
    constants = {
        "w": normal(ways, gates * 3, 2, scale=0.7),
        "r": normal(ways, gates * 3, 3, seed=2, scale=0.7),
        "b": normal(ways, 2 * gates * 3, seed=3, scale=0.5),
    }
    attributes = {"hidden_size": 3, "direction": direction}
    if before:
        attributes["linear_before_reset"] = 1
    outputs = ["y" if "y" in read else "", "h" if "h" in read else ""]
    case = Case(name, {"x": (5, 3, 2)}, constants, attributes, outputs=tuple(outputs), by=Single)
    check(model_of(case), case.inputs, batch="second", outputs=read, by=Single)


def test_every_rule_is_tested():
    tested = {case.op for case in CASES} | set(RECURRENT)
    assert {op for _, op in registered()} - tested <= {"Upsample", "SimplifiedLayerNormalization"}


@given(
    size=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pad=st.tuples(*[st.integers(0, 2)] * 4),
    group=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=40, deadline=None)
def test_convolutions_of_random_geometry(size, kernel, stride, dilation, pad, group):
    reach = [dilation * (k - 1) + 1 for k in kernel]
    if any(s + pad[i] + pad[i + 2] < r for i, (s, r) in enumerate(zip(size, reach, strict=True))):
        return
    attributes = {
        "strides": [stride] * 2, "dilations": [dilation] * 2, "pads": list(pad), "group": group,
    }  # fmt: skip
    inputs = {"x": (3, 4, *size)}
    model = one_node("Conv", inputs, {"w": normal(8, 4 // group, *kernel)}, attributes, by=Single)
    check(model, inputs, by=Single)


@given(data=st.data(), op=st.sampled_from(["Add", "Sub", "Mul", "Div"]))
@settings(max_examples=30, deadline=None)
def test_broadcasting_of_random_shapes(data, op):
    wide = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    narrow = [n if data.draw(st.booleans()) else 1 for n in wide]
    narrow = narrow[data.draw(st.integers(0, len(wide))) :]
    inputs = {"a": tuple(wide), "b": tuple(narrow)}
    if data.draw(st.booleans()):
        inputs = {"b": tuple(narrow), "a": tuple(wide)}
    check(one_node(op, inputs, {}, {}), inputs, low=0.5, batch="none")
