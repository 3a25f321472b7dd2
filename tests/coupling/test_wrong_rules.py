"""Rules that are wrong in a plausible way, each of which the law must catch.

Caught means that a cut differs from its reference, or that the rewrite refuses to write it; that
the wrong rule frees other axes than the row says is not enough.
"""

import numpy as np
import pytest

from onnxprune.coupling.relations import Axis, Contract, Split, Tie
from onnxprune.coupling.rules import (
    _registry,
    convolution,
    linear,
    normalization,
    pointwise,
    recurrent,
)
from tests.coupling import cases_frozen, cases_microsoft
from tests.coupling.cases import CASES
from tests.coupling.law import violations

_BY_NAME = {str(case): case for case in CASES}


def _is_caught(monkeypatch, name, rule):
    case = _BY_NAME[name]
    monkeypatch.setitem(_registry.rule.known, (case.domain, case.op), rule)
    return any(found.startswith(("without", "refused")) for found in violations(case))


def _without(rule, forget):
    """A rule that forgets some of its relations."""
    return lambda op: (r for r in rule(op) if not forget(r))


def _alone(rule, *axes):
    """A rule that leaves some axes to themselves."""

    def wrong(op):
        for relation in rule(op):
            if not (isinstance(relation, Tie) and {str(relation.a), str(relation.b)} & set(axes)):
                yield relation
        for tensor in op.present():
            yield from (
                Tie(tensor.axis(i), tensor.axis(i))
                for i in tensor.axes()
                if str(tensor.axis(i)) in axes
            )

    return wrong


def _is_contract(relation):
    return isinstance(relation, Contract)


def _ungrouped_conv(op):
    x, w, y = op.x(0), op.x(1), op.y()
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), x.axis(1))
    yield Tie(w.axis(0), y.axis(1))
    yield Tie(op.x(2).axis(0), y.axis(1))
    yield Contract(x.axis(1), 0)


def _inner_for_outer_conv(op):
    """Blocks of a grouped convolution interleaved instead of one after another."""
    x, w, y, groups = op.x(0), op.x(1), op.y(), op.integer("group", 1)
    group = Axis(f"{op.name}/group", 0)
    for tensor, axis, inner in ((x, 1, w.axis(1)), (y, 1, Axis(f"{op.name}/offset", 0))):
        place = np.arange(tensor.shape[axis])
        yield Split(tensor.axis(axis), ((group, place % groups), (inner, place // groups)))
    yield Tie(w.axis(0), y.axis(1))
    yield Tie(op.x(2).axis(0), y.axis(1))
    yield Contract(x.axis(1), 0)


def _concat_in_the_wrong_order(op):
    x, z, y = op.x(0), op.x(1), op.y()
    yield Tie(x.axis(1), y.axis(1), np.arange(x.shape[1]), z.shape[1] + np.arange(x.shape[1]))
    yield Tie(z.axis(1), y.axis(1), np.arange(z.shape[1]), np.arange(z.shape[1]))


def _swapped_split(op):
    x, y, z = op.x(0), op.y(0), op.y(1)
    first, second = np.arange(y.shape[1]), np.arange(z.shape[1])
    yield Tie(y.axis(1), x.axis(1), first, z.shape[1] + first)
    yield Tie(z.axis(1), x.axis(1), second, second)


def _inner_for_outer_reshape(op):
    x, y = op.x(0), op.y()
    place = np.arange(x.shape[1])
    yield Tie(x.axis(0), y.axis(0))
    yield Split(x.axis(1), ((y.axis(1), place % y.shape[1]), (y.axis(2), place // y.shape[1])))


def _gather_off_by_one(op):
    x, indices, y = op.x(0), op.x(1).data, op.y()
    yield Tie(y.axis(1), x.axis(1), np.arange(len(indices)), indices + 1)


def _untied_transpose(op):
    for tensor in (op.x(0), op.y()):
        for i in tensor.axes():
            yield Tie(tensor.axis(i), tensor.axis(i))


def _pad_without_offset(op):
    x, y = op.x(0), op.y()
    place = np.arange(x.shape[1])
    yield Tie(x.axis(0), y.axis(0))
    yield Tie(x.axis(1), y.axis(1), place, place)
    yield Tie(x.axis(2), y.axis(2))


def _depth_to_space_of_the_other_mode(op):
    x, y = op.x(0), op.y()
    place, blocks = np.arange(x.shape[1]), x.shape[1] // y.shape[1]
    dcr = op.attributes.get("mode", b"DCR") == b"DCR"
    yield Tie(x.axis(1), y.axis(1), place, place // blocks if dcr else place % y.shape[1])


def _groups_by_turns(op):
    """Channels dealt out to the groups one by one, instead of run by run."""
    for relation in normalization.group_normalization(op):
        if isinstance(relation, Split):
            (group, place), piece = relation.factors
            turns = np.arange(len(place)) % (place.max() + 1)
            yield Split(relation.axis, ((group, turns), piece))
        else:
            yield relation


def _mean_as_sum(op):
    x, y = op.x(0), op.y()
    for i in (0, 2):
        yield Tie(x.axis(i), y.axis(i))
    yield Tie(x.axis(1), x.axis(1))
    yield Contract(x.axis(1), 0)


def _einsum_forgets_the_sum(op):
    yield from _without(linear.einsum, lambda r: isinstance(r, Tie) and str(r.b) == "b[1]")(op)
    yield Tie(Axis("b", 1), Axis("b", 1))


def _swapped_directions(op):
    """The second direction's units taken for the first's, in W alone."""
    w, units = op.x(1), op.x(2).shape[2]
    for relation in recurrent.recurrent(op):
        if isinstance(relation, Tie) and relation.a == Axis(w.value, 1, 0):
            index = (relation.b_index + units) % (2 * units)
            yield Tie(relation.a, relation.b, relation.a_index, index)
        else:
            yield relation


def _gates_side_by_side(op):
    """Gates taken for one after the other within each unit."""
    w, gates = op.x(1), op.x(1).shape[1] // op.x(2).shape[2]
    for relation in recurrent.recurrent(op):
        if isinstance(relation, Tie) and relation.a.plain == w.axis(1):
            size = w.shape[1]
            index = relation.a_index // size * (size // gates) + relation.a_index % size // gates
            yield Tie(relation.a, relation.b, relation.a_index, index)
        else:
            yield relation


def _blocks_of_outputs_for_inputs(op):
    """The inputs of a grouped convolution in runs of the wrong length."""
    for relation in convolution.conv(op):
        if isinstance(relation, Split) and relation.axis == op.x(0).axis(1):
            (group, _), (piece, place) = relation.factors
            yield Split(relation.axis, ((group, place % 2), (piece, np.roll(place, 1))))
        else:
            yield relation


_WRONG = [
    ("LSTM-both-directions", _swapped_directions),
    ("GRU-both-directions", _gates_side_by_side),
    ("LSTM-both-directions", _without(recurrent.recurrent, _is_contract)),
    ("Conv-grouped", _blocks_of_outputs_for_inputs),
    ("InstanceNormalization", _without(normalization.instance_normalization, _is_contract)),
    ("RMSNormalization", _without(normalization.rms_normalization, _is_contract)),
    ("LayerNormalization", _without(normalization.layer_normalization, _is_contract)),
    ("LayerNormalization", _alone(normalization.layer_normalization, "b[0]")),
    ("BatchNormalization", _alone(normalization.batch_normalization, "v[0]")),
    ("GroupNormalization-opset-21", _without(normalization.group_normalization, _is_contract)),
    ("GroupNormalization-opset-18", _groups_by_turns),
    ("LpNormalization", _without(normalization.lp_normalization, _is_contract)),
    ("MatMul-2d", _alone(linear.matmul, "a[1]", "b[0]")),
    ("MatMul-2d", _without(linear.matmul, _is_contract)),
    ("MatMul-both-batched", _alone(linear.matmul, "b[0]")),
    ("Gemm", _alone(linear.gemm, "a[1]")),
    ("Gemm", _alone(linear.gemm, "c[0]")),
    ("Einsum-batched-product", _einsum_forgets_the_sum),
    ("Conv-2d", _without(convolution.conv, _is_contract)),
    ("Conv-2d", _alone(convolution.conv, "b[0]")),
    ("Conv-grouped", _ungrouped_conv),
    ("Conv-grouped", _inner_for_outer_conv),
    ("Conv-depthwise", _ungrouped_conv),
    ("ConvTranspose-2d", _alone(convolution.conv_transpose, "w[0]")),
    ("Concat", _concat_in_the_wrong_order),
    ("Split-sizes", _swapped_split),
    ("Reshape-splits", _inner_for_outer_reshape),
    ("Gather-list", _gather_off_by_one),
    ("Transpose", _untied_transpose),
    ("Pad-channels", _pad_without_offset),
    ("DepthToSpace-dcr", _depth_to_space_of_the_other_mode),
    ("DepthToSpace-crd", _depth_to_space_of_the_other_mode),
    ("ReduceMean", _mean_as_sum),
    ("PRelu-c11", _alone(pointwise.elementwise, "b[0]")),
    ("Mul-per-channel", _alone(pointwise.elementwise, "x[1]")),
]


@pytest.mark.parametrize(("name", "rule"), _WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_wrong_rule_is_caught(monkeypatch, name, rule):
    assert _is_caught(monkeypatch, name, rule)


def _careless(op):
    """Take the operator as elementwise, and as a sum over the axes that its output lacks."""
    for x in op.present():
        for i in x.axes():
            yield Tie(x.axis(i), x.axis(i))
            for y in (y for y in op.outputs if y is not None and y.rank == x.rank):
                yield from op.tie(x, i, y, i)
    for y in op.outputs:
        yield from () if y is None else (Tie(y.axis(i), y.axis(i)) for i in y.axes())
    x = next(iter(op.present()), op.y())
    for i in () if x.constant else x.axes():
        if op.y().rank != x.rank or op.y().shape[i] == 1:
            yield Contract(x.axis(i), 0)


_FROZEN_ON_PURPOSE = [
    "ArgMax",
    "ArgMin",
    "BatchNormalization-training",
    "Conv-2d",
    "CumSum",
    "Gather-embedding",
    "GlobalMaxPool",
    "GridSample",
    "Hardmax",
    "InstanceNormalization",
    "LRN",
    "LogSoftmax",
    "MaxPool",
    "MaxPool-with-indices",
    "Pad-edge",
    "Pad-reflect",
    "ReduceLogSumExp",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "Resize-scale-that-rounds-to-the-same-size",
    "Resize-scales",
    "Slice-at-run-time",
    "Softmax",
    "Softmax-opset-11",
    "TopK",
    "Trilu",
    "Upsample",
]


_FROZEN_WHOLE = [str(case) for case in (*cases_frozen.CASES, *cases_microsoft.FROZEN)]


@pytest.mark.parametrize("name", [*_FROZEN_ON_PURPOSE, *_FROZEN_WHOLE])
def test_axes_are_frozen_because_their_cut_breaks_the_law(monkeypatch, name):
    assert _is_caught(monkeypatch, name, _careless)
