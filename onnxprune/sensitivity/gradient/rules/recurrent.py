"""Derivatives of recurrent layers: back through time, in a Scan.

Gates are worked out again from the states, for all steps at once; only what hangs together from
step to step runs in a Scan. For the exits in the recurrence (column i of R) the change is what
unit i's state adds there, per sample. For the biases it is the derivative of every gate's sum at
every step, before any summing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from onnxprune.coupling.rules import Op
from onnxprune.sensitivity.gradient.rules._registry import Call, vjp
from onnxprune.sensitivity.gradient.tape import Tape, UnsupportedError

Gradients = Iterator[tuple[int, str]]
Array = NDArray[np.float64]
_INITIAL = {"LSTM": (5, 6), "GRU": (5,), "RNN": (5,)}
SUMS = 3  # slot of the biases
_USUAL = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}


@dataclass(frozen=True, slots=True)
class Way:
    """One direction of a layer.

    Attributes
    ----------
    number : int
    backwards : bool
        Whether it reads the steps from the last to the first.
    before : str
        The state that every step starts from, (steps, samples, units).
    made : str
        The state that every step makes.
    w, r : array, shape (gates * units, inputs or units)
    wb, rb : array, shape (gates * units,)
    """

    number: int
    backwards: bool
    before: str
    made: str
    w: Array
    r: Array
    wb: Array
    rb: Array


@vjp("LSTM", "GRU", "RNN")
def recurrent(tape: Tape, call: Call) -> Gradients:
    """Back through time in every direction."""
    _usual(call.op, call.slots)
    steps = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[call.op.op_type]
    inputs, recurred, states, sums = [], [], [], []
    for way in _ways(tape, call):
        pushes, beside, back, last = steps(tape, call, way)
        inputs.append(tape.op("MatMul", pushes, tape.const(way.w)))
        sums += [pushes, beside]
        product = tape.op("Mul", back, way.before)
        recurred.append(tape.reduce("ReduceSum", product, [0], keepdims=False))
        states.append(last)
    yield 0, tape.total(inputs)
    yield 2, tape.op("Concat", *recurred, axis=1)  # one direction after the other
    yield SUMS, tape.op("Concat", *sums, axis=2)  # as the biases lie
    for place, slot in enumerate(_INITIAL[call.op.op_type]):
        if slot in call.slots:
            parts = [tape.op("Unsqueeze", s[place], tape.const(np.array([0]))) for s in states]
            yield slot, tape.op("Concat", *parts, axis=0)


def _usual(op: Op, slots: frozenset[int]) -> None:
    """Refuse what these derivatives do not cover."""
    directions = 2 if op.attributes.get("direction") == b"bidirectional" else 1
    given = op.attributes.get("activations")
    names = [str(n.decode()).lower() for n in given] if given else []  # type: ignore[attr-defined]
    if names and names != _USUAL[op.op_type] * directions:
        raise UnsupportedError("its activations are not the usual ones")
    if op.attributes.get("clip") or op.flag("layout") or op.flag("input_forget"):
        raise UnsupportedError("clip, layout or input_forget is set")
    if SUMS in slots:
        raise UnsupportedError("its biases are computed")
    if op.optional(4) is not None or op.optional(7) is not None:
        raise UnsupportedError("it has sequence lengths or peepholes")


def _ways(tape: Tape, call: Call) -> Iterator[Way]:
    op = call.op
    w, r = (np.asarray(tape.array(op.x(slot).value), np.float64) for slot in (1, 2))
    half = w.shape[1]
    bias = op.optional(3)
    b = np.zeros((len(w), 2 * half))
    if bias is not None:
        b = np.asarray(tape.array(bias.value), np.float64)
    states = op.outputs[0].value if op.outputs[0] is not None else _states(tape, op)
    initial = op.optional(5)
    for number in range(len(w)):
        backwards = op.attributes.get("direction") == b"reverse" or number == 1
        made = _pick(tape, states, number, axis=1)
        start = (
            None
            if initial is None
            else tape.op("Gather", initial.value, tape.const(np.array([number])), axis=0)
        )
        before = _shifted(tape, made, start, backwards=backwards)
        yield Way(
            number,
            backwards,
            before,
            made,
            w[number],
            r[number],
            b[number, :half],
            b[number, half:],
        )


def _states(tape: Tape, op: Op) -> str:
    """Run the layer once more for the states that nobody asked it for."""
    names = [t.value if t is not None else "" for t in op.inputs]
    attributes: dict[str, Any] = dict(op.attributes)
    return tape.op(op.op_type, *names, **attributes)


def _pick(tape: Tape, x: str, number: int, *, axis: int) -> str:
    return tape.op("Gather", x, tape.const(np.array(number)), axis=axis)


def _cut(tape: Tape, x: str, start: int, stop: int) -> str:
    limits = [tape.const(np.array([v])) for v in (start, stop, 0)]
    return tape.op("Slice", x, *limits)


def _shifted(tape: Tape, made: str, start: str | None, *, backwards: bool) -> str:
    """Return what each step starts from: the state that the step before it made."""
    far = np.iinfo(np.int64).max
    first = start or tape.op("Mul", _cut(tape, made, 0, 1), tape.const(0.0))
    if backwards:
        return tape.op("Concat", _cut(tape, made, 1, far), first, axis=0)
    return tape.op("Concat", first, _cut(tape, made, 0, -1), axis=0)


def _gates(tape: Tape, x: str, way: Way, count: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what input and recurrence add to each gate, for all steps."""
    sizes = tape.const(np.full(count, len(way.r) // count, np.int64))
    found = []
    for value, weight, bias in ((x, way.w, way.wb), (way.before, way.r, way.rb)):
        product = tape.op("MatMul", value, tape.const(weight.T))
        shifted = tape.op("Add", product, tape.const(bias))
        if tape.view.opset >= 13:
            found.append(tape.ops(count, "Split", shifted, sizes, axis=2))
        else:
            found.append(tape.ops(count, "Split", shifted, axis=2))
    return found[0], found[1]


def _less(tape: Tape, x: str) -> str:
    return tape.op("Sub", tape.const(1.0), x)


def _bell(tape: Tape, x: str) -> str:
    return tape.op("Mul", x, _less(tape, x))


def _curve(tape: Tape, x: str) -> str:
    return _less(tape, tape.op("Mul", x, x))


def _times(tape: Tape, *factors: str) -> str:
    product = factors[0]
    for factor in factors[1:]:
        product = tape.op("Mul", product, factor)
    return product


def _given(tape: Tape, call: Call, way: Way) -> tuple[str, str, str | None]:
    """Return the gradients of all states, of the last state and of the last cell."""
    zero = tape.op("Mul", way.before, tape.const(0.0))
    flat = _pick(tape, zero, 0, axis=0)
    states, last, *cell = (*call.gradients, None, None)[:3]
    every = zero if states is None else _pick(tape, states, way.number, axis=1)
    final = flat if last is None else _pick(tape, last, way.number, axis=0)
    if call.op.op_type != "LSTM":
        return every, final, None
    return every, final, flat if cell[0] is None else _pick(tape, cell[0], way.number, axis=0)


# What reaches the gates' sums beside the input, and beside the state; the derivatives of the state
# before every step, and of the states to begin with.
Result = tuple[str, str, str, Sequence[str]]


def _lstm(tape: Tape, call: Call, way: Way) -> Result:
    """Gates in the order input, output, forget, cell."""
    given = zip(*_gates(tape, call.x, way, 4), strict=True)
    sums = [tape.op("Add", a, b) for a, b in given]
    i, o, f = (tape.op("Sigmoid", s) for s in sums[:3])
    new = tape.op("Tanh", sums[3])
    kept, cell = _cells(tape, call, way, f, _times(tape, i, new))
    bent = tape.op("Tanh", cell)
    slopes = (
        _times(tape, new, _bell(tape, i)),
        _times(tape, bent, _bell(tape, o)),
        _times(tape, kept, _bell(tape, f)),
        _times(tape, i, _curve(tape, new)),
    )
    through = _times(tape, o, _curve(tape, bent))
    lines = [
        ("Add", ["dh", "dy"], "h"),
        ("Mul", ["h", "through"], "hc"),
        ("Add", ["dc", "hc"], "c"),
        ("Mul", ["c", "si"], "gi"),
        ("Mul", ["h", "so"], "go"),
        ("Mul", ["c", "sf"], "gf"),
        ("Mul", ["c", "sn"], "gn"),
        ("Concat", ["gi", "go", "gf", "gn"], "push"),
        ("MatMul", ["push", "r"], "back"),
        ("Identity", ["back"], "dh_out"),
        ("Mul", ["c", "f"], "dc_out"),
    ]
    every, final, last = _given(tape, call, way)
    assert last is not None
    reads = {"dy": every, "through": through, "f": f}
    reads |= dict(zip(("si", "so", "sf", "sn"), slopes, strict=True))
    dh, dc, push, back = _scan(
        tape, lines, {"dh": final, "dc": last}, reads, ("push", "back"), {"r": way.r},
        late=True, reverse=not way.backwards,
    )  # fmt: skip
    return push, push, back, (dh, dc)


def _cells(tape: Tape, call: Call, way: Way, f: str, add: str) -> tuple[str, str]:
    """Return the cell before and after every step."""
    initial = call.op.optional(6)
    start = (
        tape.op("Mul", _pick(tape, way.before, 0, axis=0), tape.const(0.0))
        if initial is None
        else _pick(tape, initial.value, way.number, axis=0)
    )
    lines = [
        ("Mul", ["c", "f"], "kept"),
        ("Add", ["kept", "add"], "c_out"),
        ("Identity", ["c"], "old"),
        ("Identity", ["c_out"], "new"),
    ]
    _, old, new = _scan(
        tape, lines, {"c": start}, {"f": f, "add": add}, ("old", "new"), {},
        late=False, reverse=way.backwards,
    )  # fmt: skip
    return old, new


def _gru(tape: Tape, call: Call, way: Way) -> Result:
    """Gates in the order update, reset, hidden."""
    before = call.op.flag("linear_before_reset")
    x, h = _gates(tape, call.x, way, 3)
    z, r = (tape.op("Sigmoid", tape.op("Add", x[k], h[k])) for k in (0, 1))
    units = way.r.shape[1]
    if before:
        inner = h[2]
        mixed = _times(tape, r, inner)
    else:
        inner = way.before
        gated = tape.op("MatMul", _times(tape, r, inner), tape.const(way.r[2 * units :].T))
        mixed = tape.op("Add", gated, tape.const(way.rb[2 * units :]))
    new = tape.op("Tanh", tape.op("Add", x[2], mixed))
    reads = {
        "sz": _times(tape, tape.op("Sub", way.before, new), _bell(tape, z)),
        "sn": _times(tape, _less(tape, z), _curve(tape, new)),
        "sr": _times(tape, inner, _bell(tape, r)),
        "r": r,
        "z": z,
    }
    lines = [
        ("Add", ["dh", "dy"], "h"),
        ("Mul", ["h", "sz"], "gz"),
        ("Mul", ["h", "sn"], "gn"),
        *(_GRU_BEFORE if before else _GRU_AFTER),
        ("Concat", ["gz", "gr", "gn"], "push"),
        ("Mul", ["h", "z"], "direct"),
        ("Add", ["back", "direct"], "dh_out"),
    ]
    every, final, _ = _given(tape, call, way)
    weights = {"w": way.r, "wzr": way.r[: 2 * units], "wn": way.r[2 * units :]}
    used = {name for _, names, _ in lines for name in names}
    dh, push, back = _scan(
        tape, lines, {"dh": final}, reads | {"dy": every}, ("push", "back"),
        {name: array for name, array in weights.items() if name in used},
        late=True, reverse=not way.backwards,
    )  # fmt: skip
    return push, _let_through(tape, push, r, units) if before else push, back, (dh,)


def _let_through(tape: Tape, push: str, r: str, units: int) -> str:
    """Return what reaches the state's share of the sums where the reset gate stands behind it."""
    limits = [tape.const(np.array([v])) for v in (0, 2 * units, 3 * units, 2)]
    gates = tape.op("Slice", push, limits[0], limits[1], limits[3])
    hidden = tape.op("Slice", push, limits[1], limits[2], limits[3])
    return tape.op("Concat", gates, tape.op("Mul", hidden, r), axis=2)


_GRU_BEFORE = [
    ("Mul", ["gn", "sr"], "gr"),
    ("Mul", ["gn", "r"], "gu"),
    ("Concat", ["gz", "gr", "gu"], "all"),
    ("MatMul", ["all", "w"], "back"),
]
_GRU_AFTER = [
    ("MatMul", ["gn", "wn"], "gv"),
    ("Mul", ["gv", "sr"], "gr"),
    ("Concat", ["gz", "gr"], "gzr"),
    ("MatMul", ["gzr", "wzr"], "first"),
    ("Mul", ["gv", "r"], "second"),
    ("Add", ["first", "second"], "back"),
]


def _rnn(tape: Tape, call: Call, way: Way) -> Result:
    """One gate."""
    lines = [
        ("Add", ["dh", "dy"], "h"),
        ("Mul", ["h", "slope"], "push"),
        ("MatMul", ["push", "w"], "back"),
        ("Identity", ["back"], "dh_out"),
    ]
    every, final, _ = _given(tape, call, way)
    dh, push, back = _scan(
        tape, lines, {"dh": final}, {"slope": _curve(tape, way.made), "dy": every},
        ("push", "back"), {"w": way.r}, late=True, reverse=not way.backwards,
    )  # fmt: skip
    return push, push, back, (dh,)


def _scan(
    tape: Tape,
    lines: Sequence[tuple[str, list[str], str]],
    states: dict[str, str],
    reads: dict[str, str],
    writes: Sequence[str],
    weights: dict[str, Array],
    *,
    late: bool,
    reverse: bool,
) -> tuple[str, ...]:
    """Run lines of (operator, inputs, output) step by step; states come back as ``name_out``."""
    kind = helper.np_dtype_to_tensor_dtype(tape.dtype)
    last: dict[str, Any] = {"axis": -1}
    nodes = [
        helper.make_node(op, names, [out], **(last if op == "Concat" else {}))
        for op, names, out in lines
    ]

    def values(names: Sequence[str]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, kind, (None, None)) for name in names]

    results = [f"{name}_out" for name in states]
    body = helper.make_graph(
        nodes,
        "step",
        values([*states, *reads]),
        values([*results, *writes]),
        [
            numpy_helper.from_array(array.astype(tape.dtype), name)
            for name, array in weights.items()
        ],
    )
    return tape.ops(
        len(states) + len(writes),
        "Scan",
        *states.values(),
        *reads.values(),
        late=late,
        body=body,
        num_scan_inputs=len(reads),
        scan_input_directions=[int(reverse)] * len(reads),
        scan_output_directions=[int(reverse)] * len(writes),
    )
