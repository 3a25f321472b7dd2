"""The torch networks: train each, export it through torch's own exporters."""

from functools import partial
from pathlib import Path

import networks
import torch
from digits import LAYOUTS, Part
from strip import strip
from torch import Tensor, nn
from training import trained

OPSET = 17
DYNAMO_OPSET = 20


def resnet(part: Part, folder: Path) -> None:
    """Train the residual network once and export it three ways."""
    network = trained(networks.resnet, part, "images", epochs=60, rate=4e-3)
    export(network, "images", folder / "digits_resnet.onnx")
    export(network, "images", folder / "digits_resnet_bn.onnx", fold=False)
    export_dynamo(network, "images", folder / "digits_resnet_dynamo.onnx")


def mobile(part: Part, folder: Path) -> None:
    """Train the depthwise-separable network with squeeze-excite."""
    network = trained(networks.mobile, part, "images", epochs=80, rate=4e-3)
    export(network, "images", folder / "digits_mobile.onnx")


def vit(part: Part, folder: Path) -> None:
    """Train the vision transformer."""
    network = trained(networks.VisionTransformer, part, "images", epochs=200, rate=2e-3)
    export(network, "images", folder / "digits_vit.onnx")


def lstm(part: Part, folder: Path) -> None:
    """Train an LSTM over the rows."""
    network = trained(partial(networks.Recurrent, nn.LSTM), part, "rows", epochs=150, rate=5e-3)
    export(network, "rows", folder / "digits_lstm.onnx")


def gru(part: Part, folder: Path) -> None:
    """Train a GRU over the rows."""
    network = trained(partial(networks.Recurrent, nn.GRU), part, "rows", epochs=150, rate=5e-3)
    export(network, "rows", folder / "digits_gru.onnx")


def export(network: nn.Module, layout: str, path: Path, *, fold: bool = True) -> None:
    """Export by tracing (TorchScript).

    Parameters
    ----------
    network : nn.Module
    layout : str
        A key of ``LAYOUTS``: how the network reads a sample. The batch axis stays dynamic.
    path : Path
        The file to write.
    fold : bool
        False keeps BatchNormalization as nodes, which the exporter otherwise folds away.
    """
    mode = torch.onnx.TrainingMode
    torch.onnx.export(
        network,
        (_example(layout),),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["input"],
        output_names=["scores"],
        dynamic_axes={"input": {0: "batch"}, "scores": {0: "batch"}},
        training=mode.EVAL if fold else mode.PRESERVE,
        do_constant_folding=fold,
    )
    strip(path)


def export_dynamo(network: nn.Module, layout: str, path: Path) -> None:
    """Export by ``torch.export``; parameters as for `export`."""
    program = torch.onnx.export(
        network,
        (_example(layout),),
        dynamo=True,
        opset_version=DYNAMO_OPSET,
        input_names=["input"],
        output_names=["scores"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    program.save(str(path), external_data=False)
    strip(path)


def _example(layout: str) -> Tensor:
    # Two samples: the exporter would take a batch of one for a constant.
    return torch.zeros(2, *LAYOUTS[layout])
