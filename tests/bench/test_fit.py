"""The correction of the table's sum."""

import numpy as np
import pytest

from onnxprune.bench.fit import fit

TABLES, ELEMENTS = np.array([9e5, 7e5, 4e5, 2e5, 6e5]), np.array([3e4, 2.5e4, 1.2e4, 1e4, 2e4])


def nanoseconds(fit, table, elements):
    """What a fit gives a model."""
    return fit.scale * table + fit.per_element * elements + fit.fixed


def test_the_truth_is_found():
    found = fit(TABLES, ELEMENTS, 1.2 * TABLES + 3.0 * ELEMENTS + 5e4)
    assert found.scale == pytest.approx(1.2, rel=0.1)
    for table, written in zip(TABLES, ELEMENTS, strict=True):
        truth = 1.2 * table + 3.0 * written + 5e4
        assert nanoseconds(found, table, written) == pytest.approx(truth, rel=0.02)
    assert found.error < 0.02


def test_nothing_is_negative_and_the_error_is_honest():
    measured = np.array([1e5, 5e5, 2e5, 9e5, 1e5])  # has nothing to do with the table
    found = fit(TABLES, ELEMENTS, measured)
    assert min(found.scale, found.per_element, found.fixed) >= 0
    assert found.error > 0.3


def test_one_model_alone_leaves_the_table_in_charge():
    found = fit(TABLES[:1], ELEMENTS[:1], np.array([1e6]))
    assert nanoseconds(found, TABLES[0], ELEMENTS[0]) == pytest.approx(1e6, rel=0.02)
    assert 0.8 < found.scale < 1.2
