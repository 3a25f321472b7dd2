"""Networks written out in torch, through both exporters, optimised and plain; needs torch.

python tests/zoo/torch_nets.py [FOLDER] [--only NAME] [--route ts|ts_plain|dynamo|dynamo_plain]
"""

from collections.abc import Iterator
from functools import partial

from conv_nets import (
    ArcFace,
    Aspp,
    Espcn,
    Focus,
    Fpn,
    Hourglass,
    OptionA,
    Raft,
    Sd,
    TwoStream,
    UNet,
    Yolo,
    convnext_v2_small,
    densenet_small,
    inception_small,
    res2net_small,
    shufflenet_v1,
)
from saving import Job, run
from sequence_nets import (
    FEATURES,
    Conformer,
    Crnn,
    DeepSpeech,
    Experts,
    Fused,
    GraphNet,
    LastState,
    Linear,
    PointNet,
    Recommender,
    Tacotron,
    Tcn,
    Vae,
    mamba,
)
from torch import nn
from torch_routes import OPSETS, Build, jobs

IMAGE, STEPS = (3, 32, 32), (8, FEATURES)
BOTH, ALL = ("ts", "dynamo"), tuple(OPSETS)
NETS: dict[str, tuple[Build, tuple[tuple[int, ...], ...], tuple[str, ...]]] = {
    "shufflenet_v1": (shufflenet_v1, (IMAGE,), ALL),
    "res2net_small": (res2net_small, (IMAGE,), ALL),
    "densenet_small": (densenet_small, (IMAGE,), ALL),
    "inception_small": (inception_small, (IMAGE,), ALL),
    "unet": (UNet, (IMAGE,), ALL),
    "unet_bilinear": (partial(UNet, "bilinear"), (IMAGE,), BOTH),
    "yolo_v8": (Yolo, ((3, 64, 64),), ALL),
    "yolox_focus": (Focus, (IMAGE,), BOTH),
    "aspp": (Aspp, ((3, 33, 33),), ALL),
    "espcn": (Espcn, ((3, 12, 12),), BOTH),
    "convnext_v2_small": (convnext_v2_small, (IMAGE,), BOTH),
    "resnet_option_a": (OptionA, (IMAGE,), BOTH),
    "raft": (Raft, (IMAGE, IMAGE), BOTH),
    "retina_fpn": (Fpn, (IMAGE,), BOTH),
    "diffusion_unet": (Sd, ((4, 8, 8), (16,)), BOTH),
    "hourglass": (Hourglass, (IMAGE,), BOTH),
    "arcface": (ArcFace, ((3, 16, 16),), BOTH),
    "video_3d": (TwoStream, ((3, 4, 8, 8),), BOTH),
    "deepspeech_lstm": (DeepSpeech, ((FEATURES, 9),), BOTH),
    "deepspeech_gru": (partial(DeepSpeech, nn.GRU), ((FEATURES, 9),), BOTH),
    "crnn": (Crnn, ((1, 16, 24),), BOTH),
    "last_state": (LastState, (STEPS,), BOTH),
    "tacotron": (Tacotron, (STEPS,), BOTH),
    "wavenet": (Tcn, (STEPS,), BOTH),
    "mamba": (mamba, (STEPS,), BOTH),
    "experts": (Experts, (STEPS,), BOTH),
    "detr_fused": (Fused, (IMAGE,), BOTH),
    "conformer": (Conformer, (STEPS,), BOTH),
    "deep_and_cross": (Recommender, ((FEATURES,),), BOTH),
    "vae": (Vae, ((FEATURES,),), BOTH),
    "graph_attention": (GraphNet, ((7, FEATURES), (7, 7)), BOTH),
    "pointnet": (PointNet, ((3, 24),), BOTH),
    "linear_attention": (Linear, (STEPS,), BOTH),
}


def every() -> Iterator[Job]:
    for name, (build, shapes, routes) in NETS.items():
        yield from jobs(name, build, *shapes, routes=routes)


if __name__ == "__main__":
    run(every(), __doc__)
