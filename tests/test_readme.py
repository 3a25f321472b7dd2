"""The README says what the program does: its commands, options, exit codes and links hold."""

import json
import re
import shlex
from pathlib import Path

import onnx
import pytest
import typer

from onnxprune import errors
from onnxprune.cli import app, main
from onnxprune.documents import validate
from onnxprune.quality.metrics import METRICS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
COMMANDS = typer.main.get_command(app).commands
SETUPS = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)


def table(title):
    """Return the rows of the table whose first column has a title, as lists of cells."""
    lines = README.split(f"\n| {title} |", 1)[1].splitlines()[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def options_of(command):
    names = {name for p in COMMANDS[command].params for name in p.opts if name.startswith("--")}
    return names - {"--help"}


def test_the_commands_are_those_of_the_program():
    described = [row[0].strip("`").split()[0] for row in table("command")]
    assert described == list(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_options_are_those_of_the_program(command):
    described = {
        name.strip("`").split()[0]
        for name, commands, _ in table("option")
        if commands == "all" or command in commands.split(", ")
    }
    assert described == options_of(command)


def test_no_option_is_described_twice():
    names = [row[0] for row in table("option")]
    assert len(names) == len(set(names))


def test_the_exit_codes_are_those_of_the_program():
    codes = {error.exit_code for error in errors.OnnxPruneError.__subclasses__()}
    assert {int(row[0]) for row in table("exit code")} == codes | {0, 1, 130}


def test_every_safeguard_has_the_test_that_makes_it_fire():
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    rows = table("safeguard")
    assert len(rows) >= 5
    for row in rows:
        for name in re.findall(r"`(test_\w+)`", row[-1]):
            assert f"def {name}(" in tests, name
        assert "test_" in row[-1], row


def test_the_metrics_are_those_of_the_program():
    described = {row[0].strip("`"): row[2] for row in table("metric")}
    own = described.pop("FILE.py:FUNCTION")
    assert "--max-drop" in own
    assert {name: f"{metric.default:.2f}" for name, metric in METRICS.items()} == described


def test_two_setups_one_runs_and_one_tests():
    run, tests = SETUPS
    assert "onnxprune run" in run
    assert "pytest" not in run
    assert "pytest" in tests
    for setup in SETUPS:
        assert setup.startswith("python3 -m venv .venv")
        steps = setup.rstrip().split(" &&\n")
        assert len(steps) == len(setup.splitlines())
        assert all(step.startswith(".venv") for step in steps[1:])


def test_ci_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "README.md" in script
    assert '-c "$tests"' in script
    assert "-m pytest" not in script  # no second way to run them


def test_links_lead_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links
    for link in links:
        assert (ROOT / link.split("#")[0]).exists(), link


def test_schemas_are_where_it_says():
    assert sorted(p.name for p in (ROOT / "onnxprune/schemas").glob("*.json")) == [
        "bench-1.json",
        "front-1.json",
        "inspect-1.json",
        "latency-1.json",
        "plan-1.json",
        "report-1.json",
        "sensitivity-1.json",
        "verify-1.json",
    ]


def test_the_main_job_does_what_it_says(tmp_path, monkeypatch, capsys):
    line = SETUPS[0].rstrip().splitlines()[-1]
    program, *arguments = shlex.split(line)
    assert program.endswith("/onnxprune")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json", "report.json"])
    out, err = capsys.readouterr()
    assert end.value.code == 0, err
    assert (tmp_path / "out.onnx").stat().st_size > 0
    assert "wrote model out.onnx" in out
    report = json.loads((tmp_path / "report.json").read_text())
    validate(report, "onnxprune-report/1", "report.json")
    assert report["after"]["macs"] <= 0.5 * report["before"]["macs"]
    assert any(group["after"] < group["before"] for group in report["groups"])


def test_the_python_example_does_what_it_says(tmp_path, monkeypatch, capsys):
    (example,) = (
        code
        for code in re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
        if "import onnxprune" in code
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").symlink_to(ROOT / "models")
    exec(compile(example, "README.md", "exec"), {})
    macs, drop = map(float, capsys.readouterr().out.split())
    assert 0.3 < macs <= 0.5
    assert drop <= 0.05
    assert onnx.load("small.onnx").graph.node
    validate(json.loads(Path("plan.json").read_text()), "onnxprune-plan/1", "plan.json")
