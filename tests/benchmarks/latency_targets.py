"""Ask every network for a measured latency, and print what was reached or why it was refused.

    python tests/benchmarks/latency_targets.py [--latency 0.7] [--only NAME] [--rival] [--peers]
        [--no-branches]

Prints per network the measured ratio with its 99 % interval, whose upper end must keep the ratio,
or the refusal; the MACs ratio beside the latency ratio; on the scoring samples, which had no part
in it, the disagreement with the original's classes and the relative error of the output.
``--rival`` cuts by MACs alone until the latency is the same, and prints its drop beside ours, with
the 95 % interval of the difference on the same samples (above 0: ours lost less).
``--peers`` cuts the network with torch-pruning to the same MACs, and prints what that does to the
latency (needs torch and torch-pruning; the digits networks are rebuilt with random weights).
``--no-branches`` keeps all residual branches, which takes less time.

Every row is a process of its own, ended after ``--row-limit`` seconds. Finished rows are kept in
``--rows FILE`` and not done again: broken off, the same command goes on. Ends with 1 if a row
breaks its promise.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from scoring import classes, original, outputs
from shared_data import Network, own_networks, shared_networks

from onnxprune.bench.machine import machine
from onnxprune.errors import OnnxPruneError
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.report.values import Report
from onnxprune.runtime.session import RUNTIME_VERSION, Session

_CLOSE = 0.02  # of the latency ratio: near enough to compare drops
_TRIES = 6
_SHARE = 0.5  # of the row limit after which no further try is begun
_FLOOR, _CEILING = 0.03, 0.98  # ratios of MACs that are worth a try
_GRACE = 1.2  # times the limit after which a row that does not stop by itself is ended
KINDS = {"ours": "", "rival": "  by MACs alone", "peer": "  torch-pruning"}


@dataclass(frozen=True)
class Row:
    """What came of one network, one latency and one way to cut."""

    kind: str
    network: str
    asked: float
    latency: float | None = None
    low: float | None = None
    high: float | None = None
    macs: float | None = None
    disagreement: float | None = None
    error: float | None = None
    refused: str = ""
    seconds: float = 0.0
    lost: Sequence[float] = ()
    errors: Sequence[float] = ()

    @property
    def key(self) -> tuple[str, str, float]:
        return self.kind, self.network, self.asked

    def less(self, other: "Row") -> str:
        """Say what it loses less than another row on the same samples."""
        pairs = ((self.lost, other.lost), (self.errors, other.errors))
        return " error ".join("{:+.4f} ({:+.4f} to {:+.4f})".format(*gap(*p)) for p in pairs)

    def __str__(self) -> str:
        name = KINDS[self.kind] or f"{self.network:24} {self.asked:.2f}"
        if self.latency is None:
            return f"{name:29}  {self.refused}  {self.seconds:.0f} s"
        drop = ""
        if self.disagreement is not None:
            drop = f"  disagreement {self.disagreement:.4f}, error {self.error:.3f}"
        ends = "" if self.low is None else f" ({self.low:.3f}-{self.high:.3f})"
        what = f"latency {self.latency:.3f}{ends}  MACs {self.macs:.3f}{drop}  {self.refused}"
        return f"{name:29}  {what}  {self.seconds:.0f} s"


def gap(mine: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of what another loses more per sample, and its 95 % interval."""
    more = np.subtract(other, mine)
    half = 1.96 * more.std(ddof=1) / np.sqrt(len(more))
    return float(more.mean()), float(more.mean() - half), float(more.mean() + half)


def networks() -> dict[str, Network]:
    return {n.name: n for n in (*own_networks(), *shared_networks()) if n.present}


@dataclass(frozen=True)
class Made:
    """A report, and what was lost on each of the scoring samples."""

    report: Report
    lost: Sequence[float]
    errors: Sequence[float]

    @property
    def latency(self) -> float:
        return self.report.ratios.latency or 1.0


def pruned(network: Network, folder: Path, **choices: object) -> Made:
    """Run the main job once."""
    name = Session(load(network.path).path).inputs[0].name
    data = folder / "inputs.npz"
    np.savez(data, **{name: network.calibration()})
    options = Options(data=data, **choices)  # type: ignore[arg-type]
    report = run(network.path, folder / "out.onnx", options, force=True)
    before = original(network)
    after = outputs(folder / "out.onnx", network.score()[0])
    old, new = (flat(side) for side in (before, after))
    squares = ((new - old) ** 2).sum(1) / (old**2).sum(1).mean()
    other = classes(before) != classes(after)
    other = other.reshape(len(old), -1).mean(1)
    return Made(report, other.round(4).tolist(), squares.round(6).tolist())


def flat(found: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Join all float outputs, a row per sample."""
    rows = [[a.reshape(len(a), -1) for a in batch if a.dtype.kind == "f"] for batch in found]
    return np.concatenate([np.concatenate(batch, 1) for batch in rows])


def reached(row: Row, made: Made, refused: str = "") -> Row:
    """Fill in what came of it."""
    found = made.report.ratios
    low, high = found.latency_interval or (None, None)
    lost, error = float(np.mean(made.lost)), float(np.sqrt(np.mean(made.errors)))
    figures = (found.latency, low, high, found.macs, lost, error, refused)
    return Row(*row.key, *figures, lost=made.lost, errors=made.errors)


def ours(row: Row, folder: Path, given: argparse.Namespace) -> Row:
    """Ask for the latency."""
    network = networks()[row.network]
    made = pruned(network, folder, latency=row.asked, **choices(given))
    return reached(row, made)


def rival(row: Row, folder: Path, given: argparse.Namespace) -> Row:
    """Cut by MACs alone, to the ratio whose latency is the one that is asked for."""
    network, wanted = networks()[row.network], given.to_latency
    end = time.monotonic() + _SHARE * given.row_limit
    tried: dict[float, Made] = {}
    failed = 0.0
    ratio = given.to_macs
    for _ in range(_TRIES):
        try:
            tried[ratio] = pruned(network, folder, macs=ratio, **choices(given))
        except OnnxPruneError:
            failed = max(failed, ratio)
        near = any(abs(made.latency - wanted) <= _CLOSE for made in tried.values())
        if near or time.monotonic() > end:
            break
        ratio = guessed({r: made.latency for r, made in tried.items()}, wanted, failed)
        if ratio in tried:
            break
    if not tried:
        return Row(*row.key, refused="no ratio of MACs can be reached")
    best = min(tried.values(), key=lambda made: abs(made.latency - wanted))
    near = abs(best.latency - wanted) <= _CLOSE
    return reached(row, best, "" if near else "(the nearest that was found)")


def guessed(latencies: Mapping[float, float], wanted: float, failed: float) -> float:
    """Return the ratio of MACs to try: on the line through the two nearest, 1 costing 1."""
    known = sorted({**latencies, 1.0: 1.0}.items(), key=lambda one: abs(one[1] - wanted))[:2]
    if len(known) < 2:
        return (failed + 1.0) / 2
    (near, time_near), (far, time_far) = known
    slope = (time_far - time_near) / (far - near)
    guess = near + (wanted - time_near) / slope if slope > 0 else (near + failed) / 2
    return round(min(max(guess, (failed + near) / 2 if failed else 0.0, _FLOOR), _CEILING), 3)


def choices(given: argparse.Namespace) -> dict[str, object]:
    """Return what is the same for every cut."""
    return {"cache": given.cache, "branches": given.branches, "time_limit": given.time_limit}


def peer(row: Row, folder: Path, given: argparse.Namespace) -> Row:
    """Cut with torch-pruning to ratios of MACs, and time its export."""
    from peer_networks import peer_of, time_pruned

    model, example = peer_of(networks()[row.network])
    if model is None:
        return Row(*row.key, refused="no torch network that torch-pruning cuts")
    macs, found = time_pruned(model, example, given.to_macs, folder)
    low, high = found.interval or (None, None)
    return Row(*row.key, found.ratio, low, high, macs)


def child(row: Row, given: argparse.Namespace) -> None:
    """Do one row, and print it as the last line."""
    start = time.monotonic()
    work = {"ours": ours, "rival": rival, "peer": peer}[row.kind]
    with tempfile.TemporaryDirectory() as folder:
        try:
            row = work(row, Path(folder), given)
        except OnnxPruneError as error:
            row = Row(*row.key, refused=f"exit {error.exit_code}: {error}")
    print(json.dumps({**asdict(row), "seconds": time.monotonic() - start}))


def done_apart(row: Row, given: argparse.Namespace, *more: str) -> Row:
    """Do a row in a process of its own."""
    command = [sys.executable, __file__, "--row", row.kind, "--only", row.network, *more]
    command += ["--latency", str(row.asked), "--cache", str(given.cache)]
    command += ["--row-limit", str(given.row_limit), "--time-limit", str(given.time_limit)]
    command += [] if given.branches else ["--no-branches"]
    start = time.monotonic()
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_GRACE * given.row_limit
        )
        return Row(**json.loads(ended.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        refused = f"over the row limit of {given.row_limit:g} s"
    except (IndexError, ValueError):
        last = ended.stderr.strip().splitlines()[-1:] or ["no output"]
        refused = f"failed: {last[0][:120]}"
    return Row(*row.key, refused=refused, seconds=time.monotonic() - start)


def rows(given: argparse.Namespace) -> Iterator[Row]:
    """Yield every row, known ones at once."""
    lines = given.rows.read_text().splitlines() if given.rows.exists() else []
    known = {row.key: row for row in (Row(**json.loads(line)) for line in lines)}

    def one(row: Row, *more: str) -> Row:
        if row.key not in known or given.again:
            known[row.key] = done_apart(row, given, *more)
            with given.rows.open("a") as file:
                file.write(json.dumps(asdict(known[row.key])) + "\n")
        return known[row.key]

    for name in (name for name in networks() if given.only in name):
        for asked in given.latency:
            yield (found := one(Row("ours", name, asked)))
            if found.latency is None:
                continue
            to = ("--to-latency", str(found.latency), "--to-macs", str(found.macs))
            if given.rival:
                yield (other := one(Row("rival", name, asked), *to))
                if other.lost:
                    print(f"{'':29}  ours lost less by {found.less(other)}")
            if given.peers:
                yield one(Row("peer", name, asked), *to)


def summary(found: Sequence[Row]) -> Iterator[str]:
    """Count promises kept, and where less was lost than by MACs alone."""
    mine = {(r.network, r.asked): r for r in found if r.kind == "ours" and r.latency is not None}
    refused = sum(r.kind == "ours" and r.latency is None for r in found)
    kept = sum((r.high or 9.0) <= r.asked for r in mine.values())
    yield f"kept: {kept} of {len(mine)} that were written; {refused} refused"
    rivals = [r for r in found if r.kind == "rival" and r.latency is not None and not r.refused]
    for what in ("disagreement", "error") if rivals else ():
        pairs = [(getattr(mine[r.network, r.asked], what), getattr(r, what)) for r in rivals]
        less, same = sum(a < b for a, b in pairs), sum(a == b for a, b in pairs)
        field = {"disagreement": "lost", "error": "errors"}[what]
        gaps = [gap(getattr(mine[r.network, r.asked], field), getattr(r, field)) for r in rivals]
        better, worse = sum(low > 0 for _, low, _ in gaps), sum(high < 0 for *_, high in gaps)
        yield (
            f"{what} at the same latency, against MACs alone: smaller on {less}, equal on {same}, "
            f"larger on {len(pairs) - less - same}; beyond chance: smaller on {better}, larger on "
            f"{worse}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, nargs="+", default=[0.7])
    parser.add_argument("--only", default="")
    parser.add_argument("--rival", action="store_true")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--branches", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--time-limit", type=float, default=Options().time_limit, metavar="S")
    parser.add_argument("--row-limit", type=float, default=600.0, metavar="S")
    parser.add_argument("--rows", type=Path, default=Path("latency_rows.jsonl"))
    parser.add_argument("--again", action="store_true", help="do rows anew that are known")
    parser.add_argument("--cache", type=Path, help="operator times and measured groups")
    parser.add_argument("--row", choices=list(KINDS), help=argparse.SUPPRESS)
    parser.add_argument("--to-latency", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--to-macs", type=float, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.row:
        child(Row(given.row, given.only, given.latency[0]), given)
        return 0
    found = []
    with tempfile.TemporaryDirectory() as folder:
        given.cache = given.cache or Path(folder)
        for row in rows(given):
            found.append(row)
            print(row, flush=True)
    for line in summary(found):
        print(line)
    facts = machine(1, "CPUExecutionProvider")
    print(
        f"\n{facts['cpu']}, {facts['cores']} cores, load {facts['load average']}, "
        f"python {platform.python_version()}, onnx {onnx.__version__}, "
        f"onnxruntime {RUNTIME_VERSION}"
    )
    return int(any(r.kind == "ours" and (r.high or 0.0) > r.asked for r in found))


if __name__ == "__main__":
    sys.exit(main())
