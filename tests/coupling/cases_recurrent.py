"""Recurrent operators: units go from every gate, state and direction; time stays."""

from tests.coupling.opcase import OpCase, W, X

_LSTM = {"x": X((3, 2, 5)), "w": W((1, 16, 5)), "r": W((1, 16, 4))}
_GRU = {"x": X((3, 2, 5)), "w": W((1, 12, 5)), "r": W((1, 12, 4)), "b": W((1, 24))}
_BOTH = {"x": X((3, 2, 5)), "w": W((2, 16, 5)), "r": W((2, 16, 4)), "b": W((2, 32))}
_STATES = {"s": None, "h": W((1, 2, 4)), "c": W((1, 2, 4))}
_BOTH_STATES = {"s": None, "h": W((2, 2, 4)), "c": W((2, 2, 4))}
_FROZEN = {"x0": "cannot be cut along this axis"}

CASES = [
    OpCase("LSTM", "", _LSTM, {"hidden_size": 4}, "x12 w12 r12 y23", _FROZEN),
    OpCase(
        "LSTM",
        "states-peepholes-all-outputs",
        {**_LSTM, "b": W((1, 32)), **_STATES, "p": W((1, 12))},
        {"hidden_size": 4},
        "x12 w12 r12 b1 h12 c12 p1 y23 u12 v12",
        _FROZEN,
        outputs="yuv",
    ),
    OpCase(
        "LSTM",
        "both-directions",
        _BOTH,
        {"hidden_size": 4, "direction": "bidirectional"},
        "x12 w12 r12 b1 y23",
        {"y1": "the directions of a recurrent layer"},
        skip={"reference": "onnx.reference runs one direction only"},
    ),
    OpCase(
        "GRU",
        "",
        _GRU,
        {"hidden_size": 4},
        "x12 w12 r12 b1 y23",
        _FROZEN,
    ),
    OpCase(
        "GRU",
        "reset-after",
        _GRU,
        {"hidden_size": 4, "linear_before_reset": 1},
        "x12 w12 r12 b1 y23",
        _FROZEN,
    ),
    OpCase(
        "GRU",
        "both-directions",
        {"x": X((3, 2, 5)), "w": W((2, 12, 5)), "r": W((2, 12, 4))},
        {"hidden_size": 4, "direction": "bidirectional"},
        "x12 w12 r12 y23",
        _FROZEN,
        skip={"reference": "onnx.reference runs one direction only"},
    ),
    OpCase(
        "RNN",
        "",
        {"x": X((3, 2, 5)), "w": W((1, 4, 5)), "r": W((1, 4, 4)), "b": W((1, 8))},
        {"hidden_size": 4},
        "x12 w12 r12 b1 y23 u12",
        _FROZEN,
        outputs="yu",
    ),
    OpCase(
        "LSTM",
        "both-directions-everything",
        {**_BOTH, **_BOTH_STATES, "p": W((2, 12))},
        {"hidden_size": 4, "direction": "bidirectional", "clip": 0.5},
        "x12 w12 r12 b1 h12 c12 p1 y23 u12 v12",
        {"x0": "cannot be cut along this axis", "u0": "the directions of a recurrent layer"},
        outputs="yuv",
        skip={"reference": "onnx.reference runs one direction only"},
    ),
    OpCase(
        "GRU",
        "both-directions-lengths",
        {
            "x": X((3, 2, 5)),
            "w": W((2, 12, 5)),
            "r": W((2, 12, 4)),
            "b": W((2, 24)),
            "s": W((2,), "2"),
            "h": W((2, 2, 4)),
        },
        {"hidden_size": 4, "direction": "bidirectional", "linear_before_reset": 1},
        "x12 w12 r12 b1 s0 h12 y23 u12",
        _FROZEN,
        outputs="yu",
        skip={"reference": "onnx.reference runs one direction only"},
    ),
    OpCase(
        "RNN",
        "both-directions-other-activations",
        {"x": X((3, 2, 5)), "w": W((2, 4, 5)), "r": W((2, 4, 4)), "b": W((2, 8))},
        {
            "hidden_size": 4,
            "direction": "bidirectional",
            "activations": ["Relu", "LeakyRelu"],
            "activation_alpha": [0.1, 0.2],
        },
        "x12 w12 r12 b1 y23 u12",
        _FROZEN,
        outputs="yu",
        skip={"reference": "onnx.reference runs one direction only"},
    ),
    OpCase(
        "LSTM",
        "backwards-zero-state",
        {**_LSTM, "b": W((1, 32)), "s": None, "h": W((1, 2, 4), "O")},
        {"hidden_size": 4, "direction": "reverse", "input_forget": 0},
        "x12 w12 r12 b1 h1 y23",
        {"h2": "zeros, which are left out"},
        skip={"reference": "onnx.reference ignores the direction"},
    ),
    OpCase(
        "RNN",
        "batch-first",
        {"x": X((2, 3, 5)), "w": W((1, 4, 5)), "r": W((1, 4, 4)), "b": W((1, 8))},
        {"hidden_size": 4, "layout": 1},
        "x02 w12 r12 b1 y03 u02",
        {"x1": "cannot be cut along this axis"},
        outputs="yu",
        skip={"onnxruntime": "runs layout 0 only"},
    ),
]
