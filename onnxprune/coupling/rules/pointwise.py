"""Operators that work element by element, with numpy's broadcasting."""

from collections.abc import Iterator

from onnxprune.coupling.relations import Free, Relation
from onnxprune.coupling.rules._registry import MICROSOFT, ML, Op, rule

_UNARY = (
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BitCast",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Cos",
    "Cosh",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LeakyRelu",
    "Log",
    "Mish",
    "Neg",
    "Not",
    "OptionalGetElement",
    "Reciprocal",
    "RegexFullMatch",
    "Relu",
    "Round",
    "Selu",
    "Shrink",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
)
_BROADCASTING = (
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Clip",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "PRelu",
    "Pow",
    "StringConcat",
    "Sub",
    "Sum",
    "Where",
    "Xor",
)


_MICROSOFT = (
    "BiasGelu",
    "FastGelu",
    "GatedAdd",
    "Gelu",
    "LinearAttentionGate",
    "MurmurHash3",
    "QuickGelu",
    "SampleOp",
    "ScaledSiLU",
)
_ML = ("Binarizer", "CategoryMapper", "LabelEncoder")


@rule(*_UNARY, *_BROADCASTING)
@rule(*_MICROSOFT, domain=MICROSOFT)
@rule(*_ML, domain=ML)
def elementwise(op: Op) -> Iterator[Relation]:
    """Align trailing axes; a size-1 axis is repeated and stays as it is."""
    for y in op.outputs:
        if y is None:
            continue
        for x in op.present():
            for back in range(1, min(x.rank, y.rank) + 1):
                yield from op.tie(x, -back, y, -back)


@rule("CastLike")
def cast_like(op: Op) -> Iterator[Relation]:
    """The second input gives its type only."""
    yield from op.same(op.x(0), op.y())
    for axis in op.x(1).axes():
        yield Free(op.x(1).axis(axis))


@rule("OptionalHasElement")
def has_element(op: Op) -> Iterator[Relation]:
    """A tensor is there whatever its size; without an input there is none."""
    for x in op.present():
        for axis in x.axes():
            yield Free(x.axis(axis))
