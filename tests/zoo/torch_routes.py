"""The four ways out of torch: both exporters, optimised and as traced."""

import logging
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import onnx
import torch
from saving import Exported, Job, normal
from weights import randomise, settle

Build = Callable[[], torch.nn.Module]
BATCH, SETTLING_BATCH = 2, 8
OPSETS = {"ts": 17, "ts_plain": 13, "dynamo": 18, "dynamo_plain": 18}
torch.set_num_threads(1)
logging.getLogger("torch.onnx").setLevel(logging.ERROR)


def jobs(
    name: str, build: Build, *shapes: tuple[int, ...], routes: Sequence[str] = ("ts", "dynamo")
) -> Iterator[Job]:
    """Export one network of float inputs; ``shapes`` are of one sample."""
    for route in routes:
        yield name, route, partial(export, name, build, shapes, route)


def export(name: str, build: Build, shapes: Sequence[tuple[int, ...]], route: str) -> Exported:
    """Build the network with numbers that hide no error, and export it with a dynamic batch."""
    torch.manual_seed(zlib.crc32(name.encode()))
    module = build().eval()
    randomise(module)
    settle(module, tuple(torch.from_numpy(normal(name, SETTLING_BATCH, *s)) for s in shapes))
    inputs = [f"x{i}" if i else "x" for i in range(len(shapes))]
    arrays = [normal(f"{name}{i}", BATCH, *shape) for i, shape in enumerate(shapes)]
    tensors = tuple(map(torch.from_numpy, arrays))
    with torch.no_grad():
        found = module(*tensors)
    expected = [o.numpy() for o in (found if isinstance(found, tuple | list) else (found,))]
    outputs = [f"y{i}" if i else "y" for i in range(len(expected))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        _write(module, tensors, path, inputs, outputs, route)
        return Exported(onnx.load(path), dict(zip(inputs, arrays, strict=True)), expected)


def _write(
    module: torch.nn.Module,
    tensors: tuple[torch.Tensor, ...],
    path: Path,
    inputs: list[str],
    outputs: list[str],
    route: str,
) -> None:
    write = partial(
        torch.onnx.export,
        module,
        tensors,
        path,
        input_names=inputs,
        output_names=outputs,
        opset_version=OPSETS[route],
        verbose=False,
    )
    if route.startswith("dynamo"):
        shapes = tuple({0: torch.export.Dim("batch")} for _ in inputs)
        write(
            dynamo=True,
            dynamic_shapes=shapes,
            external_data=False,
            optimize=route == "dynamo",
        )
        return
    plain = route == "ts_plain"
    write(
        dynamo=False,
        dynamic_axes={value: {0: "batch"} for value in (*inputs, *outputs)},
        do_constant_folding=not plain,
        # Preserving the mode keeps BatchNormalization apart from the convolutions.
        training=torch.onnx.TrainingMode.PRESERVE if plain else torch.onnx.TrainingMode.EVAL,
    )
