"""Write exports down: only what onnxruntime runs, with finite outputs equal to the framework's.

Every script of a framework hands its networks to `write_all`. It needs numpy, onnx and onnxruntime.
"""

import argparse
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

TOLERANCE = 1e-3
DEFAULT_FOLDER = Path(__file__).parents[2] / ".cache" / "zoo"


@dataclass(frozen=True)
class Exported:
    """A model, a feed of batch 2, and what the framework itself answers to it (None: unknown)."""

    model: onnx.ModelProto
    feed: Mapping[str, np.ndarray]
    expected: Sequence[np.ndarray] | None = None


Make = Callable[[], Exported]
Job = tuple[str, str, Make]


def normal(name: str, *shape: int) -> np.ndarray:
    """Normal numbers that are the same in every process."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)


def disagreement(exported: Exported) -> str:
    """Why the export is not the network, in one line; empty when it is."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        exported.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = session.run(None, dict(exported.feed))
    for got in found:
        if isinstance(got, np.ndarray) and got.dtype.kind == "f" and not np.isfinite(got).all():
            return "not finite"
    for wanted, got in zip(exported.expected or (), found, strict=False):
        if wanted.shape != got.shape:
            return f"shape {got.shape} instead of {wanted.shape}"
        scale = max(float(np.abs(wanted).max()), 1e-6)
        error = float(np.abs(wanted - got).max()) / scale
        if error > TOLERANCE:
            return f"{error:.1e} from the framework"
    return ""


def write(folder: Path, name: str, route: str, make: Make) -> str:
    """Write one export and its feed; the reason where that fails."""
    path = folder / f"{name}.{route}.onnx"
    if path.exists():
        return ""
    try:
        exported = make()
        reason = disagreement(exported)
    except Exception as error:  # any failure of an exporter is a line of the table
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
    if not reason:
        np.savez(path.with_suffix(".npz"), **exported.feed)
        draft = path.with_suffix(".draft")
        draft.write_bytes(exported.model.SerializeToString())
        draft.rename(path)
    return reason


def write_all(jobs: Iterable[Job], description: str) -> int:
    """Read ``[FOLDER] [--only NAME] [--route ROUTE]`` and write what is not there yet."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_FOLDER)
    parser.add_argument("--only", default="")
    parser.add_argument("--route", default="")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    failed = count = 0
    for name, route, make in jobs:
        if given.only not in name or given.route not in route:
            continue
        start = time.monotonic()
        reason = write(given.folder, name, route, make)
        count += 1
        failed += bool(reason)
        print(f"{name:24} {route:12} {time.monotonic() - start:6.1f} {reason or 'ok'}", flush=True)
    print(f"{count} exports, {failed} failures")
    return 1 if failed else 0


def run(jobs: Iterable[Job], description: str | None) -> None:
    """Body of every script."""
    sys.exit(write_all(jobs, (description or "").splitlines()[0]))
