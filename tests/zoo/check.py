"""Cut every group of every model alone to half, and all together, and verify each cut.

    python tests/zoo/check.py [FOLDER] [--only NAME] [--macs 0.7]

FOLDER holds ``*.onnx`` files (default: ``.cache/zoo``, filled by ``export.py``). Prints a row per
model and a summary; exits 1 if a model does not load, a cut does not equal its reference, or the
target of coverage is missed.
"""

import argparse
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from onnxprune.analysis import analyse
from onnxprune.errors import OnnxPruneError
from onnxprune.inspection import inspect_groups
from onnxprune.model.diff import field_diff
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.rewrite.cut import cut
from onnxprune.rewrite.prove import attempt
from onnxprune.rewrite.verify import TOLERANCE

DEFAULT = Path(__file__).parents[2] / ".cache" / "zoo"


@dataclass(frozen=True)
class Row:
    name: str
    nodes: int = 0
    groups: int = 0
    failed: int = 0
    params: float = 0.0
    macs: float = 0.0
    exact: float = 0.0
    together: float = float("inf")
    empty: bool = False
    seconds: float = 0.0
    note: str = ""


def check(path: Path) -> Row:
    """Check one model."""
    start = time.monotonic()
    row = Row(path.stem)
    try:
        example = path.with_suffix(".npz")
        options = Options(data=example if example.exists() else None)
        found = analyse(path, options, Silent())
        row = replace(row, nodes=len(found.view.nodes), groups=len(found.coupling.groups))
        nothing = cut(found.view, found.coupling, found.traces, {})
        same = not field_diff(nothing, found.model.proto)
        inspected = inspect_groups(found, found.coupling.groups, verify=True, progress=Silent())
        good = {g.name for g in inspected.groups if g.verified}
        rng = np.random.default_rng(0)
        half = [
            (g, sorted(rng.choice(g.size, g.size // 2, replace=False).tolist()))
            for g in found.coupling.groups
            if g.name in good
        ]
        together, reason = attempt(found, half)
        row = replace(
            row,
            failed=len(found.coupling.groups) - len(good),
            params=inspected.coverage.params,
            macs=inspected.coverage.macs,
            exact=inspected.coverage.exact_params,
            together=together,
            empty=same,
            note="; ".join([*inspected.warnings, reason])[:100],
        )
    except OnnxPruneError as error:
        row = replace(row, note=str(error)[:100])
    except Exception:
        row = replace(row, note="defect: " + traceback.format_exc().strip().splitlines()[-1][:90])
    return replace(row, seconds=time.monotonic() - start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check all models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=DEFAULT)
    parser.add_argument("--only", default="")
    given = parser.parse_args(arguments)
    paths = sorted(p for p in given.folder.glob("*.onnx") if given.only in p.stem)
    print(f"{'model':34} nodes groups fail params  macs exact  together empty seconds  note")
    rows = []
    for path in paths:
        row = check(path)
        rows.append(row)
        print(
            f"{row.name:34} {row.nodes:5} {row.groups:6} {row.failed:4} {row.params:6.1%} "
            f"{row.macs:5.0%} {row.exact:5.0%} {row.together:9.1e} "
            f"{'same' if row.empty else 'DIFF'} "
            f"{row.seconds:7.1f}  {row.note}",
            flush=True,
        )
    return summarise(rows)


def summarise(rows: Sequence[Row]) -> int:
    """Print the summary by architecture: each counts by its better export."""
    best: dict[str, float] = {}
    for row in rows:
        name = row.name.rsplit(".", 1)[0]
        best[name] = max(best.get(name, 0.0), row.params)
    covered = sum(share >= 0.95 for share in best.values())
    broken = [r.name for r in rows if r.failed or r.together > TOLERANCE or not r.empty]
    print(
        f"\n{len(rows)} files, {len(best)} architectures; "
        f"{covered} with parameter coverage >= 95 %; "
        f"{sum(r.groups for r in rows)} groups cut, {sum(r.failed for r in rows)} could not be; "
        f"files with a failing cut: {', '.join(broken) or 'none'}"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
