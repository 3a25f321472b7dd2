"""Which points a front keeps."""

from types import SimpleNamespace

from onnxprune.search.front import undominated


def point(latency, drop, *, size=0.5):
    ratios = {"latency": latency, "bytes": size, "macs": 0.5, "params": 0.5}
    return SimpleNamespace(ratios=ratios, drop=drop)


def test_a_point_that_another_beats_in_everything_goes():
    good, worse = point(0.5, 0.1), point(0.6, 0.2)
    assert undominated([worse, good]) == [good]


def test_points_that_are_better_in_something_stay():
    points = [point(0.5, 0.2), point(0.6, 0.1), point(0.7, 0.3, size=0.2)]
    assert undominated(points) == points


def test_of_equal_points_one_stays():
    points = [point(0.5, 0.1), point(0.5, 0.1)]
    assert undominated(points) == points[:1]
