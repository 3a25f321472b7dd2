"""Which groups are measured exactly after a check."""

import numpy as np
import pytest

from onnxprune.sensitivity.gradient import doubt
from tests import nets


@pytest.fixture(scope="module")
def groups():
    return nets.digits("digits_resnet").coupling.groups


def pair(rank, count=12):
    """Two rankings of so many channels, alike or not."""
    exact = np.arange(1.0, count + 1)
    return exact, {"same": exact, "other": exact[::-1], "tied": np.ones(count)}[rank]


def names(found):
    return [g.name for g in found]


def test_streams_are_checked_more_closely(groups):
    counts = doubt.probes(groups)
    for group in groups:
        assert counts[group.name] == (16 if group.kind == "stream" else 48 // len(groups))
    assert set(doubt.probes(groups[:1]).values()) == {min(groups[0].size, 48)}


def test_groups_ranked_otherwise_come_first_those_next_to_free_last(groups):
    bad, free, *_ = groups
    probed = {g.name: pair("same") for g in groups} | {bad.name: pair("other")}
    work = {g.name: 5.0 for g in groups} | {free.name: 0.5}
    assert names(doubt.doubtful(groups, probed, work)) == [bad.name, free.name]


def test_the_worst_come_first_within_the_passes(groups):
    probed = {g.name: pair("other") for g in groups}
    exact, said = pair("other")
    worse = said.copy()
    said[:2] = said[1::-1]
    probed[groups[0].name] = exact, said
    probed[groups[2].name] = exact, worse
    work = {g.name: 20.0 for g in groups}
    chosen = doubt.doubtful(groups[:3], probed, work)
    assert len(chosen) == 1
    assert chosen[0] is not groups[0]
    work = {g.name: doubt.MOST / 2 for g in groups}
    assert len(doubt.doubtful(groups, probed, work)) == 2


@pytest.mark.parametrize(
    ("rank", "count", "doubted"),
    [("other", 12, True), ("other", 5, False), ("same", 12, False), ("tied", 12, False)],
)
def test_chance_is_no_doubt(rank, count, doubted, groups):
    probed = {groups[0].name: pair(rank, count)}
    chosen = doubt.doubtful(groups[:1], probed, {groups[0].name: 5.0})
    assert bool(chosen) == doubted


def test_few_probes_must_differ_by_much(groups):
    """Eight probes at 0.86 may be unlucky; forty at 0.78 are not."""
    few = np.arange(8.0), np.array([2.0, 0, 1, 3, 6, 4, 5, 7])
    many = np.arange(40.0), np.arange(40.0) + np.tile([9.0, -9.0], 20)
    group = groups[0]
    assert not doubt.doubtful([group], {group.name: few}, {group.name: 5.0})
    assert doubt.doubtful([group], {group.name: many}, {group.name: 5.0})
