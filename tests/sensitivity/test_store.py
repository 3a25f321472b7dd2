"""A measurement that was broken off goes on; spoilt files and other settings do not count."""

from dataclasses import replace

import numpy as np
import pytest

from onnxprune.data.splits import split_samples
from onnxprune.errors import UsageError
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.sensitivity import measurer
from onnxprune.sensitivity.methods import measure_groups
from tests import nets


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


class BrokenOff(Exception):
    """What ends a measurement."""


def measured(found, options, progress=None):
    splits = split_samples(len(found.samples), options.seed)
    return measure_groups(found, found.coupling.groups, splits, options, progress or Silent())


@pytest.fixture
def found(tmp_path):
    return nets.look(nets.concat(), tmp_path)


@pytest.fixture
def options(tmp_path):
    return Options(macs=0.5, recover=False, method="perturbation", cache=tmp_path / "kept")


def same(a, b):
    assert a.method == b.method
    for name in ("order", "scores", "widths", "errors", "vectors", "halves"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_what_is_finished_is_not_measured_again(found, options, monkeypatch):
    true = measurer.Measurer.group
    seen = []

    def group(self, number, seconds):
        if len(seen) == 2:
            raise BrokenOff
        seen.append(self.asked.groups[number].name)
        return true(self, number, seconds)

    monkeypatch.setattr(measurer.Measurer, "group", group)
    with pytest.raises(BrokenOff):
        measured(found, options)
    assert len(list(options.cache.rglob("*.npz"))) == 2
    assert not list(options.cache.rglob("*.tmp"))
    done, seen[:] = list(seen), []
    monkeypatch.setattr(measurer.Measurer, "group", true)
    whole = measured(found, options)
    assert whole.reasons[0] == "2 groups from the cache"
    plain = measured(found, replace(options, cache=None))
    assert list(whole.groups) == [g.name for g in found.coupling.groups]
    for name in whole.groups:
        same(whole.groups[name], plain.groups[name])
    assert set(done) < set(whole.groups)


def test_spoilt_files_are_ignored_and_said(found, options):
    first = measured(found, options)
    files = sorted(options.cache.rglob("*.npz"))
    files[0].write_bytes(files[0].read_bytes()[:100])
    files[1].write_bytes(b"")
    notes = Notes()
    again = measured(found, options, notes)
    assert sum("is ignored" in line for line in notes.lines) == 2
    for name, group in first.groups.items():
        same(group, again.groups[name])


@pytest.mark.parametrize("change", [{"seed": 1}, {"method": "gradient"}])
def test_other_settings_are_other_measurements(found, options, change):
    measured(found, options)
    other = measured(found, replace(options, **change))
    assert "cache" not in other.reasons[0]


def test_other_data_are_another_measurement(found, options, tmp_path):
    measured(found, options)
    other = measured(nets.look(nets.concat(), tmp_path, seed=5), options)
    assert "cache" not in other.reasons[0]


def test_what_time_cut_short_is_not_kept(found, options):
    result = measured(found, replace(options, time_limit=1e-9))
    assert all(group.samples == 0 for group in result.groups.values())
    assert not list(options.cache.rglob("*.npz"))


def test_a_folder_that_cannot_be_written(found, options):
    options.cache.write_text("a file")
    with pytest.raises(UsageError, match="--cache"):
        measured(found, options)
