"""The command line: what it accepts, what it passes on, what it prints, how it ends."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import create_autospec

import pytest
import typer

import onnxprune
from onnxprune import errors, pipeline
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.cli import app, main
from onnxprune.documents import validate
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.report.inspected import Coverage, Inspection
from onnxprune.report.values import Figures, Ratios, Report, VerifyReport

COMMANDS = typer.main.get_command(app).commands


@pytest.fixture
def answers(monkeypatch):
    """Replace the work of every command by an answer; calls must fit the real signatures."""
    figures = Figures(10, 20, 30, None, 40)
    report = Report(
        source="in.onnx",
        target="out.onnx",
        before=figures,
        after=figures,
        ratios=Ratios(1.0, 1.0, 1.0, None, None, None),
        drop=None,
        removed=[],
        groups=[],
        verified=None,
        dims={},
        options={},
        seconds={},
        seed=0,
        versions={},
        warnings=["mind the gap"],
    )
    latency = [Latency(1.0, 2.0, 3.0)]
    values = {
        "run": report,
        "apply": report,
        "inspect": Inspection(
            "in.onnx", 10, 20, 30, 17, [], [], Coverage(1.0, 1.0, 1.0, 1.0), {}, []
        ),
        "verify": VerifyReport("in.onnx", "out.onnx", 0.0, 2, True, [], ok=True),
        "bench": BenchReport(
            ["in.onnx"], latency, *[None] * 6, 0, 10, 1, "CPUExecutionProvider", {}, {}, []
        ),
    }
    for name, value in values.items():
        fake = create_autospec(getattr(pipeline, name), return_value=value)
        monkeypatch.setattr(pipeline, name, fake)
    return pipeline


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    """Run the command line in an empty directory: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)

    def go(*arguments):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return go


RUN = ("run", "in.onnx", "out.onnx", "--macs", "0.5")
LINES = {
    "run": RUN,
    "inspect": ("inspect", "in.onnx"),
    "apply": ("apply", "in.onnx", "out.onnx", "--plan", "p.json"),
    "verify": ("verify", "in.onnx", "out.onnx", "--plan", "p.json"),
    "bench": ("bench", "in.onnx"),
}
FORMATS = {name: f"onnxprune-{name}/1" for name in ("inspect", "verify", "bench")} | {
    "run": "onnxprune-report/1",
    "apply": "onnxprune-report/1",
}


class TestArguments:
    def test_run_passes_everything_on(self, answers, call):
        code, _, err = call(
            *("run", "in.onnx", "out.onnx", "--data", "d.npz", "--loader", "l.py:f"),
            *("--macs", "0.5", "--params", "0.6", "--size", "0.7", "--exclude", "a*"),
            *("--exclude", "op:Gemm", "--multiple-of", "8", "--samples", "9", "--seed", "3"),
            *("--no-recover", "--time-limit", "7.5", "--threads", "2", "--provider", "EP"),
            *("--input-shape", "x:1,3", "--dim", "n=4", "--save-plan", "p.json", "--force"),
            *("--latency", "0.8", "--latency-table", "t.json", "--cache", "c", "--pareto", "f"),
        )
        assert code == 0, err
        (source, target, options), keywords = answers.run.call_args
        assert (source, target) == (Path("in.onnx"), Path("out.onnx"))
        assert options == Options(
            data=Path("d.npz"),
            loader="l.py:f",
            macs=0.5,
            params=0.6,
            size=0.7,
            latency=0.8,
            latency_table=Path("t.json"),
            cache=Path("c"),
            exclude=("a*", "op:Gemm"),
            multiple_of=8,
            input_shapes={"x": (1, 3)},
            dims={"n": 4},
            samples=9,
            seed=3,
            threads=2,
            provider="EP",
            time_limit=7.5,
            recover=False,
        )
        del keywords["progress"]
        assert keywords == {
            "save_plan": Path("p.json"), "pareto": Path("f"), "dry_run": False, "force": True
        }  # fmt: skip

    def test_defaults_are_those_of_options(self, answers, call):
        call(*RUN)
        assert answers.run.call_args.args[2] == Options(macs=0.5)
        call(*LINES["bench"])
        assert answers.bench.call_args.args == (Path("in.onnx"), None, Options())

    @pytest.mark.parametrize("command", ["inspect", "apply", "verify", "bench"])
    def test_data_options_reach_every_command(self, answers, call, command):
        more = ("--data", "d", "--loader", "l.py:f", "--samples", "9", "--seed", "3")
        code, _, err = call(*LINES[command], *more, "--input-shape", "1x3", "--dim", "n=4")
        assert code == 0, err
        options = next(
            a for a in getattr(answers, command).call_args.args if isinstance(a, Options)
        )
        assert options == Options(
            data=Path("d"),
            loader="l.py:f",
            samples=9,
            seed=3,
            input_shapes={"": (1, 3)},
            dims={"n": 4},
        )

    def test_inspect(self, answers, call):
        call("inspect", "in.onnx", "--no-verify", "--exclude", "a*")
        assert answers.inspect.call_args.kwargs["verify"] is False
        assert answers.inspect.call_args.args[1].exclude == ("a*",)
        call("inspect", "in.onnx")
        assert answers.inspect.call_args.kwargs["verify"] is True

    def test_apply_and_verify_take_a_plan(self, answers, call):
        call(*LINES["apply"], "--force")
        assert answers.apply.call_args.args[:3] == (
            Path("in.onnx"),
            Path("out.onnx"),
            Path("p.json"),
        )
        assert answers.apply.call_args.kwargs["force"] is True
        call(*LINES["verify"])
        assert answers.verify.call_args.args[2] == Path("p.json")

    def test_dry_run_needs_no_out(self, answers, call):
        assert call("run", "in.onnx", "--macs", "0.5", "--dry-run")[0] == 0
        assert answers.run.call_args.args[1] is None
        assert answers.run.call_args.kwargs["dry_run"] is True

    def test_version(self, call):
        assert call("--version") == (0, f"onnxprune {onnxprune.__version__}\n", "")

    @pytest.mark.parametrize("command", sorted(COMMANDS))
    def test_every_command_has_help(self, call, command):
        code, out, _ = call(command, "--help")
        assert code == 0
        assert "--json" in out
        assert "--quiet" in out


class TestUsageErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "Missing command"),
            (["shrink"], "No such command 'shrink'"),
            (["run", "in.onnx", "--macs", "0.5"], "OUT is missing"),
            ([*RUN, "more"], "unexpected extra argument"),
            ([*RUN, "--mac", "0.5"], "--macs"),
            ([*RUN, "--latency", "1.5"], "1.5 is not between 0 and 1"),
            ([*RUN, "--samples", "0"], "--samples"),
            ([*RUN, "--multiple-of", "0"], "--multiple-of"),
            ([*RUN, "--seed", "-1"], "--seed"),
            ([*RUN, "--max-drop", "-0.1"], "--max-drop"),
            ([*RUN, "--confidence", "1"], "not between 0 and 1"),
            ([*RUN, "--threads", "many"], "--threads"),
            ([*RUN, "--time-limit", "0"], "not a positive number of seconds"),
            ([*RUN, "--time-limit", "inf"], "not a positive number of seconds"),
            ([*RUN, "--input-shape", "x"], "cannot read input shape 'x'"),
            ([*RUN, "--dim", "batch"], "cannot read dimension 'batch'"),
            ([*RUN, "--dim", "n=1", "--dim", "n=2"], "gives 'n' twice"),
            ([*RUN, "--input-shape", "x:1", "--input-shape", "x:2"], "gives 'x' twice"),
            (["apply", "in.onnx", "out.onnx"], "--plan"),
            (["bench"], "Missing argument 'A'"),
        ],
    )
    def test_one_line_and_code_2(self, answers, call, arguments, message):
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert message in err
        assert not answers.run.called

    @pytest.mark.parametrize("option", ["--macs", "--params", "--size"])
    @pytest.mark.parametrize("ratio", ["0", "1", "-0.5", "1.5", "nan", "half"])
    def test_ratio_outside_0_to_1(self, answers, call, option, ratio):
        code, _, err = call("run", "in.onnx", "out.onnx", option, ratio)
        assert code == 2
        assert option in err
        assert "between 0 and 1" in err or "onnxprune run --help" in err
        assert not answers.run.called

    @pytest.mark.parametrize("option", ["--json", "--save-plan", "--report"])
    @pytest.mark.parametrize("path", ["in.onnx", "./out.onnx", "d.npz"])
    def test_an_output_must_not_overwrite_another_file(self, answers, call, option, path):
        code, _, err = call(*RUN, "--data", "d.npz", option, path)
        assert code == 2
        assert "would overwrite another file" in err
        assert not answers.run.called

    def test_two_outputs_must_differ(self, answers, call):
        code, _, err = call(*RUN, "--json", "x.json", "--save-plan", "x.json")
        assert code == 2
        assert "would overwrite" in err
        assert not answers.run.called

    def test_out_replaces_neither_data_nor_plan(self, answers, call):
        for line in (
            ("run", "in.onnx", "d.npz", "--data", "./d.npz", "--macs", "0.5", "--force"),
            ("apply", "in.onnx", "p.json", "--plan", "p.json", "--force"),
        ):
            code, _, err = call(*line)
            assert code == 2
            assert "would overwrite another file" in err
        assert not answers.run.called
        assert not answers.apply.called

    @pytest.mark.parametrize(
        "line",
        [
            ("run", "in.onnx", "-", "--macs", "0.5"),
            ("run", "in.onnx", "out.onnx", "--save-plan", "-"),
            ("run", "in.onnx", "out.onnx", "--report", "-"),
            ("apply", "in.onnx", "-", "--plan", "p.json"),
        ],
    )
    def test_only_the_report_goes_to_standard_output(self, answers, call, line):
        code, _, err = call(*line)
        assert code == 2
        assert "not to standard output (-)" in err
        assert not answers.run.called
        assert not answers.apply.called

    def test_models_do_not_come_from_standard_input(self, call):
        code, _, err = call("inspect", "-")
        assert code == 3
        assert "models are read from files" in err

    def test_output_places_are_checked_before_the_work(self, answers, call, tmp_path):
        assert "does not exist" in call(*RUN, "--json", "no/such/r.json")[2]
        assert "is a directory" in call(*RUN, "--save-plan", str(tmp_path))[2]
        assert not answers.run.called


class TestOutput:
    @pytest.mark.parametrize("command", sorted(LINES))
    def test_json_on_stdout_is_pure_and_fits_its_schema(self, answers, call, command):
        code, out, err = call(*LINES[command], "--json", "-")
        assert code == 0
        validate(json.loads(out), FORMATS[command], "stdout")
        assert "in.onnx" in err

    @pytest.mark.parametrize("command", sorted(LINES))
    def test_json_file(self, answers, call, tmp_path, command):
        code, out, _ = call(*LINES[command], "--json", "r.json")
        assert code == 0
        validate(json.loads((tmp_path / "r.json").read_text()), FORMATS[command], "r.json")
        assert "wrote report r.json" in out
        assert [p.name for p in tmp_path.iterdir()] == ["r.json"]

    @pytest.mark.parametrize("command", sorted(LINES))
    def test_quiet_prints_nothing(self, answers, call, command):
        assert call(*LINES[command], "--quiet") == (0, "", "")
        progress = getattr(answers, command).call_args.kwargs["progress"]
        assert isinstance(progress, Silent)

    def test_quiet_leaves_the_json(self, answers, call):
        _, out, err = call(*RUN, "--quiet", "--json", "-")
        assert json.loads(out)["format"] == "onnxprune-report/1"
        assert err == ""

    def test_table_says_what_was_written(self, answers, call):
        _, out, _ = call(*RUN, "--save-plan", "p.json")
        assert "wrote model out.onnx" in out
        assert "wrote plan p.json" in out
        assert "warning: mind the gap" in out

    @pytest.mark.parametrize("command", ["run", "apply"])
    def test_page(self, answers, call, tmp_path, command):
        _, out, _ = call(*LINES[command], "--report", "r.html")
        assert "wrote page r.html" in out
        assert "out.onnx</h1>" in (tmp_path / "r.html").read_text("utf-8")

    def test_dry_run_claims_no_model(self, answers, call):
        _, out, _ = call(*RUN, "--dry-run")
        assert "wrote" not in out

    def test_notes_go_to_stderr(self, answers, call, monkeypatch):
        report = answers.run.return_value

        def noisy(*_, progress, **__):
            progress.stage("load")
            progress.note("inputs are synthetic")
            return report

        monkeypatch.setattr(pipeline, "run", noisy)
        _, out, err = call(*RUN)
        assert err == "note: inputs are synthetic\n"
        assert "synthetic" not in out


class TestEnds:
    @pytest.mark.parametrize(
        "error",
        [errors.UsageError, errors.InputError, errors.VerificationError, errors.BudgetError],
    )
    def test_errors_are_one_line_with_their_code(self, answers, call, error):
        answers.run.side_effect = error("what,\nwhere and how")
        code, out, err = call(*RUN, "--json", "r.json")
        assert (code, out, err) == (error.exit_code, "", "error: what, where and how\n")
        assert not Path("r.json").exists()

    def test_a_defect_keeps_its_trace(self, answers, call):
        answers.run.side_effect = ZeroDivisionError("deep inside")
        code, out, err = call(*RUN)
        assert (code, out) == (1, "")
        assert "Traceback" in err
        assert "ZeroDivisionError: deep inside" in err
        assert "defect of onnxprune, please report it" in err.splitlines()[-1]

    def test_interrupt(self, answers, call):
        answers.run.side_effect = KeyboardInterrupt
        assert call(*RUN, "--json", "r.json") == (130, "", "error: interrupted\n")
        assert not Path("r.json").exists()

    def test_verify_that_does_not_hold_reports_and_ends_with_4(self, answers, call):
        found = answers.verify.return_value
        answers.verify.return_value = dataclasses.replace(
            found, ok=False, same_bytes=False, differences=["initializer 'w'"]
        )
        code, out, err = call(*LINES["verify"], "--json", "r.json")
        assert code == 4
        assert "initializer 'w'" in out
        assert err.startswith("error: 'out.onnx' is not what 'p.json' makes of 'in.onnx'")
        assert json.loads(Path("r.json").read_text())["ok"] is False

    def test_unwritable_report(self, answers, call, monkeypatch):
        monkeypatch.setattr(Path, "write_text", _full_disk)
        code, _, err = call(*RUN, "--json", "r.json")
        assert code == 2
        assert "cannot write" in err
        assert "No space left" in err
        assert not Path("r.json").exists()


def _full_disk(*_, **__):
    raise OSError(28, "No space left on device")


SCRIPT = """
import sys
from onnxprune import cli, pipeline
from onnxprune.report.values import VerifyReport
report = VerifyReport("in.onnx", "out.onnx", 0.0, 2, True, ["x" * 99] * 5000, ok=True)
pipeline.verify = lambda *a, **k: report
cli.main(["verify", "in.onnx", "out.onnx", "--plan", "p.json", *sys.argv[1:]])
"""


@pytest.mark.parametrize("more", [[], ["--json", "-"]])
def test_a_closed_pipe_is_no_failure(tmp_path, more):
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(onnxprune.__file__).parents[1])},
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read().decode()
        code = process.wait()
    assert code == 0, err
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_python_dash_m():
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "--version"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(onnxprune.__file__).parents[1],
    )
    assert (done.returncode, done.stdout) == (0, f"onnxprune {onnxprune.__version__}\n")
