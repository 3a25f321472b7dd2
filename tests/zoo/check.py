"""Cut every group of every export alone to half, all together, and to a share of the MACs; verify.

    python tests/zoo/check.py [FOLDER] [--only NAME] [--macs 0.7] [--limit 300] [--again]

FOLDER holds ``NAME.ROUTE.onnx`` files with a feed beside each (default: ``.cache/zoo``, filled by
the export scripts). Every model is checked in a process of its own under a time limit, and its row
is kept in ``FOLDER/table.jsonl``: what was checked is not checked again, unless the file changed,
or ``--again`` (all) or ``--broken`` (what failed or is low) is given. Prints the table and a
summary, writes ``table.csv``, and exits 1 if a model does not load, a cut differs from its
reference, anything ends in a traceback, or under 90 % of the models reach 95 % of the MACs.
"""

import argparse
import csv
import hashlib
import json
import multiprocessing
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from onnxprune.analysis import Analysis, analyse
from onnxprune.coupling.groups import Group
from onnxprune.errors import OnnxPruneError
from onnxprune.inspection import inspect_groups, obstacles
from onnxprune.model.diff import field_diff
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.prove import attempt
from onnxprune.rewrite.verify import LOOSEST
from onnxprune.selection.budget import budget_of
from onnxprune.selection.settle import settle
from onnxprune.selection.widths import allowed_widths
from onnxprune.sensitivity.values import GroupSensitivity, Sensitivity

DEFAULT = Path(__file__).parents[2] / ".cache" / "zoo"
AIM = 0.95


@dataclass(frozen=True)
class Row:
    """What was found out about one export; errors are relative, infinite where nothing was cut."""

    model: str
    route: str
    digest: str
    nodes: int = 0
    loads: bool = False
    groups: int = 0
    failed: int = 0
    params: float = 0.0
    macs: float = 0.0
    exact_macs: float = 0.0
    together: float = 0.0
    wrong: bool = False  # all together, by more than the network's own rounding
    ratio: float = 1.0  # of the MACs, after the cut to --macs
    error: float = 0.0  # of that cut
    untouched: bool = False  # an empty cut changes no field
    seconds: float = 0.0
    note: str = ""

    @property
    def broken(self) -> bool:
        """Whether anything went wrong, apart from coverage."""
        errors = max(self.together, self.error)
        wrong = self.wrong or errors > LOOSEST
        return not self.loads or not self.untouched or self.failed > 0 or wrong


def check(row: Row, path: Path, macs: float) -> Iterator[Row]:
    """Find out one thing after the other; every yielded row knows more."""
    example = path.with_suffix(".npz")
    options = Options(data=example if example.exists() else None, macs=macs, samples=16)
    found = analyse(path, options, Silent())
    groups = found.coupling.groups
    same = not field_diff(cut(found.view, found.coupling, found.traces, {}), found.model.proto)
    row = replace(row, loads=True, nodes=len(found.view.nodes), groups=len(groups), untouched=same)
    yield row
    inspected = inspect_groups(found, groups, verify=True, progress=Silent())
    verified = {g.name for g in inspected.groups if g.verified}
    good = [g for g in groups if g.name in verified]
    cover = inspected.coverage
    row = replace(
        row,
        failed=len(groups) - len(good),
        params=cover.params,
        macs=cover.macs,
        exact_macs=cover.exact_macs,
        note="; ".join(inspected.warnings) or ("" if cover.macs >= AIM else obstacles(found)),
    )
    yield row
    if good:
        rng = np.random.default_rng(0)
        half = [
            (g, g.balanced(rng.permutation(g.size))[: g.size // g.step // 2 * g.step].tolist())
            for g in good
        ]
        together, reason = attempt(found, half)
        note = "; ".join(filter(None, (row.note, reason)))
        row = replace(row, together=together, wrong=bool(reason), note=note)
        yield row
        yield to_macs(row, found, good, options)


def to_macs(row: Row, found: Analysis, groups: Sequence[Group], options: Options) -> Row:
    """Cut to a share of the MACs as ``run`` does, but with channels chosen by chance.

    This judges the cut, not the choice; measuring hundreds of networks would take hours.
    """
    budget = budget_of(options, found.costs.total, found.model.bytes)
    measured = Sensitivity({g.name: _by_chance(found, g) for g in groups}, samples=0, runs=0)
    try:
        settled = settle(found, groups, measured, budget, options)
    except OnnxPruneError as error:
        return replace(row, note="; ".join(filter(None, (row.note, str(error)))))
    saved = settled.selection.allocation.saved
    return replace(row, ratio=budget.reached(saved)["macs"], error=settled.proven.error)


def _by_chance(found: Analysis, group: Group) -> GroupSensitivity:
    widths = np.array(allowed_widths(group, 1, found.coupling.collected.sizes))
    order = group.balanced(np.random.default_rng(group.size).permutation(group.size))
    scores = np.ones(group.size)
    return GroupSensitivity(order, scores, widths, (1 - widths / group.size) ** 2, "activation")


def work(row: Row, path: Path, macs: float, rows: "multiprocessing.SimpleQueue[Row]") -> None:
    """Body of the process of one model."""
    start = time.monotonic()
    try:
        for row in check(row, path, macs):  # noqa: B020
            rows.put(replace(row, seconds=time.monotonic() - start))
    except OnnxPruneError as error:
        rows.put(replace(row, note=str(error), seconds=time.monotonic() - start))
    except Exception:
        last = traceback.format_exc().strip().splitlines()[-1]
        note, seconds = f"TRACEBACK {last}", time.monotonic() - start
        rows.put(replace(row, loads=False, note=note, seconds=seconds))


def checked(row: Row, path: Path, macs: float, limit: float) -> Row:
    """Check one model in a forked process, and stop it when its time is up."""
    context = multiprocessing.get_context("fork")
    rows: multiprocessing.SimpleQueue[Row] = context.SimpleQueue()
    process = context.Process(target=work, args=(row, path, macs, rows))
    start = time.monotonic()
    process.start()
    process.join(limit)
    late = process.is_alive()
    if late:
        process.kill()
        process.join()
    while not rows.empty():
        row = rows.get()
    if late:
        row = replace(row, loads=False, note=f"took more than {limit:.0f} s")
    elif process.exitcode:
        row = replace(row, loads=False, note=f"TRACEBACK ended with {process.exitcode}")
    return replace(row, seconds=time.monotonic() - start)


def known(path: Path) -> dict[tuple[str, str], Row]:
    """Rows of earlier runs; the last one of each model counts."""
    if not path.exists():
        return {}
    rows = [Row(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]
    return {(row.model, row.route): row for row in rows}


def line(row: Row) -> str:
    """One row of the table."""
    problem = "FAILS" if row.broken else "low" if row.macs < AIM else ""
    return (
        f"{row.model:22} {row.route:12} {row.nodes:5} {row.groups:6} {row.failed:4} "
        f"{row.params:6.1%} {row.macs:6.1%} {row.together:8.0e} {row.ratio:5.2f} {row.error:8.0e} "
        f"{row.seconds:7.1f} {problem:5} {row.note[:90]}"
    )


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """What the table comes to, overall and by route."""
    models, routes = {r.model for r in rows}, sorted({r.route for r in rows})
    yield f"{len(rows)} exports, {len(models)} architectures, {len(routes)} routes"
    for route in routes:
        these = [r for r in rows if r.route == route]
        yield f"  {route:12} {len(these):4} exports, {_reached(these)}"
    yield f"MACs coverage >= {AIM:.0%}: {_reached(rows)}"
    yield (
        f"{sum(r.groups for r in rows)} groups cut alone, "
        f"{sum(r.failed for r in rows)} could not be; largest error together "
        f"{max((r.together for r in rows), default=0):.1e}"
    )
    for what, found in _problems(rows).items():
        names = [f"{r.model}.{r.route}" for r in found]
        yield f"{what}: {len(names)} {' '.join(names)}"


def _reached(rows: Sequence[Row]) -> str:
    count = sum(r.macs >= AIM for r in rows)
    return f"{count} of {len(rows)} ({count / max(len(rows), 1):.0%})"


def _problems(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    return {
        "tracebacks": [r for r in rows if r.note.startswith("TRACEBACK")],
        "do not load or take too long": [
            r for r in rows if not r.loads and not r.note.startswith("TRACEBACK")
        ],
        "groups that could not be cut": [r for r in rows if r.failed],
        "wrong together or at --macs": [
            r for r in rows if r.wrong or max(r.together, r.error) > LOOSEST
        ],
        "an empty cut changes fields": [r for r in rows if r.loads and not r.untouched],
        "nothing pruned, silently": [r for r in rows if r.ratio == 1.0 and not r.note],
        "nothing pruned, with a reason": [r for r in rows if r.ratio == 1.0 and r.note],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Check what is not known yet, print the table, write it as CSV."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--only", default="", help="part of NAME.ROUTE")
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds per model")
    parser.add_argument("--again", action="store_true", help="check what is known, too")
    parser.add_argument("--broken", action="store_true", help="check again what failed or is low")
    given = parser.parse_args(arguments)
    log = given.folder / "table.jsonl"
    before, rows = known(log), []
    print(
        f"{'model':22} {'route':12} nodes groups fail params   MACs together ratio    error seconds"
    )
    for path in sorted(p for p in given.folder.glob("*.onnx") if given.only in p.stem):
        if not path.exists():
            continue  # removed meanwhile
        model, route = path.stem.rsplit(".", 1)
        row = Row(model, route, hashlib.sha256(path.read_bytes()).hexdigest()[:16])
        old = before.get((model, route))
        redo = given.again or (given.broken and old and (old.broken or old.macs < AIM))
        if old is None or old.digest != row.digest or redo:
            old = checked(row, path, given.macs, given.limit)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(old)) + "\n")
        rows.append(old)
        print(line(old), flush=True)
    with (given.folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(asdict(row).values() for row in rows)
    print("", *summary(rows), sep="\n")
    low = sum(row.macs >= AIM for row in rows) < 0.9 * len(rows)
    return 1 if low or any(row.broken for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
