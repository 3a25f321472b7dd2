"""What each operator's parameters must be after a cut, and which cuts it cannot say."""

import numpy as np
import pytest
from onnx import helper

from onnxprune.coupling.relations import Axis
from onnxprune.model.view import Node
from onnxprune.rewrite.repairs import Site, UnrepresentableError, repair
from onnxprune.runtime.trace import Trace


def _site(op, shapes, attributes=None, parameters=None, keeps=None, opset=18, known=None):
    """A site whose inputs are named x, w or p1, p2 ... (parameters), and whose output is y."""
    attributes, parameters = attributes or {}, parameters or {}
    slots = {0: "x", **{slot: f"p{slot}" for slot in parameters}}
    if "w" in shapes:
        slots[1] = "w"
    inputs = tuple(slots.get(slot, "") for slot in range(max(slots) + 1))
    outputs = tuple(name for name in shapes if name not in ("x", "w"))
    proto = helper.make_node(op, list(inputs), list(outputs))
    node = Node(0, "n", op, "", inputs, outputs, attributes, proto)
    values = {f"p{slot}": np.asarray(value) for slot, value in parameters.items()}
    trace = Trace(shapes, {}, values)
    masks = {Axis(key[0], int(key[1])): np.array(mask, bool) for key, mask in (keeps or {}).items()}
    return Site(node, trace, masks, opset, set(values) if known is None else known)


def _bits(text):
    return [c == "1" for c in text]


_MENDED = [
    (
        "Conv",
        {"shapes": {"x": (1, 6, 4, 4), "w": (8, 3, 1, 1), "y": (1, 8, 4, 4)}},
        {"group": 2},
        {"x1": "111000", "y1": "11110000"},
        {"group": 1},
    ),
    (
        "Conv",
        {"shapes": {"x": (1, 6, 4, 4), "w": (8, 3, 1, 1), "y": (1, 8, 4, 4)}},
        {"group": 2},
        {"x1": "110110", "w1": "110"},
        {},
    ),
    (
        "Conv",
        {"shapes": {"x": (1, 4, 4, 4), "w": (4, 1, 1, 1), "y": (1, 4, 4, 4)}},
        {"group": 4},
        {"x1": "1011", "y1": "1011"},
        {"group": 3},
    ),
    (
        "ConvTranspose",
        {"shapes": {"x": (1, 4, 4, 4), "w": (4, 2, 1, 1), "y": (1, 8, 4, 4)}},
        {"group": 4},
        {"x1": "1100", "y1": "11110000"},
        {"group": 2},
    ),
    (
        "Reshape",
        {"shapes": {"x": (2, 12), "y": (2, 3, 4)}, "parameters": {1: [0, 3, -1]}},
        {},
        {"x1": "111100001111", "y1": "101"},
        {1: [0, 2, -1]},
    ),
    (
        "Reshape",
        {"shapes": {"x": (2, 3, 4), "y": (2, 12)}, "parameters": {1: [2, 12]}},
        {},
        {"x2": "1100", "y1": "110011001100"},
        {1: [2, 6]},
    ),
    (
        "Reshape",  # a 0 that stood for a size which the input no longer has
        {"shapes": {"x": (4, 3, 2), "y": (4, 3, 2)}, "parameters": {1: [0, 0, 2]}},
        {},
        {"y1": "110"},
        {1: [0, 2, 2]},
    ),
    (
        "Expand",
        {"shapes": {"x": (1, 3), "y": (2, 4, 3)}, "parameters": {1: [2, 4, 1]}},
        {},
        {"y1": "1010"},
        {1: [2, 2, 1]},
    ),
    (
        "Split",
        {"shapes": {"x": (2, 6), "y": (2, 2), "z": (2, 4)}, "parameters": {1: [2, 4]}},
        {"axis": 1},
        {"x1": "101101", "y1": "10", "z1": "1101"},
        {1: [1, 3]},
    ),
    (
        "Slice",
        {"shapes": {"x": (2, 7), "y": (2, 3)}, "parameters": {1: [3], 2: [6], 3: [1]}},
        {},
        {"x1": "0101101", "y1": "110"},
        {1: [1], 2: [3]},
    ),
    (
        "Gather",
        {"shapes": {"x": (2, 5), "y": (2, 3)}, "parameters": {1: [4, -4, 0]}},
        {"axis": 1},
        {"x1": "01001", "y1": "110"},
        {1: [1, 0]},
    ),
    (
        "Tile",
        {"shapes": {"x": (2, 1), "y": (2, 4)}, "parameters": {1: [1, 4]}},
        {},
        {"y1": "1101"},
        {1: [1, 3]},
    ),
    (
        "Pad",
        {"shapes": {"x": (2, 3), "y": (2, 6)}, "parameters": {1: [0, 1, 0, 2]}},
        {},
        {"x1": "101", "y1": "010110"},
        {1: [0, 0, 0, 1]},
    ),
    (
        "Resize",
        {"shapes": {"x": (1, 4, 2, 2), "y": (1, 4, 5, 5)}, "parameters": {3: [1, 4, 5, 5]}},
        {},
        {"x1": "1101", "y1": "1101"},
        {3: [1, 3, 5, 5]},
    ),
    (
        "Resize",
        {"shapes": {"x": (1, 4, 2, 2), "y": (1, 4, 5, 5)}, "parameters": {3: [4, 5, 5]}},
        {"axes": [1, 2, 3]},
        {"x1": "1101", "y1": "1101"},
        {3: [3, 5, 5]},
    ),
    (
        "GroupNormalization",
        {"shapes": {"x": (1, 6, 2, 2), "y": (1, 6, 2, 2)}},
        {"num_groups": 3},
        {"x1": "110011", "y1": "110011"},
        {"num_groups": 2},
    ),
    (
        "GroupNormalization",
        {"shapes": {"x": (1, 6, 2, 2), "y": (1, 6, 2, 2)}},
        {"num_groups": 3},
        {"x1": "010010", "y1": "010010"},
        {"num_groups": 2},
    ),
    (
        "ConstantOfShape",
        {"shapes": {"y": (2, 4)}, "parameters": {0: [2, 4]}},
        {},
        {"y1": "1000"},
        {0: [2, 1]},
    ),
]


@pytest.mark.parametrize(("op", "given", "attributes", "keeps", "wanted"), _MENDED)
def test_parameters_are_mended(op, given, attributes, keeps, wanted):
    masks = {axis: _bits(bits) for axis, bits in keeps.items()}
    site = _site(op, attributes=attributes, keeps=masks, **given)
    repair(site)
    found = {**site.attributes, **{k: v.tolist() for k, v in site.parameters.items()}}
    before = {k: np.ravel(v).tolist() for k, v in given.get("parameters", {}).items()}
    assert {k: v for k, v in found.items() if before.get(k) != v} == wanted


_REFUSED = [
    (
        "Conv",
        {"shapes": {"x": (1, 6, 4, 4), "w": (8, 3, 1, 1), "y": (1, 8, 4, 4)}},
        {"group": 2},
        {"x1": "111100"},
        "the kept channels do not fill whole groups",
    ),
    (
        "GroupNormalization",
        {"shapes": {"x": (1, 6, 2, 2), "y": (1, 6, 2, 2)}},
        {"num_groups": 3},
        {"x1": "110111"},
        "its groups do not keep equally many channels",
    ),
    (
        "Gather",
        {"shapes": {"x": (2, 5), "y": (2, 2)}, "parameters": {1: [0, 1]}},
        {"axis": 1},
        {"x1": "10111"},
        "an index asks for a position that goes",
    ),
    (
        "Slice",
        {"shapes": {"x": (2, 5), "y": (2, 3)}, "parameters": {1: [0], 2: [3], 3: [1]}},
        {},
        {"x1": "10111"},
        "the slice keeps other positions than its input",
    ),
    (
        "Slice",
        {"shapes": {"x": (2, 6), "y": (2, 3)}, "parameters": {1: [0], 2: [6], 3: [1], 4: [2]}},
        {},
        {"x1": "101111", "y1": "111"},
        "no longer evenly spaced",
    ),
    (
        "Tile",
        {"shapes": {"x": (2, 2), "y": (2, 4)}, "parameters": {1: [1, 2]}},
        {},
        {"y1": "1110"},
        "repeats do not divide",
    ),
    (
        "Pad",
        {"shapes": {"x": (2, 3), "y": (2, 5)}, "parameters": {1: [0, 1, 0, 1]}},
        {},
        {"x1": "101", "y1": "11111"},
        "the padding keeps other positions than its input",
    ),
    (
        "Squeeze",
        {"shapes": {"x": (2, 1, 3), "y": (2, 3)}},
        {},
        {"x2": "010"},
        "would shrink to one and be squeezed",
    ),
    (
        "Split",
        {"shapes": {"x": (2, 4), "y": (2, 2), "z": (2, 2)}, "parameters": {1: [2, 2]}},
        {"axis": 1},
        {"x1": "1100", "z1": "00"},
        "an output would be empty",
    ),
]


@pytest.mark.parametrize(("op", "given", "attributes", "keeps", "why"), _REFUSED)
def test_cuts_without_parameters_are_refused(op, given, attributes, keeps, why):
    masks = {axis: _bits(bits) for axis, bits in keeps.items()}
    with pytest.raises(UnrepresentableError, match=rf"^{op} n: .*{why}"):
        repair(_site(op, attributes=attributes, keeps=masks, **given))


def test_other_axes_leave_the_parameters_alone():
    site = _site(
        "Slice",
        {"x": (4, 7), "y": (4, 3)},
        parameters={1: [3], 2: [6], 3: [1]},
        keeps={"x0": _bits("1010"), "y0": _bits("1010")},
    )
    repair(site)
    assert site.parameters == {}
    assert site.attributes == {}


def test_operators_of_other_domains_are_not_touched():
    site = _site("Conv", {"x": (1, 4, 1, 1), "w": (4, 1, 1, 1), "y": (1, 4, 1, 1)}, {"group": 4})
    site.node = Node(0, "n", "Conv", "other", ("x", "w"), ("y",), {"group": 4}, site.node.proto)
    site.keeps = {Axis("x", 1): np.array(_bits("1000"))}
    repair(site)
    assert site.attributes == {}


def test_parameters_that_the_data_decide_are_not_read():
    site = _site("Gather", {"x": (5, 2), "y": (3, 2)}, parameters={1: [0, 1, 2]}, known=set())
    assert site.parameter(1) is None
    assert site.parameter(7) is None


def test_kept_scales_with_a_dynamic_axis():
    """A mask counts positions of the first trace; another trace may be larger."""
    site = _site("Relu", {"x": (2, 8), "y": (2, 8)}, keeps={"x1": _bits("1100")})
    assert site.kept("x", 1) == 4
    site = _site("Relu", {"x": (2, 6), "y": (2, 6)}, keeps={"x1": _bits("1110")})
    with pytest.raises(UnrepresentableError, match="a dynamic axis does not divide"):
        site.kept("x", 1)
