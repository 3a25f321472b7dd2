"""How often ``measure`` claims that a model differs from itself.

    python tests/benchmarks/aa_bench.py [N] [MODEL]

Each trial times the model against itself as ``run`` does: the first from its file, the second from
memory. At most 1 of 50 may claim a change.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx

from onnxprune.bench.measure import measure
from onnxprune.data.specs import input_specs, resolve_shapes
from onnxprune.data.synthetic import random_feed
from onnxprune.runtime.session import Feeds

MODEL = Path(__file__).parents[2] / "models" / "digits_resnet.onnx"


def feed_of(model: onnx.ModelProto) -> Feeds:
    specs = input_specs(model)
    shapes = resolve_shapes(specs, input_shapes={}, dims={}, samples=None)
    return random_feed(model, specs, shapes, np.random.default_rng(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("trials", nargs="?", type=int, default=50)
    parser.add_argument("model", nargs="?", type=Path, default=MODEL)
    given = parser.parse_args()
    model = onnx.load(given.model)
    feed = feed_of(model)
    widths, claims, by_cpu, start = [], 0, 0, time.monotonic()
    for trial in range(given.trials):
        found = measure(
            [given.model, model], [feed], names=["file", "memory"], threads=1, seed=trial,
            provider="CPUExecutionProvider",
        )  # fmt: skip
        low, high = found.interval
        claimed = found.verdict != "no measurable change"
        claims, by_cpu = claims + claimed, by_cpu + (found.clock == "cpu")
        widths.append((high - low) / 2)
        print(
            f"{trial + 1:3d}  {found.ratio:.4f} ({low:.4f} to {high:.4f}) {found.clock:4s} "
            f"{found.pairs} pairs  {found.latency_ms[0].median:.3f} ms"
            + (f"  CLAIMS {found.verdict}" if claimed else ""),
            flush=True,
        )
    print(f"\n{given.model.name}: a change claimed in {claims} of {given.trials} trials")
    print(
        f"half width of the interval: median {np.median(widths):.2%}, p90 "
        f"{np.percentile(widths, 90):.2%}; read from CPU time in {by_cpu} trials; "
        f"{(time.monotonic() - start) / given.trials:.1f} s per trial"
    )
    for name, value in found.machine.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
