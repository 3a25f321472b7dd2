import itertools
import math
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from scipy import stats

from onnxprune.bench import machine
from onnxprune.bench import measure as measuring
from onnxprune.bench import readings as reading
from onnxprune.bench.measure import measure
from onnxprune.bench.readings import Readings
from onnxprune.bench.statistics import Estimate, choose, estimate, verdict
from onnxprune.bench.summary import summarize
from onnxprune.documents import validate
from onnxprune.errors import UsageError
from onnxprune.report.json import to_json
from onnxprune.runtime.session import RunFailedError

QUIET = {"load average": "0.10 0.20 0.30", "cores": "2"}


def model(width=4):
    weight = np.ones((3, width), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


FEED = {"x": np.ones((2, 3), np.float32)}


def readings(rng, wall_ms, cpu_ms=None, *, runs=100, jitter=0.05, warm_up=50):
    def noisy(ms):
        return ms * 1e6 * (1 + jitter * rng.exponential(size=runs))

    return Readings(noisy(wall_ms), noisy(wall_ms if cpu_ms is None else cpu_ms), warm_up)


def rounds(*, ratio=1.0, wall_sd=0.002, cpu_sd=0.002, cpu_ratio=None, pairs=6, seed=0, **more):
    """Session pairs whose log ratios scatter by ``wall_sd`` and ``cpu_sd`` from pair to pair."""
    rng = np.random.default_rng(seed)
    cpu_ratio = ratio if cpu_ratio is None else cpu_ratio
    made = []
    for _ in range(pairs):
        wall = 10 * ratio * math.exp(rng.normal(0, wall_sd))
        cpu = 10 * cpu_ratio * math.exp(rng.normal(0, cpu_sd))
        made.append((readings(rng, 10, **more), readings(rng, wall, cpu, **more)))
    return made


def report(made, **changes):
    given = {
        "names": ["a", "b"][: len(made[0])], "threads": 1, "provider": "CPUExecutionProvider",
        "pairs": 6, "min_runs": 20, "dims": {}, "machine": QUIET,
    }  # fmt: skip
    return summarize(made, **(given | changes))


class TestEstimate:
    @pytest.mark.parametrize("pairs", [2, 6, 12])
    def test_the_interval_is_scipys(self, pairs):
        logs = np.random.default_rng(pairs).normal(-0.2, 0.03, pairs)
        low, high = stats.t.interval(0.99, pairs - 1, loc=logs.mean(), scale=stats.sem(logs))
        found = estimate(logs)
        assert found.ratio == pytest.approx(math.exp(logs.mean()))
        assert (found.low, found.high) == pytest.approx((math.exp(low), math.exp(high)))
        assert found.cv == pytest.approx(stats.variation(np.exp(logs), ddof=1))

    def test_equal_pairs_have_no_width(self):
        found = estimate(np.zeros(6))
        assert (found.ratio, found.low, found.high, found.cv) == (1, 1, 1, 0)

    def test_it_covers_the_truth_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        found = [estimate(rng.normal(0.1, 0.05, 6)) for _ in range(2000)]
        covered = np.mean([f.low <= math.exp(0.1) <= f.high for f in found])
        assert 0.98 < covered < 0.998


class TestVerdict:
    @pytest.mark.parametrize(
        ("ratio", "low", "high", "word"),
        [
            (0.8, 0.78, 0.82, "faster"),
            (1.2, 1.1, 1.3, "slower"),
            (0.8, 0.6, 1.05, "no measurable change"),
            (1.2, 1.0, 1.4, "no measurable change"),
            (0.993, 0.992, 0.994, "no measurable change"),
            (1.007, 1.006, 1.008, "no measurable change"),
            (0.989, 0.988, 0.9905, "faster"),
        ],
    )
    def test_word(self, ratio, low, high, word):
        assert verdict(Estimate(ratio, low, high, 0.01)) == word


class TestChoose:
    def test_the_wall_clock_by_default(self):
        assert choose(Estimate(0.8, 0.7, 0.9, 0.02), Estimate(0.85, 0.8, 0.9, 0.01)) == (
            "wall", None,
        )  # fmt: skip

    def test_without_cpu_time_the_wall_clock_however_unsteady(self):
        assert choose(Estimate(0.8, 0.1, 9, 0.9), None) == ("wall", None)

    @pytest.mark.parametrize("cpu", [(0.8, 0.78, 0.82), (1.2, 1.18, 1.22)])
    def test_parted_clocks(self, cpu):
        clock, why = choose(Estimate(1.0, 0.98, 1.02, 0.01), Estimate(*cpu, 0.02))
        assert clock == "cpu"
        assert f"wall clock says 1.000 and one-thread CPU time {cpu[0]:.3f}" in why

    def test_clocks_that_part_by_less_than_matters(self):
        wall, cpu = Estimate(1.0, 0.999, 1.001, 0.001), Estimate(1.005, 1.004, 1.006, 0.001)
        assert choose(wall, cpu) == ("wall", None)

    def test_an_unsteady_wall_clock(self):
        clock, why = choose(Estimate(0.9, 0.5, 1.5, 0.3), Estimate(0.8, 0.79, 0.81, 0.01))
        assert clock == "cpu"
        assert "varied by 30.0% over session pairs, one-thread CPU time by 1.0%" in why

    def test_cpu_time_that_is_no_steadier(self):
        assert choose(Estimate(0.9, 0.5, 1.5, 0.3), Estimate(0.8, 0.4, 1.6, 0.4))[0] == "wall"


class TestSummarize:
    @pytest.mark.parametrize("seed", range(10))
    def test_a_model_against_itself(self, seed):
        found = report(rounds(seed=seed))
        assert (found.verdict, found.clock) == ("no measurable change", "wall")
        assert found.warnings == ()

    @pytest.mark.parametrize("seed", range(10))
    def test_a_fifth_faster_is_found_in_noise(self, seed):
        found = report(rounds(ratio=0.8, wall_sd=0.02, cpu_sd=0.02, jitter=0.5, seed=seed))
        assert found.verdict == "faster"
        assert found.ratio == pytest.approx(0.8, rel=0.05)
        assert found.interval[0] < 0.8 < found.interval[1]

    def test_slower(self):
        assert report(rounds(ratio=1.2)).verdict == "slower"

    def test_the_pairs_statistic_is_the_median(self):
        made = rounds()
        for first, second in made:
            first.wall[:40] *= 50  # other programs: far more than a mean would bear
            second.wall[-5:] *= 0.01
        logs = [math.log(np.median(b.wall) / np.median(a.wall)) for a, b in made]
        assert report(made).wall == pytest.approx(
            (estimate(np.array(logs)).ratio, estimate(np.array(logs)).low,
             estimate(np.array(logs)).high),
        )  # fmt: skip

    def test_a_disturbed_wall_clock_gives_way_to_cpu_time(self):
        found = report(rounds(ratio=0.8, wall_sd=0.4))
        assert (found.clock, found.verdict) == ("cpu", "faster")
        assert (found.ratio, *found.interval) == found.cpu
        assert any("the ratio is read from CPU time" in w for w in found.warnings)

    def test_clocks_that_part(self):
        found = report(rounds(ratio=1.3, cpu_ratio=0.8))
        assert (found.clock, found.verdict) == ("cpu", "faster")
        assert found.wall[0] == pytest.approx(1.3, rel=0.02)
        assert any("the wall clock says" in w for w in found.warnings)

    def test_without_cpu_time(self):
        made = [
            tuple(Readings(r.wall, np.empty(0), r.warm_up) for r in pair)
            for pair in rounds(ratio=0.8, wall_sd=0.1)
        ]
        found = report(made)
        assert (found.cpu, found.clock) == (None, "wall")
        assert any("wall time varied by" in w for w in found.warnings)

    def test_a_process_clock_too_coarse_for_the_readings(self):
        made = rounds(ratio=0.8)
        made[3][1].cpu[:60] = 0
        found = report(made)
        assert (found.cpu, found.clock, found.verdict) == (None, "wall", "faster")

    def test_latency_is_the_median_and_p90_of_all_runs_in_milliseconds(self):
        made = rounds(runs=25)
        for k in (0, 1):
            runs = np.concatenate([pair[k].wall for pair in made])
            latency = report(made).latency_ms[k]
            assert latency.median == pytest.approx(np.percentile(runs, 50) / 1e6)
            assert latency.p90 == pytest.approx(np.percentile(runs, 90) / 1e6)
        assert (report(made).pairs, report(made).runs) == (6, 300)

    def test_one_model_has_a_latency_and_no_ratio(self):
        found = report([pair[:1] for pair in rounds()])
        assert len(found.latency_ms) == 1
        none = (found.ratio, found.interval, found.clock, found.wall, found.cpu, found.verdict)
        assert none == (None,) * 6
        assert found.warnings == ()

    def test_one_model_that_varies_over_sessions(self):
        rng = np.random.default_rng(0)
        (warning,) = report([(readings(rng, ms),) for ms in (10, 11, 9, 12, 10, 13)]).warnings
        assert warning.startswith("wall time varied by ")


class TestWarnings:
    def test_a_busy_machine(self):
        busy = {"load average": "2.10 1.00 0.50", "cores": "2"}
        (warning,) = report(rounds(), machine=busy).warnings
        assert "load average 2.10 on 2 cores" in warning

    @pytest.mark.parametrize("load", ["1.90 9.00 9.00", "unknown"])
    def test_a_machine_that_is_not_known_to_be_busy(self, load):
        assert report(rounds(), machine={"load average": load, "cores": "2"}).warnings == ()

    def test_runs_that_waited_for_the_processor(self):
        made = [
            tuple(Readings(r.wall, r.cpu / 1.8, r.warm_up) for r in pair) for pair in rounds()
        ]  # fmt: skip
        (warning,) = report(made).warnings
        assert "runs took 1.8 times their CPU time" in warning
        assert report(made, threads=2).warnings == ()  # CPU time is then of other sessions

    def test_what_the_time_limit_cost(self):
        few = report(rounds(pairs=4, runs=3, warm_up=2, jitter=0))
        assert few.warnings == (
            "only 4 of 6 session pairs fitted the time limit",
            "slow model: the time limit cut the timed runs per session to 3 of 20",
            "slow model: the time limit cut the warm-up to 2 of 10 runs",
        )


class Clock:
    """A machine on which each run of a model takes a time known in advance."""

    def __init__(self, monkeypatch, seconds, creation=0.0):
        self.now, self.log, self.seconds, self.creation = 0.0, [], seconds, creation
        clock = self

        class Session:
            def __init__(self, model, *, threads, provider):
                clock.now += clock.creation
                self.model, self.threads = model, threads
                clock.log.append(("new", model, threads))

            def run(self, feeds):
                clock.now += clock.seconds[self.model] / self.threads
                clock.log.append((feeds, self.model, self.threads))

        monkeypatch.setattr(reading, "opened", Session)
        clocks = {"perf_counter": lambda: self.now} | dict.fromkeys(
            ("perf_counter_ns", "process_time_ns"), lambda: round(self.now * 1e9)
        )
        for room in (reading, measuring):
            monkeypatch.setattr(room, "time", SimpleNamespace(**clocks))
        monkeypatch.setattr(machine.os, "getloadavg", lambda: (0.0, 0.0, 0.0))

    def measure(self, models, feeds=("f",), **changes):
        given = {"names": models, "threads": 1, "provider": "CPUExecutionProvider"}
        return measure(list(models), feeds, **(given | changes))

    def sessions(self):
        """Return the log, split where a session pair begins."""
        new = [i for i, entry in enumerate(self.log) if entry[0] == "new"]
        starts = [i for i in new if i == 0 or self.log[i - 1][0] != "new"]
        return [self.log[a:b] for a, b in itertools.pairwise([*starts, len(self.log)])]


class TestMeasureOnAKnownMachine:
    def test_ratio_pairs_and_fresh_sessions(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 0.010, "b": 0.008})
        found = clock.measure("ab")
        assert found.ratio == pytest.approx(0.8)
        assert [x.median for x in found.latency_ms] == pytest.approx([10, 8])
        assert (found.verdict, found.pairs, found.warnings) == ("faster", 6, ())
        created = [[m for f, m, _ in part if f == "new"] for part in clock.sessions()]
        assert {"".join(pair) for pair in created} == {"ab", "ba"}
        assert len(created) == 6

    def test_the_runs_are_abba_or_baab_and_share_their_feeds(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 1 / 64, "b": 1 / 64})
        clock.measure("ab", feeds=("f", "g"))
        blocks = set()
        for part in clock.sessions():
            runs = [(feed, m) for feed, m, _ in part if feed != "new"][-40:]
            assert len(runs) == 40  # 20 readings of two models, no batches at 16 ms
            for i in range(0, 40, 4):
                block = runs[i : i + 4]
                assert len({feed for feed, _ in block}) == 1
                blocks.add((block[0][0], "".join(m for _, m in block)))
        assert blocks == {(f, order) for f in "fg" for order in ("abba", "baab")}

    def test_warm_up_lasts_ten_runs_and_200_ms(self, monkeypatch):
        for seconds, runs, timed in ((1 / 256, 52, 52), (1 / 8, 10, 20)):
            clock = Clock(monkeypatch, {"a": seconds})
            clock.measure("a")
            first = clock.sessions()[0]
            assert len(first) - 1 == runs + timed

    def test_short_runs_are_read_in_batches(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 1 / 1024})
        found = clock.measure("a")
        assert found.runs == 6 * 69 * 3  # readings of 3 runs reach 2 ms, 69 of them 200 ms
        assert found.latency_ms[0].median == pytest.approx(1000 / 1024)

    def test_batches_of_different_sizes_compare(self, monkeypatch):
        found = Clock(monkeypatch, {"a": 1 / 1024, "b": 1 / 64}).measure("ab")
        assert (found.wall[0], found.cpu[0]) == pytest.approx((16, 16))

    def test_the_slower_model_says_how_many_readings(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 1 / 256, "b": 1 / 4})
        assert clock.measure("ab", time_limit=None).runs == 6 * 2 * 20

    def test_a_slow_model_gets_less_of_everything_and_a_warning(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 2.0, "b": 1.0})
        found = clock.measure("ab", time_limit=60.0)
        assert found.ratio == pytest.approx(0.5)
        assert clock.now <= 72
        assert any("timed runs" in w for w in found.warnings)
        assert any("warm-up to 1 of 10" in w for w in found.warnings)

    def test_a_hopelessly_slow_model_still_gets_an_interval(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 100.0, "b": 80.0})
        found = clock.measure("ab", time_limit=1.0)
        assert (found.pairs, found.verdict) == (2, "faster")
        assert "only 2 of 6 session pairs fitted the time limit" in found.warnings

    def test_sessions_that_take_long_to_make_count_as_time(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 0.01, "b": 0.01}, creation=10.0)
        found = clock.measure("ab", time_limit=60.0)
        assert (found.pairs, found.runs) == (2, 4)  # a third pair would end after 60 s
        assert clock.now < 60

    def test_without_a_limit_nothing_is_cut(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 5.0, "b": 5.0})
        assert clock.measure("ab", time_limit=None).runs == 6 * 2 * 20

    @pytest.mark.parametrize(("cpu_sd", "pairs"), [(0.2, 12), (0.0, 6)])
    def test_more_pairs_while_the_interval_that_decides_is_wide(self, monkeypatch, cpu_sd, pairs):
        made = iter(rounds(pairs=12, wall_sd=0.2, cpu_sd=cpu_sd, jitter=0))
        monkeypatch.setattr(measuring, "_round", lambda *_: next(made))
        assert Clock(monkeypatch, {}).measure("ab").pairs == pairs

    def test_threads_have_one_thread_sessions_beside_them(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 0.08, "b": 0.04})
        found = clock.measure("ab", threads=4)
        assert {threads for _, _, threads in clock.log} == {1, 4}
        assert [x.median for x in found.latency_ms] == pytest.approx([20, 10])
        assert (found.wall[0], found.cpu[0]) == pytest.approx((0.5, 0.5))

    def test_one_model_with_threads_needs_no_sessions_beside(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 0.08})
        clock.measure("a", threads=4)
        assert {threads for _, _, threads in clock.log} == {4}

    def test_cpu_time_says_nothing_about_another_provider(self, monkeypatch):
        clock = Clock(monkeypatch, {"a": 0.02, "b": 0.01})
        found = clock.measure("ab", provider="CUDAExecutionProvider", threads=4)
        assert (found.cpu, found.clock, found.verdict) == (None, "wall", "faster")
        assert {threads for _, _, threads in clock.log} == {4}

    def test_the_seed_fixes_the_orders(self, monkeypatch):
        logs = []
        for seed in (1, 1, 2):
            clock = Clock(monkeypatch, {"a": 0.01, "b": 0.01})
            clock.measure("ab", seed=seed)
            logs.append(clock.log)
        assert logs[0] == logs[1] != logs[2]


class TestMeasureForReal:
    def test_two_models(self, tmp_path):
        path = tmp_path / "a.onnx"
        onnx.save(model(), path)
        found = measure(
            [path, model(2)], [FEED], names=["a", "b"], threads=1, min_runs=1, pairs=2,
            provider="CPUExecutionProvider", time_limit=0.5, dims={"n": 2},
        )  # fmt: skip
        assert (found.models, found.dims, found.threads) == (("a", "b"), {"n": 2}, 1)
        assert all(0 < x.median <= x.p90 for x in found.latency_ms)
        assert found.interval[0] <= found.ratio <= found.interval[1]
        assert (found.ratio, *found.interval) in (found.wall, found.cpu)
        assert all(found.machine.values())
        assert {"cpu", "cores", "load average", "onnxruntime", "provider", "threads", "python",
                "os"} == set(found.machine)  # fmt: skip
        validate(to_json(found), "onnxprune-bench/1", "measure")

    def test_one_model_as_bytes(self):
        found = measure([model().SerializeToString()], [FEED], names=["a"], pairs=2, time_limit=0.2)
        assert (len(found.latency_ms), found.verdict) == (1, None)
        validate(to_json(found), "onnxprune-bench/1", "measure")

    def test_a_model_that_does_not_load(self):
        with pytest.raises(RunFailedError):
            measure([b"no model"], [FEED], names=["a"])

    def test_inputs_that_the_second_model_rejects(self):
        other = model()
        other.graph.input[0].name = other.graph.node[0].input[0] = "z"
        with pytest.raises(RunFailedError, match="z"):
            measure([model(), other], [FEED], names=["a", "b"], time_limit=0.2)

    def test_a_provider_that_is_not_there(self):
        with pytest.raises(UsageError, match="no provider 'NoSuchProvider'"):
            measure([model()], [FEED], names=["a"], provider="NoSuchProvider")

    @pytest.mark.parametrize(
        "changes",
        [
            {"models": []},
            {"models": [b"", b"", b""], "names": ["a", "b", "c"]},
            {"names": ["a", "b"]},
            {"feeds": []},
            {"pairs": 1},
        ],
    )
    def test_misuse(self, changes):
        given = {"models": [model()], "feeds": [FEED], "names": ["a"]} | changes
        with pytest.raises(ValueError, match="one or two named models"):
            measure(given.pop("models"), given.pop("feeds"), **given)
