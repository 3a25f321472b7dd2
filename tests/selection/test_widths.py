"""Allowed widths."""

import numpy as np
import pytest

from onnxprune.coupling.groups import Group, Member
from onnxprune.coupling.relations import Axis
from onnxprune.selection.widths import allowed_widths, paying_widths
from tests import nets


def group(*members, kind="filter"):
    """Make a group of members given as (places per channel, channels, size of the axis)."""
    made, sizes = [], {}
    for number, (places, channels, size) in enumerate(members):
        axis = Axis(f"v{number}", 1)
        made.append(Member(axis, np.arange(places * channels).reshape(channels, places)))
        sizes[axis] = size
    return Group(
        "g",
        kind,
        len(made[0].positions),
        tuple(made),
        True,
        (),
        np.zeros(len(made[0].positions), int),
    ), sizes


@pytest.mark.parametrize(
    ("members", "multiple", "widths"),
    [
        ([(1, 6, 6)], 1, [6, 5, 4, 3, 2, 1]),
        ([(1, 16, 16)], 4, [16, 12, 8, 4]),
        ([(1, 18, 18)], 4, [18, 16, 12, 8, 4]),
        ([(1, 16, 16)], 16, [16]),
        ([(1, 6, 6)], 8, [6]),
        ([(1, 8, 8), (4, 8, 32)], 4, [8, 4]),
        ([(2, 8, 16)], 4, [8, 6, 4, 2]),
        ([(3, 8, 24)], 4, [8, 4]),
        ([(6, 8, 48)], 4, [8, 6, 4, 2]),
        ([(8, 4, 32)], 4, [4, 3, 2, 1]),
    ],
    ids=str,
)
def test_every_axis_keeps_a_multiple(members, multiple, widths):
    made, sizes = group(*members)
    assert allowed_widths(made, multiple, sizes) == widths
    for width in widths[1:]:
        assert all(width * places % multiple == 0 for places, _, _ in members)


def test_a_part_of_an_axis_goes_in_multiples():
    """6 of 10 channels of a Concat: what goes is a multiple, as the rest is not this group's."""
    made, sizes = group((1, 6, 10))
    assert allowed_widths(made, 4, sizes) == [6, 2]
    assert allowed_widths(made, 1, sizes) == [6, 5, 4, 3, 2, 1]


def test_a_tenth_always_stays():
    made, sizes = group((1, 64, 64))
    assert min(allowed_widths(made, 1, sizes)) == 6
    assert min(allowed_widths(made, 4, sizes)) == 8


def test_axes_that_are_not_in_the_graph_do_not_count():
    made, sizes = group((1, 8, 8), (3, 8, 24))
    del sizes[Axis("v1", 1)]
    assert allowed_widths(made, 2, sizes) == [8, 6, 4, 2]


def test_heads_go_one_by_one_where_their_width_is_a_multiple():
    """The axis that counts heads is a batch axis of the products: no kernel runs along it."""
    found = nets.digits("digits_vit")
    sizes = found.coupling.collected.sizes
    heads = [g for g in found.coupling.groups if g.kind == "head"]
    assert heads
    for made in heads:
        assert allowed_widths(made, 4, sizes) == [4, 3, 2, 1]
        assert allowed_widths(made, 32, sizes) == [4, 2]
        dims = next(g for g in found.coupling.groups if g.name == f"{made.name}#2")
        assert allowed_widths(dims, 4, sizes) == [16, 12, 8, 4]


@pytest.mark.parametrize(
    ("channels", "step", "widths"),
    [
        (64, 16, [64, 48, 32, 16, 8]),
        (32, 32, [32, 16, 8]),
        (16, 16, [16, 8, 4]),
        (16, 8, [16, 8, 4]),
        (12, 4, [12, 8, 4]),
        (6, 1, [6, 5, 4, 3, 2, 1]),
    ],
)
def test_below_the_first_step_only_parts_of_it_pay(channels, step, widths):
    made, sizes = group((1, channels, channels))
    (axis,) = sizes
    assert paying_widths(made, sizes, {axis: step}) == widths
