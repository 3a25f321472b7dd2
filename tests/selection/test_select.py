"""Without a latency, multiples of 4 are tried only where operators are slow off them."""

import numpy as np
import pytest

from onnxprune.options import Options
from onnxprune.selection.budget import budget_of
from onnxprune.selection.select import choose, coarse_axes
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity
from tests import nets


def even(found):
    """Take all channels to be worth the same."""

    def of(group):
        widths = np.arange(group.size, 0, -1)
        errors = (group.size - widths) / group.size
        scores = np.ones(group.size)
        return GroupSensitivity(np.arange(group.size), scores, widths, errors, "perturbation")

    return Sensitivity({g.name: of(g) for g in found.coupling.groups}, 0, 0)


@pytest.mark.parametrize(
    ("name", "step"), [("digits_lstm", 1), ("digits_gru", 1), ("digits_mobile", 4)]
)
def test_only_what_is_slow_off_multiples_keeps_to_them(name, step):
    found = nets.digits(name)
    sizes, coarse = found.coupling.collected.sizes, coarse_axes(found)
    for group in found.coupling.groups:
        widths = allowed_widths(group, 1, sizes, coarse)
        removed = {group.size - width for width in widths}
        assert len(removed) > 1
        if step == 4:
            assert all(count % 4 == 0 for count in removed) or group.size % 4, group.name
        else:
            assert removed == set(range(len(removed)))


def test_a_recurrent_layer_does_not_overshoot():
    found = nets.digits("digits_gru")
    options = Options(macs=0.53)
    budget = budget_of(options, found.costs.total, found.model.bytes)
    chosen = choose(found, found.coupling.groups, even(found), budget, options)
    (reached,) = chosen.reached.values()
    assert 0.515 < reached <= 0.53
    assert chosen.multiple_of == 4  # of no axis here: nothing to warn of
