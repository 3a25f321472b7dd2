"""What weights beside a model, and one thread for matrix products, bring: ratios of times.

    python tests/benchmarks/runtime.py [--rounds 5]

Sessions of the shapes of ResNet-18, MobileNetV2 and a four-layer transformer, made of the
serialized model and with the weights beside it: one thread, process CPU time, in random order,
medians. Then digits_resnet, pruned to half of its multiply-accumulates with as many threads for
matrix products as numpy and scipy take by themselves, and with one: wall time, in random order.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain

import numpy as np
from gradient import mobilenet2, resnet18, seconds, transformer
from threadpoolctl import threadpool_info

from onnxprune import pipeline
from onnxprune.options import Options
from onnxprune.runtime.session import RUNTIME_VERSION, Session
from tests.nets import MODELS

_DIGITS = Options(macs=0.5, data=MODELS / "digits_images.npz")


def medians(ways: Mapping[str, Callable[[], float]], rounds: int) -> list[float]:
    """Time every way once a round, in random order."""
    rng = np.random.default_rng(0)
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name in rng.permutation(list(ways)).tolist():
            spent[name].append(ways[name]())
    return [float(np.median(each)) for each in spent.values()]


def sessions(rounds: int) -> Iterator[str]:
    """Compare two ways to make a session."""
    for make in (resnet18, mobilenet2, transformer):
        model = make()
        ways = {
            "inside": lambda m=model: seconds(lambda: Session(m.SerializeToString(), threads=1)),
            "beside": lambda m=model: seconds(lambda: Session(m, threads=1)),
        }
        inside, beside = medians(ways, 4 * rounds)
        size = model.ByteSize() / 2**20
        yield (
            f"{make.__name__:12} {size:4.0f} MiB: weights inside {1e3 * inside:4.0f} ms,"
            f" beside {1e3 * beside:4.0f} ms: {inside / beside:.1f}x"
        )


def wall(work: Callable[..., object]) -> float:
    start = time.perf_counter()
    work(MODELS / "digits_resnet.onnx", _DIGITS)
    return time.perf_counter() - start


def products(rounds: int) -> Iterator[str]:
    """Compare a run with free and with bounded threads for matrix products."""
    free = vars(pipeline.prune)["__wrapped__"]
    many, one = medians({"free": lambda: wall(free), "one": lambda: wall(pipeline.prune)}, rounds)
    pools = [p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"]
    yield (
        f"digits_resnet: {pools} threads for matrix products {many:.0f} s, one each {one:.0f} s:"
        f" {many / one:.1f}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(f"onnxruntime {RUNTIME_VERSION}")
    for line in chain(sessions(rounds), products(rounds)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
