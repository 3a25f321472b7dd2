"""Recurrent operators: units go from every gate, state and direction; time stays."""

from tests.coupling.opcase import OpCase, W, X

_LSTM = {"x": X((3, 2, 5)), "w": W((1, 16, 5)), "r": W((1, 16, 4))}
_GRU = {"x": X((3, 2, 5)), "w": W((1, 12, 5)), "r": W((1, 12, 4)), "b": W((1, 24))}
_BOTH = {"x": X((3, 2, 5)), "w": W((2, 16, 5)), "r": W((2, 16, 4)), "b": W((2, 32))}
_STATES = {"s": None, "h": W((1, 2, 4)), "c": W((1, 2, 4))}
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
]
