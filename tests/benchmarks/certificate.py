"""How often is a certified drop wrong, and an interval? Splits of a pool whose mean is known.

    python tests/benchmarks/certificate.py [--splits 200] [--only NAME]

Fits a path of nested candidates once, on the calibration samples of each digits model, and measures
every candidate's losses on all 400 held-out samples: the pool. Then draws, again and again, 100 of
them to select on and 100 to certify on, as `run --max-drop` does, and compares what is certified
with the mean of the whole pool. The limits are the hard ones: just below the pool mean of a
candidate. Prints, per model, metric and limit, how often something was certified and how often
wrongly; the same where the whole path is tested and no selection keeps bad candidates away; then
how often the 95 % interval of the drop, from 100 samples, held the pool mean, and the drop of each
original against itself (A/A). Ends with 1 if a bound fails.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from onnxprune.analysis import analyse
from onnxprune.data.splits import split_samples
from onnxprune.lossless.find import Free
from onnxprune.options import Options
from onnxprune.progress import Silent
from onnxprune.quality.certificate import certified_length
from onnxprune.quality.drop import drop_interval
from onnxprune.quality.judge import Judge
from onnxprune.quality.losses import Losses
from onnxprune.search.candidate import Workshop
from onnxprune.search.path import last_allowed, nested_plans
from onnxprune.selection.budget import farthest
from onnxprune.sensitivity.methods import measure_groups

MODELS = Path(__file__).resolve().parents[2] / "models"
NETWORKS = {
    "digits_resnet": "digits_images",
    "digits_mobile": "digits_images",
    "digits_vit": "digits_images",
    "digits_mlp": "digits_features",
    "digits_gru": "digits_rows",
}
METRICS = ("agreement", "accuracy", "relative_l2")
CONFIDENCE, CANDIDATES, SELECT, CERTIFY = 0.95, 8, 100, 100
SLACK = 0.02  # allowed above 1 - CONFIDENCE: 200 splits scatter


def candidates(name: str) -> Iterator[object]:
    """Fit the path on calibration samples; yield the original and then every candidate."""
    options = Options(data=MODELS / f"{NETWORKS[name]}.npz", samples=256, time_limit=20.0)
    found = analyse(MODELS / f"{name}.onnx", options, Silent())
    splits = split_samples(len(found.samples), 0)
    groups = found.coupling.groups
    measured = measure_groups(found, groups, splits, options, Silent())
    judge = Judge(found, splits, options)
    shop = Workshop(found, groups, measured, Free(), None, splits, judge, options, Silent())
    plans = nested_plans(shop, farthest(found.costs.total, "macs"))
    yield found.view.model
    for k in np.unique(np.linspace(0, len(plans) - 1, CANDIDATES).astype(int)):
        yield shop.make(*plans[k]).recovered.model


def pools(name: str) -> dict[str, list[Losses]]:
    """Measure the original and all candidates on every held-out sample, by each metric."""
    found_models = list(candidates(name))
    pool: dict[str, list[Losses]] = {}
    for metric in METRICS:
        labels = "labels" if metric == "accuracy" else None
        options = Options(
            data=MODELS / f"{NETWORKS[name]}_heldout.npz", metric=(metric,), labels=labels
        )
        found = analyse(MODELS / f"{name}.onnx", options, Silent())
        judge = Judge(found, split_samples(len(found.samples), 0), options)
        everything = range(len(found.samples))
        pool[metric] = [judge.losses(model, everything) for model in found_models]
    return pool


def some(losses: Losses, chosen: np.ndarray) -> Losses:
    """Look at some of the samples only."""
    assert losses.values is not None
    values = losses.values[chosen]
    return Losses(float(values.mean()), values, losses.kind, None, len(values))


def one_split(
    path: Sequence[Losses], limit: float, rng: np.random.Generator, *, select: bool
) -> int:
    """Select and certify as the search does; return how many candidates are certified."""
    order = rng.permutation(path[0].samples)
    first, second = order[:SELECT], order[SELECT : SELECT + CERTIFY]
    count = len(path)
    if select:
        count = 1 + last_allowed([some(losses, first) for losses in path], limit, seed=0)
    return certified_length([some(losses, second) for losses in path[:count]], limit, CONFIDENCE)


def violations(
    path: Sequence[Losses], limit: float, splits: int, *, select: bool
) -> tuple[float, float]:
    """Return how often something is certified, and how often it loses more than certified."""
    rng = np.random.default_rng(0)
    last = [one_split(path, limit, rng, select=select) for _ in range(splits)]
    wrong = sum(k > 0 and path[k - 1].drop > limit for k in last)
    return sum(k > 0 for k in last) / splits, wrong / splits


def coverage(losses: Losses, splits: int) -> float:
    """Return how often the interval from some samples holds the mean of all."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(splits):
        interval = drop_interval(some(losses, rng.permutation(losses.samples)[:SELECT]))
        assert interval is not None
        held += interval[0] <= losses.drop <= interval[1]
    return held / splits


def report(name: str, splits: int) -> float:
    """Print the table of one model; return the largest share of wrong certificates."""
    worst = 0.0
    for metric, (original, *path) in pools(name).items():
        drops = [losses.drop for losses in path]
        for limit in sorted({d - 1e-9 for d in drops if 0.01 < d < 0.5}):
            figures = ""
            for select in (True, False):
                certified, wrong = violations(path, limit, splits, select=select)
                worst = max(worst, wrong)
                figures += f" {certified:10.1%} {wrong:8.1%}"
            print(f"{name:15} {metric:12} {limit:8.4f}{figures}", flush=True)
        held = [coverage(losses, splits) for losses in path if losses.drop > 0]
        print(
            f"{name:15} {metric:12} interval held the pool mean in {min(held):.1%} (worst "
            f"candidate), {np.mean(held):.1%} (mean); A/A drop {original.drop:g}",
            flush=True,
        )
    return worst


def main(arguments: Sequence[str] | None = None) -> int:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--only", default="")
    given = parser.parse_args(arguments)
    head = f"{'model':15} {'metric':12} {'limit':>8} {'certified':>10} {'wrongly':>8}"
    print(f"{head} {'unselected':>10} {'wrongly':>8}")
    worst = max(report(name, given.splits) for name in NETWORKS if given.only in name)
    allowed = 1 - CONFIDENCE + SLACK
    print(f"\nworst share of wrong certificates: {worst:.1%} (allowed: {allowed:.1%})")
    return int(worst > allowed)


if __name__ == "__main__":
    sys.exit(main())
