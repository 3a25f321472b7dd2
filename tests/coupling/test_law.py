"""The law holds for every rule, and catches rules that are wrong."""

import pytest

from tests.coupling.cases import CASES
from tests.coupling.law import violations


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cutting_commutes_with_running(case):
    assert violations(case) == []
