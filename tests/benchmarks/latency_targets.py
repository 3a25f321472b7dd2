"""Ask every network for a measured latency, and print what was reached or why it was refused.

    python tests/benchmarks/latency_targets.py [--latency 0.7] [--only NAME] [--rival] [--peers]
        [--no-branches]

Prints per network the measured ratio with its 99 % interval, whose upper end must keep the ratio,
or the refusal; the MACs ratio beside the latency ratio; on the scoring samples, which had no part
in it, the disagreement with the original's classes and the relative error of the output.
``--rival`` cuts by MACs alone until that takes as long, timed against our model itself, and prints
its drop beside ours, with the 95 % interval of the difference on the same samples (above 0: ours
lost less). Where no ratio of MACs takes as long (times jump), ours is cut once more to the time of
the nearest, and these are compared.
``--peers`` cuts the network with torch-pruning to the same MACs, and prints what that does to the
latency (needs torch and torch-pruning; the digits networks are rebuilt with random weights).
``--no-branches`` keeps all residual branches, which takes less time.

Every row is a process of its own, ended after ``--row-limit`` seconds. Finished rows are kept in
``--rows FILE``, their models in a folder beside it, and not done again: broken off, the same
command goes on. Ends with 1 if a row
breaks its promise.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from scoring import classes, original, outputs
from shared_data import Network, named, own_networks, shared_networks

from onnxprune.bench.clock import race
from onnxprune.bench.machine import machine
from onnxprune.errors import OnnxPruneError
from onnxprune.model.load import load
from onnxprune.options import Options
from onnxprune.pipeline import run
from onnxprune.report.values import Report
from onnxprune.runtime.session import RUNTIME_VERSION, Session

_CLOSE = 0.02  # relative difference of two models' times at which drops are compared
_TRIES = 8
_LAPS = 5  # fresh sessions of two models that are raced
_SHARE = 0.5  # of the row limit after which no further try is begun
_FLOOR, _CEILING = 0.03, 0.98  # ratios of MACs that are worth a try
_GRACE = 1.2  # times the limit after which a row that does not stop by itself is ended
OUT = "out.onnx"
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
    model: str = ""

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
    report = run(network.path, folder / OUT, options, force=True)
    before = original(network)
    after = outputs(folder / OUT, network.score()[0])
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
    network = networks()[row.network]
    end = time.monotonic() + _SHARE * given.row_limit
    tried: dict[float, Made] = {}
    times: dict[float, float] = {}
    failed, ratio = _FLOOR, given.to_macs
    for _ in range(_TRIES):
        try:
            made = pruned(network, folder, macs=ratio, **choices(given))
        except OnnxPruneError:
            failed = max(failed, ratio)
        else:
            tried[ratio], times[ratio] = made, beside(network, folder / OUT, Path(given.to_model))
            if abs(times[ratio] - 1) <= _CLOSE:
                return reached(row, made)
        ratio = guessed({**times, 1.0: 1.0 / given.to_latency}, failed)
        if ratio in tried or time.monotonic() > end:
            break
    if not tried:
        return Row(*row.key, refused="no ratio of MACs can be reached")
    best = min(tried, key=lambda ratio: abs(times[ratio] - 1))
    return reached(row, tried[best], f"({times[best]:.2f} of our time)")


def beside(network: Network, model: Path, other: Path) -> float:
    """Return the time of one model over that of another, over fresh sessions of both."""
    inputs = network.score()[0][:1]
    feeds = [{Session(network.path).inputs[0].name: inputs}] * 2
    pair = [onnx.load(model), onnx.load(other)]
    cpu = "CPUExecutionProvider"
    laps = [race(pair, feeds, threads=1, provider=cpu) for _ in range(_LAPS)]
    return float(np.median([first / second for first, second in laps]))


def guessed(times: Mapping[float, float], failed: float) -> float:
    """Return the ratio of MACs to try for a time of 1: between the nearest fast and slow ones."""
    slow = min((r for r, t in times.items() if t > 1), default=1.0)
    fast = max((r for r, t in times.items() if t < 1 and r < slow), default=None)
    if fast is None:
        guess = slow / times.get(slow, 1.0)
        return round(min(max(guess, (failed + slow) / 2), _CEILING), 3)
    share = (1 - times[fast]) / (times[slow] - times[fast])
    return round(fast + min(max(share, 0.2), 0.8) * (slow - fast), 3)


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
        if row.kind == "ours" and row.latency is not None:
            kept = given.rows.with_suffix("") / f"{row.kind}_{row.network}_{row.asked}.onnx"
            kept.parent.mkdir(exist_ok=True)
            shutil.copy(Path(folder) / OUT, kept)
            row = replace(row, model=str(kept))
    print(json.dumps({**asdict(row), "seconds": time.monotonic() - start}))


def done_apart(row: Row, given: argparse.Namespace, *more: str) -> Row:
    """Do a row in a process of its own."""
    command = [sys.executable, __file__, "--row", row.kind, "--only", row.network, *more]
    command += ["--latency", str(row.asked), "--cache", str(given.cache)]
    command += ["--row-limit", str(given.row_limit), "--time-limit", str(given.time_limit)]
    command += ["--rows", str(given.rows)]
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

    for name in named(networks(), given.only):
        for asked in given.latency:
            yield (found := one(Row("ours", name, asked)))
            if found.latency is None:
                continue
            to = ("--to-latency", str(found.latency), "--to-macs", str(found.macs))
            to += ("--to-model", found.model)
            if given.rival:
                yield (other := one(Row("rival", name, asked), *to))
                if other.refused and other.latency is not None:
                    yield (found := one(Row("ours", name, round(other.latency, 3))))
                if other.lost and found.lost:
                    print(f"{'':29}  ours lost less by {found.less(other)}")
            if given.peers:
                yield one(Row("peer", name, asked), *to)


def summary(found: Sequence[Row]) -> Iterator[str]:
    """Count promises kept, and where less was lost than by MACs alone."""
    mine = [r for r in found if r.kind == "ours" and r.latency is not None]
    refused = sum(r.kind == "ours" and r.latency is None for r in found)
    kept = sum((r.high or 9.0) <= r.asked for r in mine)
    yield f"kept: {kept} of {len(mine)} that were written; {refused} refused"
    pairs = compared(found)
    for what, field in (("disagreement", "lost"), ("error", "errors")) if pairs else ():
        gaps = [gap(getattr(own, field), getattr(other, field)) for own, other in pairs]
        less, more = sum(mean > 0 for mean, *_ in gaps), sum(mean < 0 for mean, *_ in gaps)
        better, worse = sum(low > 0 for _, low, _ in gaps), sum(high < 0 for *_, high in gaps)
        yield (
            f"{what} at the same latency, against MACs alone: smaller on {less}, equal on "
            f"{len(gaps) - less - more}, larger on {more}; beyond chance: smaller on {better}, "
            f"larger on {worse}"
        )


def compared(found: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Pair each rival with ours at the same time: the last one that was made for its network."""
    pairs = []
    for other in (r for r in found if r.kind == "rival" and r.lost):
        asked = round(other.latency or 0.0, 3) if other.refused else other.asked
        own = [r for r in found if (r.kind, r.network, r.asked) == ("ours", other.network, asked)]
        pairs += [(r, other) for r in own if r.lost]
    return pairs


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
    parser.add_argument("--to-model", help=argparse.SUPPRESS)
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
