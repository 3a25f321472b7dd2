"""Take the onnx package's own backend tests through load, inspect and an empty cut.

    python tests/zoo/backend.py [--only NAME] [--limit 60] [--json F.json]

Every operator has tests there (about 1,900 models of one node, opset by opset), and there are small
models that other tools wrote. For each: load it, look at it, check that an empty cut changes no
field and that `apply` with an empty plan, all of it but the clock, changes no byte, cut every group
to half and verify it. Each model has a process of its own and a deadline. What onnxruntime cannot
run is rejected in one line. Models of an opset that it does not load yet say the newest one that it
does. Exits 1 at any crash, hang, changed field, or cut that differs from its reference. Needs onnx
and onnxruntime only.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest.mock import patch

import onnx

from onnxprune import pipeline
from onnxprune.analysis import analyse
from onnxprune.bench.values import BenchReport, Latency
from onnxprune.errors import OnnxPruneError
from onnxprune.inspection import inspect_groups
from onnxprune.model.diff import field_diff
from onnxprune.options import Options
from onnxprune.plan import make_plan
from onnxprune.progress import Silent
from onnxprune.rewrite.cut import cut

OPTIONS = Options(samples=4)
NEWEST_OPSET, NEWEST_IR = 26, 13  # that onnxruntime loads
KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


@dataclass(frozen=True)
class Outcome:
    """``state`` is identity, cut, rejected, or, as a defect, changed, wrong, crash or hang."""

    name: str
    kind: str
    state: str
    groups: int = 0
    note: str = ""

    @property
    def bad(self) -> bool:
        return self.state in ("changed", "wrong", "crash", "hang")


def models(kinds: Sequence[str] = KINDS) -> Iterator[tuple[str, str, onnx.ModelProto]]:
    """Kind, name and model of every backend test."""
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    for kind in kinds:
        if kind == "node":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, about the tests' own arithmetic
                cases = collect_testcases(None)
            yield from ((kind, case.name, loadable(case.model)) for case in cases)
        else:
            for case in load_model_tests(kind=kind):
                path = Path(case.model_dir) / "model.onnx"
                yield kind, case.name, onnx.load(path)


def loadable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Lower the versions to what onnxruntime loads: most operators are older than they say."""
    for opset in model.opset_import:
        if opset.domain == "":
            opset.version = min(opset.version, NEWEST_OPSET)
    model.ir_version = min(model.ir_version, NEWEST_IR)
    return model


def untimed(*_: object) -> BenchReport:
    """Two models that nobody timed."""
    one = Latency(1.0, 1.0, 1.0)
    figures = (1.0, (1.0, 1.0), "wall", None, None, "no measurable change")
    return BenchReport(["original", "pruned"], [one, one], *figures, 0, 0, 1, "", {}, {}, [])


def look(kind: str, name: str, model: onnx.ModelProto) -> Outcome:
    """Take one model through all of it."""
    with tempfile.TemporaryDirectory() as folder:
        path, target, plan = (Path(folder) / name for name in ("in.onnx", "out.onnx", "plan.json"))
        path.write_bytes(model.SerializeToString())
        try:
            found = analyse(path, OPTIONS, Silent())
            empty = cut(found.view, found.coupling, found.traces, {})
            changes = field_diff(empty, found.model.proto)
            make_plan(found, [], {}, OPTIONS, multiple_of=None).save(plan)
            with patch.object(pipeline, "timed", untimed):
                pipeline.apply(path, target, plan, OPTIONS)
            if changes or target.read_bytes() != path.read_bytes():
                return Outcome(name, kind, "changed", note="; ".join(changes)[:200])
            groups = found.coupling.groups
            inspected = inspect_groups(found, groups, verify=True, progress=Silent())
        except OnnxPruneError as error:
            return Outcome(name, kind, "rejected", note=str(error).replace(str(path), name))
        except Exception:
            return Outcome(name, kind, "crash", note=traceback.format_exc()[-1500:])
    failed = [g.name for g in inspected.groups if not g.verified]
    state = "wrong" if failed else "cut" if groups else "identity"
    return Outcome(name, kind, state, len(groups), "; ".join(inspected.warnings))


def isolated(kind: str, name: str, model: onnx.ModelProto, limit: float) -> Outcome:
    """Take one model through, in a process of its own."""
    context = multiprocessing.get_context("fork")
    outcomes: multiprocessing.SimpleQueue[Outcome] = context.SimpleQueue()
    process = context.Process(target=lambda: outcomes.put(look(kind, name, model)))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        return Outcome(name, kind, "hang", note=f"took more than {limit:g} s")
    if outcomes.empty():
        return Outcome(name, kind, "crash", note=f"ended with {process.exitcode}")
    return outcomes.get()


def summary(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Counts by kind, why models were rejected, and every defect."""
    for kind in dict.fromkeys(o.kind for o in outcomes):
        states = Counter(o.state for o in outcomes if o.kind == kind)
        yield f"{kind}: " + ", ".join(f"{n} {state}" for state, n in states.most_common())
    yield f"{sum(o.groups for o in outcomes)} groups cut"
    yield "rejected because:"
    reasons = Counter(_reason(o) for o in outcomes if o.state == "rejected")
    yield from (f"  {count} x {reason}" for reason, count in reasons.most_common())
    yield from (f"{o.state.upper()} {o.kind} {o.name}: {o.note}" for o in outcomes if o.bad)


def _reason(outcome: Outcome) -> str:
    """The reason without what differs from model to model."""
    text = outcome.note.replace(outcome.name, "it")
    for mark in (" Node (", " Name:", "In Node", "implementation for", "No Op registered for"):
        text = text.split(mark)[0] + (mark.rstrip(" (:") if mark in text else "")
    return text[:150]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds per model")
    parser.add_argument("--json", type=Path, help="write every outcome there")
    given = parser.parse_args()
    found = []
    for kind, name, model in models():
        if given.only in name:
            found.append(isolated(kind, name, model, given.limit))
            if found[-1].bad:
                print(f"{found[-1].state} {kind} {name}: {found[-1].note[-300:]}", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(o) for o in found], indent=1), "utf-8")
    print(f"{len(found)} models", *summary(found), sep="\n")
    return 1 if any(o.bad for o in found) else 0


if __name__ == "__main__":
    sys.exit(main())
