"""The digits networks in other types, made by onnxruntime's own tools."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from onnxruntime.transformers.float16 import convert_float_to_float16

MODELS = Path(__file__).parents[1] / "models"
DATA = {
    "resnet": "digits_images",
    "mobile": "digits_images",
    "vit": "digits_images",
    "mlp": "digits_features",
    "lstm": "digits_rows",
}


class _Reader(CalibrationDataReader):
    def __init__(self, name: str) -> None:
        arrays = np.load(MODELS / f"{DATA[name]}.npz")
        feed = {i.name: arrays[i.name] for i in onnx.load(source(name)).graph.input}
        self._feeds = iter([{n: a[:16].astype(np.float32) for n, a in feed.items()}])

    def get_next(self):
        return next(self._feeds, None)


def source(name: str) -> Path:
    return MODELS / f"digits_{name}.onnx"


def _half(name: str, target: Path, *, keep: bool) -> None:
    onnx.save(convert_float_to_float16(onnx.load(source(name)), keep_io_types=keep), target)


def _static(name: str, target: Path, form: str, *, fine: bool, symmetric: bool) -> None:
    quantize_static(
        source(name),
        target,
        _Reader(name),
        quant_format=QuantFormat[form],
        per_channel=fine,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric},
    )


def _blocked(name: str, target: Path, bits: int, *, symmetric: bool) -> None:
    made = MatMulNBitsQuantizer(
        onnx.load(source(name)), bits=bits, block_size=16, is_symmetric=symmetric
    )
    made.process()
    onnx.save(made.model.model, target)


MAKERS: dict[str, Callable[[str, Path], None]] = {
    "fp16": lambda n, t: _half(n, t, keep=False),
    "fp16-fp32-io": lambda n, t: _half(n, t, keep=True),
    "qdq": lambda n, t: _static(n, t, "QDQ", fine=False, symmetric=False),
    "qdq-per-channel": lambda n, t: _static(n, t, "QDQ", fine=True, symmetric=True),
    "qoperator": lambda n, t: _static(n, t, "QOperator", fine=False, symmetric=False),
    "qoperator-per-channel": lambda n, t: _static(n, t, "QOperator", fine=True, symmetric=True),
    "dynamic": lambda n, t: quantize_dynamic(source(n), t, weight_type=QuantType.QUInt8),
    "dynamic-per-channel": lambda n, t: quantize_dynamic(
        source(n), t, weight_type=QuantType.QInt8, per_channel=True
    ),
    "4-bits": lambda n, t: _blocked(n, t, 4, symmetric=False),
    "8-bits-symmetric": lambda n, t: _blocked(n, t, 8, symmetric=True),
}


def make(name: str, variant: str, folder: Path) -> Path:
    """Write a digits network in other types and return its path."""
    logging.disable(logging.WARNING)
    try:
        target = folder / f"{name}.{variant}.onnx"
        MAKERS[variant](name, target)
    finally:
        logging.disable(logging.NOTSET)
    return target
