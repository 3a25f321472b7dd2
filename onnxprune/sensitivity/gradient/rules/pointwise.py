"""Derivatives of what works element by element."""

from collections.abc import Callable, Iterator

import numpy as np

from onnxprune.coupling.rules import Tensor
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]


def unbroadcast(tape: Tape, gradient: str, shape: tuple[int, ...], wide: tuple[int, ...]) -> str:
    """Sum over the axes along which a value was stretched from ``shape`` to ``wide``."""
    if shape == wide:
        return gradient
    extra = len(wide) - len(shape)
    stretched = [i for i in range(len(shape)) if shape[i] == 1 and wide[i + extra] > 1]
    if extra:
        gradient = tape.reduce("ReduceSum", gradient, range(extra), keepdims=False)
    return tape.reduce("ReduceSum", gradient, stretched)


def _to(tape: Tape, call: Call, slot: int, gradient: str) -> tuple[int, str]:
    return slot, unbroadcast(tape, gradient, call.op.x(slot).shape, call.op.y().shape)


@vjp("Add", "Sub", "Sum")
def add(tape: Tape, call: Call) -> Gradients:
    """Pass on, with the sign."""
    for slot in call.slots:
        negative = call.op.op_type == "Sub" and slot == 1
        yield _to(tape, call, slot, tape.op("Neg", call.g) if negative else call.g)


@vjp("Mean")
def mean(tape: Tape, call: Call) -> Gradients:
    """Share equally."""
    share = tape.op("Mul", call.g, tape.const(1.0 / len(call.op.inputs)))
    for slot in call.slots:
        yield _to(tape, call, slot, share)


@vjp("Mul")
def mul(tape: Tape, call: Call) -> Gradients:
    """Multiply with the other factor."""
    for slot in call.slots:
        yield _to(tape, call, slot, tape.op("Mul", call.g, call.op.x(1 - slot).value))


@vjp("Div")
def div(tape: Tape, call: Call) -> Gradients:
    """(a / b)' = a' / b - b' y / b."""
    above = tape.op("Div", call.g, call.op.x(1).value)
    if 0 in call.slots:
        yield _to(tape, call, 0, above)
    if 1 in call.slots:
        yield _to(tape, call, 1, tape.op("Neg", tape.op("Mul", above, call.y)))


@vjp("Pow")
def power(tape: Tape, call: Call) -> Gradients:
    """(x^p)' = p x^(p-1); a learnt exponent has no rule."""
    exponent = call.op.x(1)
    if 1 in call.slots:
        raise UnsupportedError("the exponent is an activation")
    p = tape.array(exponent.value).astype(np.float64)
    less = tape.const(p - 1)
    slope = call.x if (p == 2).all() else tape.op("Pow", call.x, less)
    slope = tape.op("Mul", slope, tape.const(p))
    yield _to(tape, call, 0, tape.op("Mul", call.g, slope))


@vjp("Max", "Min")
def extreme(tape: Tape, call: Call) -> Gradients:
    """Goes to whoever won."""
    for slot in call.slots:
        won = tape.op("Equal", call.op.x(slot).value, call.y)
        yield _to(tape, call, slot, tape.masked(call.g, won))


@vjp("Where")
def where(tape: Tape, call: Call) -> Gradients:
    """Goes to whoever was chosen."""
    for slot in call.slots - {0}:
        chosen = call.x if slot == 1 else tape.op("Not", call.x)
        yield _to(tape, call, slot, tape.masked(call.g, chosen))


@vjp("Clip")
def clip(tape: Tape, call: Call) -> Gradients:
    """Only what lies strictly inside the limits passes."""
    low, high = (
        _limit(tape, call.op.optional(slot), call.op.attributes.get(name))
        for slot, name in ((1, "min"), (2, "max"))
    )
    masks = [
        tape.op(how, call.y, tape.const(limit))
        for how, limit in (("Greater", low), ("Less", high))
        if limit is not None
    ]
    if not masks:
        yield 0, call.g
        return
    inside = masks[0] if len(masks) == 1 else tape.op("And", *masks)
    yield 0, tape.masked(call.g, inside)


def _limit(tape: Tape, tensor: Tensor | None, attribute: object) -> float | None:
    if tensor is not None:
        return float(tape.array(tensor.value))
    return float(attribute) if isinstance(attribute, float) else None


@vjp("PRelu")
def prelu(tape: Tape, call: Call) -> Gradients:
    """Slope 1 or the learnt one."""
    if 0 in call.slots:
        slope = tape.op("Where", _positive(tape, call.x), tape.const(1.0), call.op.x(1).value)
        yield 0, tape.op("Mul", call.g, slope)
    if 1 in call.slots:
        negative = tape.op("Min", call.x, tape.const(0.0))
        yield _to(tape, call, 1, tape.op("Mul", call.g, negative))


@vjp("Relu")
def relu(tape: Tape, call: Call) -> Gradients:
    """Only what is positive passes."""
    yield 0, tape.masked(call.g, _positive(tape, call.y))


@vjp("ThresholdedRelu")
def thresholded_relu(tape: Tape, call: Call) -> Gradients:
    """Only what lies above the threshold passes."""
    alpha = tape.const(_real(call, "alpha", 1.0))
    yield 0, tape.masked(call.g, tape.op("Greater", call.x, alpha))


def _real(call: Call, name: str, default: float) -> float:
    value = call.op.attributes.get(name, default)
    assert isinstance(value, float | int)
    return float(value)


Slope = Callable[[Tape, Call], str]


def _slope(*op_types: str) -> Callable[[Slope], Slope]:
    """Register f'(x) of a function of one number."""

    def register(function: Slope) -> Slope:
        def rule(tape: Tape, call: Call) -> Gradients:
            yield 0, tape.op("Mul", call.g, function(tape, call))

        vjp(*op_types)(rule)
        return function

    return register


def _affine(tape: Tape, x: str, factor: float, offset: float) -> str:
    y = x if factor == 1.0 else tape.op("Mul", x, tape.const(factor))
    return y if offset == 0.0 else tape.op("Add", y, tape.const(offset))


def _square(tape: Tape, x: str) -> str:
    return tape.op("Mul", x, x)


def _pick(tape: Tape, condition: str, a: str, b: str) -> str:
    return tape.op("Where", condition, a, b)


def _positive(tape: Tape, x: str) -> str:
    return tape.op("Greater", x, tape.const(0.0))


@_slope("Sigmoid")
def sigmoid(tape: Tape, call: Call) -> str:
    """Return y (1 - y)."""
    return tape.op("Mul", call.y, _affine(tape, call.y, -1.0, 1.0))


@_slope("Tanh")
def tanh(tape: Tape, call: Call) -> str:
    """Return 1 - y^2."""
    return _affine(tape, _square(tape, call.y), -1.0, 1.0)


@_slope("Erf")
def erf(tape: Tape, call: Call) -> str:
    """Return 2 / sqrt(pi) exp(-x^2)."""
    bell = tape.op("Exp", tape.op("Neg", _square(tape, call.x)))
    return _affine(tape, bell, 2 / np.sqrt(np.pi), 0.0)


@_slope("Gelu")
def gelu(tape: Tape, call: Call) -> str:
    """Return the derivative of x Phi(x), or of its approximation by tanh."""
    half = tape.const(0.5)
    if call.op.attributes.get("approximate", b"none") in (b"tanh", "tanh"):
        cubic = tape.op("Mul", _square(tape, call.x), call.x)
        inner = tape.op("Add", call.x, _affine(tape, cubic, 0.044715, 0.0))
        t = tape.op("Tanh", _affine(tape, inner, np.sqrt(2 / np.pi), 0.0))
        phi = tape.op("Mul", _affine(tape, t, 1.0, 1.0), half)
        slope = _affine(tape, _square(tape, call.x), 3 * 0.044715, 1.0)
        rise = tape.op("Mul", _affine(tape, _square(tape, t), -1.0, 1.0), slope)
        rise = _affine(tape, rise, 0.5 * np.sqrt(2 / np.pi), 0.0)
    else:
        phi = tape.op("Erf", _affine(tape, call.x, np.sqrt(0.5), 0.0))
        phi = tape.op("Mul", _affine(tape, phi, 1.0, 1.0), half)
        bell = tape.op("Exp", _affine(tape, _square(tape, call.x), -0.5, 0.0))
        rise = _affine(tape, bell, 1 / np.sqrt(2 * np.pi), 0.0)
    return tape.op("Add", phi, tape.op("Mul", call.x, rise))


@_slope("Swish")
def swish(tape: Tape, call: Call) -> str:
    """Return s + a x s (1 - s)."""
    alpha = _real(call, "alpha", 1.0)
    s = tape.op("Sigmoid", _affine(tape, call.x, alpha, 0.0))
    bend = tape.op("Mul", tape.op("Mul", call.x, s), _affine(tape, s, -1.0, 1.0))
    return tape.op("Add", s, _affine(tape, bend, alpha, 0.0))


@_slope("Mish")
def mish(tape: Tape, call: Call) -> str:
    """Return t + x (1 - t^2) sigmoid(x) with t = tanh(softplus(x))."""
    t = tape.op("Tanh", tape.op("Softplus", call.x))
    rise = tape.op("Mul", _affine(tape, _square(tape, t), -1.0, 1.0), tape.op("Sigmoid", call.x))
    return tape.op("Add", t, tape.op("Mul", call.x, rise))


@_slope("HardSigmoid")
def hard_sigmoid(tape: Tape, call: Call) -> str:
    """Return alpha between the limits."""
    inside = tape.op(
        "And",
        _positive(tape, call.y),
        tape.op("Less", call.y, tape.const(1.0)),
    )
    return _pick(tape, inside, tape.const(_real(call, "alpha", 0.2)), tape.const(0.0))


@_slope("HardSwish")
def hard_swish(tape: Tape, call: Call) -> str:
    """Return (2 x + 3) / 6 between -3 and 3, then 0 or 1."""
    low, high = tape.const(-3.0), tape.const(3.0)
    middle = _affine(tape, call.x, 1 / 3, 0.5)
    right = _pick(tape, tape.op("Less", call.x, high), middle, tape.const(1.0))
    return _pick(tape, tape.op("Greater", call.x, low), right, tape.const(0.0))


@_slope("LeakyRelu")
def leaky_relu(tape: Tape, call: Call) -> str:
    """Return 1 or alpha."""
    alpha = tape.const(_real(call, "alpha", 0.01))
    return _pick(tape, _positive(tape, call.x), tape.const(1.0), alpha)


@_slope("Elu")
def elu(tape: Tape, call: Call) -> str:
    """Return 1 or y + alpha."""
    left = _affine(tape, call.y, 1.0, _real(call, "alpha", 1.0))
    return _pick(tape, _positive(tape, call.x), tape.const(1.0), left)


@_slope("Selu")
def selu(tape: Tape, call: Call) -> str:
    """Return gamma, or y + alpha gamma."""
    gamma = _real(call, "gamma", 1.0507009873554805)
    left = _affine(tape, call.y, 1.0, gamma * _real(call, "alpha", 1.6732632423543772))
    return _pick(tape, _positive(tape, call.x), tape.const(gamma), left)


@_slope("Celu")
def celu(tape: Tape, call: Call) -> str:
    """Return 1 or exp(x / alpha)."""
    left = tape.op("Exp", _affine(tape, call.x, 1.0 / _real(call, "alpha", 1.0), 0.0))
    return _pick(tape, _positive(tape, call.x), tape.const(1.0), left)


@_slope("Softplus")
def softplus(tape: Tape, call: Call) -> str:
    """Return sigmoid(x)."""
    return tape.op("Sigmoid", call.x)


@_slope("Softsign")
def softsign(tape: Tape, call: Call) -> str:
    """Return (1 - |y|)^2."""
    return _square(tape, _affine(tape, tape.op("Abs", call.y), -1.0, 1.0))


@_slope("Sqrt")
def sqrt(tape: Tape, call: Call) -> str:
    """Return 1 / (2 y)."""
    return tape.op("Div", tape.const(0.5), call.y)


@_slope("Exp")
def exp(tape: Tape, call: Call) -> str:
    """Return y."""
    return call.y


@_slope("Log")
def log(tape: Tape, call: Call) -> str:
    """Return 1 / x."""
    return tape.op("Reciprocal", call.x)


@_slope("Reciprocal")
def reciprocal(tape: Tape, call: Call) -> str:
    """Return -y^2."""
    return tape.op("Neg", _square(tape, call.y))


@_slope("Abs")
def absolute(tape: Tape, call: Call) -> str:
    """Return the sign."""
    return tape.op("Sign", call.x)


@_slope("Sin")
def sine(tape: Tape, call: Call) -> str:
    """Return cos x."""
    return tape.op("Cos", call.x)


@_slope("Cos")
def cosine(tape: Tape, call: Call) -> str:
    """Return -sin x."""
    return tape.op("Neg", tape.op("Sin", call.x))


@vjp("Neg")
def negative(tape: Tape, call: Call) -> Gradients:
    """Change the sign."""
    yield 0, tape.op("Neg", call.g)
