"""Every rule has a row of the law, and names an operator that exists."""

import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as state
import pytest

from onnxprune.coupling.rules import registered
from tests.coupling.cases import CASES

_KNOWN = {
    (s.domain, s.name) for s in (*onnx.defs.get_all_schemas(), *state.get_all_operator_schema())
}


@pytest.mark.parametrize("key", sorted(registered()), ids=lambda key: ".".join(filter(None, key)))
def test_rule_is_held_to_the_law(key):
    assert key in {(case.domain, case.op) for case in CASES}


@pytest.mark.parametrize("key", sorted(registered()), ids=lambda key: ".".join(filter(None, key)))
def test_rule_is_for_an_operator_that_exists(key):
    domain, op_type = key
    assert (domain, op_type) in _KNOWN


def test_rows_have_names_of_their_own():
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names))


def test_many_rows_say_what_must_not_be_cut():
    assert sum(bool(case.why) for case in CASES) >= 60
