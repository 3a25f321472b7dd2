"""Control flow: states and captured values pass through bodies; turns and differing axes stay."""

from onnx import TensorProto, helper

from tests.coupling.opcase import K, OpCase, W, X


def _body(inputs, outputs, *nodes):
    """A body from (operator, inputs, output); ``i`` is an integer, ``c`` and ``d`` truth values."""
    kinds = {"i": TensorProto.INT64, "c": TensorProto.BOOL, "d": TensorProto.BOOL}
    infos = {
        name: helper.make_tensor_value_info(
            name, kinds.get(name, TensorProto.FLOAT), [] if name in kinds else None
        )
        for name in (*inputs, *outputs)
    }
    made = [
        helper.make_node(op, list(given), [out], **more)
        for op, given, out, *rest in nodes
        for more in (rest[0] if rest else {},)
    ]
    return helper.make_graph(made, "b", [infos[n] for n in inputs], [infos[n] for n in outputs])


def _branches(then, other):
    return {"then_branch": _body("", "a", *then), "else_branch": _body("", "a", *other)}


_YES = ("Identity", "c", "d")
_STEP = {"body": _body("ics", "dtp", _YES, ("Mul", "sw", "t"), ("Add", "tx", "p"))}
_GROW = {"body": _body("ics", "dt", _YES, ("Concat", "sx", "t", {"axis": 1}))}
_NARROW = ("Slice", "xkle", "a")
_CELL = {"body": _body("sp", "tu", ("Add", "sp", "t"), ("Relu", "t", "u"))}
_LOOP = {"m": K(3), "c": K(True, "bool"), "s": X((2, 4))}
_SLICE = {"k": K([0]), "l": K([3]), "e": K([1])}

CASES = [
    OpCase(
        "If",
        "captured",
        {"c": K(True, "bool"), "x": X((3, 4)), "w": W((4,))},
        _branches([("Mul", "xw", "a")], [("Neg", "x", "a")]),
        "x01 w0 y01",
        slots="c",
    ),
    OpCase(
        "If",
        "branch-not-taken",
        {"c": K(False, "bool"), "x": X((3, 4)), "w": W((4,))},
        _branches([("Mul", "xw", "a")], [("Neg", "x", "a")]),
        "x01 w0 y01",
        slots="c",
    ),
    OpCase(
        "If",
        "branches-of-different-widths",
        {"c": K(True, "bool"), "x": X((3, 4)), **_SLICE},
        _branches([("Neg", "x", "a")], [_NARROW]),
        "x0 y0",
        {"y1": "If cannot be cut", "x1": "branches differ"},
        slots="c",
    ),
    OpCase(
        "If",
        "branches-of-different-ranks",
        {"c": K(True, "bool"), "x": X((3, 4)), "k": K([0])},
        _branches([("Neg", "x", "a")], [("Unsqueeze", "xk", "a")]),
        "",
        {"y01": "If cannot be cut", "x01": "branches differ"},
        slots="c",
    ),
    OpCase(
        "Loop",
        "state-and-collected",
        {**_LOOP, "x": X((2, 4)), "w": W((4,))},
        _STEP,
        "s01 x01 w0 y01 z12",
        {"z0": "Loop cannot be cut"},
        outputs="yz",
        slots="mcs",
        skip={"reference": "onnx.reference joins what it should stack"},
    ),
    OpCase(
        "Loop",
        "never-entered",
        {**_LOOP, "m": K(0), "x": X((2, 4)), "w": W((4,))},
        _STEP,
        "",
        {"s01": "Loop cannot be cut"},
        outputs="yz",
        slots="mcs",
        skip={"reference": "onnx.reference needs a turn to collect"},
    ),
    OpCase(
        "Loop",
        "state-that-grows",
        {**_LOOP, "x": X((2, 4))},
        _GROW,
        "s0 x0 y0",
        {"s1": "from turn to turn", "x1": "from turn to turn", "y1": "from turn to turn"},
        slots="mcs",
    ),
    OpCase(
        "Scan",
        "",
        {"s": X((2, 4)), "x": X((3, 2, 4))},
        {**_CELL, "num_scan_inputs": 1},
        "s01 x12 y01 z12",
        {"x0": "Scan cannot be cut", "z0": "Scan cannot be cut"},
        outputs="yz",
    ),
    OpCase(
        "Scan",
        "other-axes-backwards",
        {"s": X((2, 4)), "x": X((2, 4, 3))},
        {
            **_CELL,
            "num_scan_inputs": 1,
            "scan_input_axes": [-1],
            "scan_output_axes": [1],
            "scan_input_directions": [1],
        },
        "s01 x01 y01 z02",
        {"x2": "Scan cannot be cut", "z1": "Scan cannot be cut"},
        outputs="yz",
        skip={"reference": "onnx.reference walks forwards only"},
    ),
]
