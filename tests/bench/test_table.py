"""The latency table: times between measured widths, and its file."""

import json

import numpy as np
import pytest

from onnxprune.bench.cache import recall, remember
from onnxprune.bench.table import Entry, LatencyTable, Pays, load_table, save_table
from onnxprune.errors import InputError, UsageError

LEVELS = ((16, 64), (16, 32, 64))


def entry(steps=(16, 16), cliff=0.0, levels=LEVELS):
    times = np.multiply.outer(*(np.array(axis, float) for axis in levels))
    return Entry(levels, times, Pays(steps, cliff))


class TestEntry:
    def test_measured_widths_are_as_measured(self):
        for a in LEVELS[0]:
            for b in LEVELS[1]:
                assert entry().at((a, b)) == a * b

    def test_linear_in_between(self):
        assert entry().at((48, 64)) == pytest.approx(48 * 64)
        assert entry().at((32, 48)) == pytest.approx(32 * 48)

    def test_a_width_takes_as_long_as_the_top_of_its_step(self):
        for width in range(33, 49):
            assert entry().at((width, 64)) == entry().at((48, 64))
        assert entry().at((32, 64)) < entry().at((33, 64))

    def test_less_is_not_promised_below_the_narrowest_measured_width(self):
        assert entry(steps=(1, 1)).at((4, 16)) == entry().at((16, 16))

    def test_below_the_first_step_time_falls_where_it_was_measured(self):
        narrow = entry(levels=((4, 16, 64), (4, 16, 64)))
        assert narrow.at((4, 64)) == 4 * 64
        assert narrow.at((12, 64)) == pytest.approx(12 * 64)
        assert entry().at((4, 64)) == entry().at((16, 64))

    def test_the_cliff_is_off_multiples_of_four_only(self):
        steep = entry(steps=(4, 4), cliff=0.5)
        assert steep.at((63, 64)) == pytest.approx(1.5 * 64 * 64)
        assert steep.at((60, 64)) == pytest.approx(60 * 64)

    def test_a_whole_width_off_multiples_is_what_it_is(self):
        odd = entry(steps=(4, 4), cliff=0.5, levels=((16, 63), (16, 64)))
        assert odd.at((63, 64)) == 63 * 64

    def test_an_axis_that_was_not_varied_is_in_proportion(self):
        fixed = entry(steps=(1, 1), levels=((64,), (32, 64)))
        assert fixed.at((16, 64)) == pytest.approx(16 * 64)

    def test_the_share_left(self):
        assert entry().left((1.0, 1.0)) == 1.0
        assert entry().left((0.5, 1.0)) == pytest.approx(0.5)
        assert entry().left((0.51, 1.0)) == pytest.approx(0.75)


class TestFile:
    def table(self):
        return LatencyTable({"cpu": "test"}, {"Conv": Pays((16, 8), 0.3)}, {"Conv 1": entry()})

    def test_it_comes_back_as_it_was(self, tmp_path):
        save_table(self.table(), tmp_path / "t.json")
        found = load_table(tmp_path / "t.json")
        assert found.machine == {"cpu": "test"}
        assert found.pays == self.table().pays
        assert found.entries["Conv 1"].levels == LEVELS
        assert (found.entries["Conv 1"].times == entry().times).all()

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda d: d["operators"][0]["nanoseconds"].pop(), "do not fit together"),
            (lambda d: d["operators"][0]["levels"][0].reverse(), "do not fit together"),
            (lambda d: d["operators"][0]["steps"].pop(), "do not fit together"),
            (lambda d: d["operators"][0]["nanoseconds"].__setitem__(0, -1), "minimum"),
            (lambda d: d.update(format="onnxprune-plan/1"), "onnxprune-latency/1"),
        ],
    )
    def test_a_spoilt_file_is_refused(self, tmp_path, change, word):
        document = self.table().document()
        change(document)
        (tmp_path / "t.json").write_text(json.dumps(document))
        with pytest.raises(InputError, match=word):
            load_table(tmp_path / "t.json")

    def test_no_file_and_no_json(self, tmp_path):
        with pytest.raises(InputError, match="cannot read the latency table"):
            load_table(tmp_path / "none.json")
        (tmp_path / "t.json").write_text("{")
        with pytest.raises(InputError, match="it is not JSON"):
            load_table(tmp_path / "t.json")


class TestCache:
    def test_what_was_remembered_comes_back_for_the_same_machine(self, tmp_path):
        empty = recall(tmp_path / "new", threads=1, provider="CPUExecutionProvider")
        assert not empty.entries
        remember(empty.with_({}, {"a": entry()}), tmp_path / "new")
        again = recall(tmp_path / "new", threads=1, provider="CPUExecutionProvider")
        assert set(again.entries) == {"a"}
        other = recall(tmp_path / "new", threads=2, provider="CPUExecutionProvider")
        assert not other.entries

    def test_a_spoilt_cache_is_forgotten(self, tmp_path):
        remember(recall(tmp_path, threads=1, provider="x").with_({}, {"a": entry()}), tmp_path)
        next(tmp_path.iterdir()).write_text("nonsense")
        assert not recall(tmp_path, threads=1, provider="x").entries

    def test_a_named_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        table = recall(tmp_path / "file", threads=1, provider="x")
        with pytest.raises(UsageError, match="--cache"):
            remember(table, tmp_path / "file")
