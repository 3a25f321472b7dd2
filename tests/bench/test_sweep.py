"""Operators on their own, and the sweep over them, on a machine that is made up."""

import itertools
import time

import numpy as np
import pytest

from onnxprune.bench.operators import find_operators
from onnxprune.bench.sweep import fill, operator_timer
from onnxprune.bench.table import LatencyTable
from onnxprune.model.view import build_view
from onnxprune.progress import Silent
from onnxprune.runtime.session import Session
from onnxprune.runtime.trace import trace
from tests import nets

EMPTY = LatencyTable({"cpu": "test"})


def stairs_of_16(operator):
    """A machine on which every axis goes in steps of 16."""
    return 1e3 * np.prod([-(-w // 16) * 16 for w in operator.widths])


def operators_of(model, feed):
    view = build_view(model, nets.MODELS)
    return list(find_operators(view, trace(view, feed)))


def many():
    """One operator of every family."""
    net = nets.Net(0)
    y = net.op("Relu", net.conv("x", 3, 64))
    y = net.op("Conv", y, net.weight(64, 1, 3, 3), group=64, pads=[1, 1, 1, 1])
    y = net.op("Conv", y, net.weight(64, 16, 3, 3), group=4, pads=[1, 1, 1, 1])
    y = net.op("ConvTranspose", y, net.weight(64, 32, 2, 2), strides=[2, 2])
    y = net.op("ReduceMean", y, axes=[2, 3], keepdims=0)
    y = net.op("Gemm", y, net.weight(48, 32), net.weight(48), transB=1)
    y = net.op("MatMul", y, net.weight(48, 80))
    row = net.op("Reshape", y, net.const(np.array([1, -1, 80], np.int64)))
    y = net.op("LSTM", row, net.weight(1, 256, 80), net.weight(1, 256, 64), hidden_size=64)
    return net.model({"x": ("N", 3, 8, 8)}, y)


@pytest.fixture(scope="module")
def operators():
    return operators_of(many(), {"x": np.ones((1, 3, 8, 8), np.float32)})


def everything(operator):
    return [True] * len(operator.axes)


def test_every_family_is_found(operators):
    assert [o.family for o in operators] == [
        "dense", "depthwise", "fixed", "dense", "linear", "linear", "recurrent"
    ]  # fmt: skip
    assert [o.widths for o in operators if o.family != "fixed"] == [
        (64, 3), (64,), (32, 64), (48, 32), (80, 48), (64, 80)
    ]  # fmt: skip


def test_chains_run_at_other_widths_and_let_only_one_element_out(operators):
    for operator in operators:
        for widths in (operator.widths, tuple(max(w // 2, 1) for w in operator.widths)):
            model, feeds = operator.at(widths).chain(3)
            made = Session(model).run(feeds)
            assert made
            assert all(value.shape[0] == 1 for value in made.values())


def test_operators_that_differ_in_what_takes_time_differ_in_signature(operators):
    assert len({o.signature for o in operators}) == len(operators)
    twice = operators_of(many(), {"x": np.ones((2, 3, 8, 8), np.float32)})
    assert not {o.signature for o in twice} & {o.signature for o in operators}


def test_steps_and_times_are_found(operators):
    table = fill(EMPTY, operators, everything, stairs_of_16, time_limit=60, progress=Silent())
    for operator in operators:
        entry = table.entries[operator.signature]
        assert entry.whole == stairs_of_16(operator)
        if operator.family == "fixed":
            continue
        assert set(entry.pays.steps) == {16}
        for levels in entry.levels:
            assert all(level % 16 == 0 for level in levels[:-1] if level > 8)
            assert (4 in levels) == (4 < levels[-1] <= 32)  # what has few steps, below the first
        for widths in itertools.product(*entry.levels):
            assert entry.at(widths) == pytest.approx(stairs_of_16(operator.at(widths)))


def test_only_axes_that_may_be_narrowed_are_varied(operators):
    table = fill(
        EMPTY, operators, lambda o: [True, *[False] * (len(o.axes) - 1)], stairs_of_16,
        time_limit=60, progress=Silent(),
    )  # fmt: skip
    first = table.entries[operators[0].signature]
    assert len(first.levels[0]) > 1
    assert first.levels[1] == (3,)


def test_what_is_known_is_not_measured_again(operators):
    table = fill(EMPTY, operators, everything, stairs_of_16, time_limit=60, progress=Silent())

    def never(operator):
        raise AssertionError(operator.signature)

    again = fill(table, operators, everything, never, time_limit=60, progress=Silent())
    assert again.entries.keys() == table.entries.keys()


def test_no_time_no_entries(operators):
    assert not fill(
        EMPTY, operators, everything, stairs_of_16, time_limit=0, progress=Silent()
    ).entries


def test_the_real_clock_reads_something():
    operator = operators_of(nets.mlp(8, 64, 4), {"x": np.ones((1, 8), np.float32)})[0]
    start = time.monotonic()
    assert operator_timer(1, "CPUExecutionProvider")(operator) >= 1.0
    assert time.monotonic() - start < 30
