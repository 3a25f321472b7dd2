"""Small reports to render."""

import dataclasses

import pytest

from onnxprune.bench.values import BenchReport, Latency
from onnxprune.options import Options
from onnxprune.quality.values import Certified, Drop, Judged
from onnxprune.report.inspected import Coverage, FrozenAxis, GroupInfo, Inspection
from onnxprune.report.ranked import Agreement, RankedGroup, Ranking
from onnxprune.report.values import (
    Figures,
    GroupChange,
    Ratios,
    RemovedPositions,
    Report,
    VerifyReport,
)


@pytest.fixture
def report():
    return Report(
        source="in.onnx",
        target="out.onnx",
        before=Figures(77_562, 2_312_000, 313_204, Latency(0.4123, 0.45, 0.5), 16_384),
        after=Figures(38_001, 1_150_000, 157_900, Latency(0.2801, 0.3, 0.4), 12_288),
        ratios=Ratios(0.49, 0.4974, 0.5041, 0.68, (0.652, 0.711), "wall"),
        drop=Drop(
            "agreement",
            0.0213,
            (0.0101, 0.0338),
            449,
            0.06,
            Certified(0.05, 0.95, 449),
            0.3,
            0.05,
            [Judged("scores", "agreement", 1.0)],
        ),
        removed=[
            RemovedPositions("conv1.weight", 0, (1, 5), True),
            RemovedPositions("/conv1/Conv_output_0", 1, (1, 5), False),
        ],
        groups=[
            GroupChange("conv1", "filter", 16, 14, True, "perturbation"),
            GroupChange("fc", "neuron", 32, 32, False, "activation"),
        ],
        verified={"max_rel_error": 1.2e-6, "samples": 2},
        dims={"batch": 1},
        options=dataclasses.asdict(Options(macs=0.5, exclude=("op:Gemm",))),
        seconds={"load": 0.1},
        seed=0,
        versions={"onnx": "1.23.0"},
        warnings=["the data is synthetic"],
    )


@pytest.fixture
def inspection():
    return Inspection(
        source="in.onnx",
        params=77_562,
        macs=2_312_000,
        bytes=313_204,
        opset=18,
        groups=[
            GroupInfo("conv1", "filter", 16, 160, 9_216, True, [("conv1.weight", 0, 1)], True),
            GroupInfo("ln", "stream", 64, 12_345, 0, False, [("h", 2, 1)], False),
            GroupInfo("heads", "head", 4, 999, 0, True, [("q", 2, 16)], None),
        ],
        frozen=[
            FrozenAxis("w", 1, "loop", "Loop", "no rule for it", ("v", 1), "a rule", 7756, 23120),
            FrozenAxis("u", 0, "", "", "graph input", ("x", 1), "another interface", 100, 10),
            FrozenAxis("w", 0, "loop", "Loop", "no rule for it", ("v", 1), "a rule", 7756, 23120),
            FrozenAxis("x", 0, "", "", "graph input", ("x", 1), "another interface", 0, 0),
        ],
        coverage=Coverage(0.982, 0.991, 0.5, 0.25),
        dims={"batch": 1},
        warnings=[],
    )


@pytest.fixture
def bench():
    return BenchReport(
        models=["a.onnx", "b.onnx"],
        latency_ms=[Latency(0.4, 0.5, 0.6), Latency(0.3, 0.4, 0.5)],
        ratio=0.75,
        interval=(0.7, 0.8),
        clock="cpu",
        wall=(0.9, 0.5, 1.4),
        cpu=(0.75, 0.7, 0.8),
        verdict="faster",
        pairs=6,
        runs=120,
        threads=1,
        provider="CPUExecutionProvider",
        dims={"batch": 1},
        machine={"cpu": "any"},
        warnings=[],
    )


@pytest.fixture
def verified():
    return VerifyReport("in.onnx", "out.onnx", 1.2e-6, 2, True, [], ok=True)


@pytest.fixture
def ranking():
    return Ranking(
        source="in.onnx",
        method="auto",
        reasons=["2 groups by perturbation on 64 samples: exact, and fits the time limit"],
        groups=[
            RankedGroup(
                "conv1", "filter", 4, "perturbation", 64, False, 0.93, [2, 0, 1, 3],
                [0.1, 0.2, 0.05, 0.5], [4, 2, 1], [0.0, 0.16, 0.36], 0.02, 0.1,
            ),
            RankedGroup(
                "fc", "neuron", 2, "activation", 0, True, None, [1, 0], [0.3, 0.1], [2, 1],
                [0.0, 0.04],
            ),
        ],
        samples=64,
        forwards=12.5,
        agreement=[Agreement("perturbation", "gradient", 28, 0.97, 2, 0.93, 0.81, "conv1")],
        stability=0.93,
        partial=True,
        metric="agreement",
        dims={"batch": 1},
        seed=0,
        seconds={"measure": 0.1},
        versions={"onnx": "1.23.0"},
        warnings=["time was up"],
    )  # fmt: skip
