"""What the command line accepts: each argument and option once, for all commands that take it."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from onnxprune.options import MethodName

__all__ = [
    "AllowInterfaceChange",
    "Batch",
    "Cache",
    "Confidence",
    "Data",
    "Dim",
    "DryRun",
    "Exclude",
    "Force",
    "InputShape",
    "Jobs",
    "Json",
    "Labels",
    "Latency",
    "LatencyTable",
    "Loader",
    "Macs",
    "MaxDrop",
    "MaybeTarget",
    "Method",
    "Metric",
    "MultipleOf",
    "NoVerify",
    "Pairs",
    "Params",
    "Pareto",
    "PlanFile",
    "Profile",
    "Provider",
    "Quiet",
    "Recover",
    "ReportPage",
    "RequireCertificate",
    "Runs",
    "Samples",
    "SavePlan",
    "Seed",
    "Size",
    "Source",
    "Table",
    "Target",
    "Threads",
    "TimeLimit",
    "WarmUp",
]

_reach = partial(typer.Option, rich_help_panel="What to reach")
_inputs = partial(typer.Option, rich_help_panel="Inputs")
_quality = partial(typer.Option, rich_help_panel="What is lost")
_cutting = partial(typer.Option, rich_help_panel="Choosing channels")
_repair = partial(typer.Option, rich_help_panel="Repair")
_timing = partial(typer.Option, rich_help_panel="Timing")
_outputs = partial(typer.Option, rich_help_panel="Outputs")

Source = Annotated[Path, typer.Argument(metavar="IN", help="The model.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help="The pruned model.")]
MaybeTarget = Annotated[
    Path | None, typer.Argument(metavar="OUT", help="Where the pruned model goes.")
]
PlanFile = Annotated[Path, typer.Option("--plan", metavar="F.json", help="Which channels go.")]
Data = Annotated[
    Path | None,
    _inputs(
        metavar="PATH",
        help="Sample inputs: .npz (keys are input names), .npy, a directory of these, of images or "
        "of ORT test_data_set_*. Synthetic inputs without it.",
    ),
]
Loader = Annotated[
    str | None,
    _inputs(metavar="FILE.py:FUNCTION", help="Yields sample inputs; runs your code."),
]
Macs = Annotated[
    float | None,
    _reach("--macs", help="Ratio of the multiply-accumulates to reach.", metavar="R"),
]
Params = Annotated[
    float | None, _reach("--params", help="Ratio of the parameters to reach.", metavar="R")
]
Size = Annotated[
    float | None, _reach("--size", help="Ratio of the file size to reach.", metavar="R")
]
Latency = Annotated[
    float | None,
    _reach("--latency", help="Ratio of the measured time to reach.", metavar="R"),
]
LatencyTable = Annotated[
    Path | None,
    _timing(
        "--latency-table",
        metavar="F.json",
        help="Operator times of the target device, from 'bench --table' there.",
    ),
]
Cache = Annotated[
    Path | None,
    _cutting(
        metavar="DIR",
        help="Keeps this machine's operator times, and measured groups, so that a measurement that "
        "was broken off goes on.",
    ),
]
MaxDrop = Annotated[
    float | None,
    _reach(
        "--max-drop",
        metavar="D",
        min=0.0,
        help="Most quality that may be lost, in the metric; with no ratio: prune as far as it "
        "allows (default then: 0.01 agreement or accuracy, 0.10 relative_l2).",
    ),
]
Metric = Annotated[
    list[str] | None,
    _quality(
        metavar="[OUTPUT=]NAME[*WEIGHT]",
        help="agreement, accuracy, kl, relative_l2, cosine, mean_iou, or FILE.py:FUNCTION (runs "
        "your code). Guessed without it. Repeatable.",
    ),
]
Labels = Annotated[
    str | None,
    _quality(
        metavar="PATH-or-KEY", help="Class numbers of the samples: a file, or a key of the data."
    ),
]
Confidence = Annotated[float, _quality(metavar="C", help="Confidence of the certificate.")]
RequireCertificate = Annotated[
    bool, _quality("--require-certificate", help="Write nothing whose drop is not certified.")
]
Exclude = Annotated[
    list[str] | None,
    _cutting(
        metavar="PATTERN",
        help="What stays whole: wildcards on group, value or node name, or op:Type. Repeatable.",
    ),
]
AllowInterfaceChange = Annotated[
    bool,
    _cutting(
        "--allow-interface-change",
        help="Channels may go that lie on graph inputs or outputs: states, caches, features.",
    ),
]
MultipleOf = Annotated[
    int | None,
    _cutting(metavar="N", min=1, help="Kept widths are multiples of N."),
]
InputShape = Annotated[
    list[str] | None,
    _inputs(metavar="NAME:1,3,224,224", help="Shape of a dynamic input. Repeatable."),
]
Dim = Annotated[
    list[str] | None,
    _inputs(metavar="NAME=N", help="Size of a named dynamic dimension. Repeatable."),
]
Profile = Annotated[
    list[str] | None,
    _reach(
        metavar="NAME=N[,NAME=N]",
        help="Sizes of named dynamic dimensions to time at. Repeatable: a latency is then promised "
        "at each of them.",
    ),
]
Samples = Annotated[int, _inputs(metavar="N", min=1, help="Most samples to use.")]
Seed = Annotated[int, _inputs(metavar="S", min=0, help="Fixes every random choice.")]
Threads = Annotated[int, _timing(metavar="N", min=1, help="Threads of timed sessions.")]
Provider = Annotated[str, _timing(metavar="EP", help="Execution provider of timed sessions.")]
TimeLimit = Annotated[float, _cutting(metavar="S", help="Seconds that measuring may take.")]
Recover = Annotated[
    bool,
    _repair("--recover/--no-recover", help="Refit the kept weights to the original, or not."),
]
Branches = Annotated[
    bool,
    _cutting(
        "--branches/--no-branches",
        help="Let whole residual branches go too, where the result stays nearer for it.",
    ),
]
Switches = Annotated[
    bool,
    _cutting(
        "--switches/--no-switches",
        help="Switch widths between groups, where the result stays nearer for it.",
    ),
]
Method = Annotated[
    MethodName,
    _cutting(
        metavar="M",
        help="How channels are measured: perturbation (exact), gradient, reconstruction, or auto, "
        "which takes what is exact or meant for a refit, in time.",
    ),
]
Jobs = Annotated[
    int, _cutting(metavar="N", min=1, help="Processes that perturb channels; they share the cores.")
]
Pairs = Annotated[int, _timing(metavar="N", min=2, help="Pairs of fresh sessions.")]
Runs = Annotated[int, _timing(metavar="N", min=1, help="Timed readings per session.")]
WarmUp = Annotated[int, _timing(metavar="N", min=1, help="Runs before the first reading.")]
Batch = Annotated[int, _timing(metavar="N", min=1, help="Samples per run.")]
Table = Annotated[
    Path | None,
    _outputs(
        "--table", metavar="F.json", help="Write down the operator times of A for --latency-table."
    ),
]
Pareto = Annotated[
    Path | None,
    _outputs(metavar="DIR", help="New folder for a table of what can be had, with plans."),
]
SavePlan = Annotated[Path | None, _outputs(metavar="F.json", help="Write down what went.")]
Json = Annotated[
    str | None, _outputs("--json", metavar="F.json", help="Report as JSON; - is stdout.")
]
ReportPage = Annotated[
    Path | None, _outputs("--report", metavar="F.html", help="Report as a page for a browser.")
]
DryRun = Annotated[bool, _outputs("--dry-run", help="Write no model; OUT may be left out.")]
Force = Annotated[bool, _outputs("--force", help="Overwrite OUT.")]
Quiet = Annotated[bool, _outputs("--quiet", help="Print errors only.")]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Do not cut each group alone to prove it.")
]
