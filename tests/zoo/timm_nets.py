"""Image networks of timm and torchvision; needs those two beside torch (``pip install --no-deps``).

    python tests/zoo/timm_nets.py [FOLDER] [--only NAME] [--route ts|dynamo]

Widths and resolutions are small where the packages allow it; the coupling stays what it is.
"""

from collections.abc import Iterator
from functools import partial

import timm
import torchvision
from saving import Job, run
from torch_routes import jobs

# Name of the network in timm, side of the image, arguments that make it smaller.
TIMM: dict[str, tuple[str, int, dict[str, object]]] = {
    "densenet": ("densenet121", 64, {"growth_rate": 8, "block_config": (2, 3, 2)}),
    "inception_v3": ("inception_v3", 96, {}),
    "res2net": ("res2net50_14w_8s", 64, {"layers": (1, 1, 1, 1)}),
    "resnest": ("resnest14d", 64, {}),
    "sknet": ("skresnet18", 64, {}),
    "resnext": ("resnext26ts", 64, {}),
    "seresnet": ("seresnet18", 64, {}),
    "ecaresnet": ("ecaresnet26t", 64, {"layers": (1, 1, 1, 1)}),
    "lambda_resnet": ("lambda_resnet26t", 64, {}),
    "coatnet": ("coatnet_pico_rw_224", 64, {"img_size": 64}),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "mobilenetv4": ("mobilenetv4_conv_small_050", 64, {}),
    "mnasnet": ("mnasnet_small", 64, {}),
    "fbnet": ("fbnetc_100", 64, {}),
    "ghostnet": ("ghostnet_050", 64, {}),
    "mixnet": ("mixnet_s", 64, {}),
    "tinynet": ("tinynet_e", 64, {}),
    "rexnet": ("rexnetr_100", 64, {}),
    "lcnet": ("lcnet_035", 64, {}),
    "efficientnetv2": ("test_efficientnet", 64, {}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "dla": ("dla46_c", 64, {}),
    "dpn": ("dpn48b", 64, {}),
    "vovnet": ("ese_vovnet19b_slim_dw", 64, {}),
    "regnety": ("regnety_002", 64, {}),
    "repvgg": ("repvgg_a0", 64, {}),
    "mobileone": ("mobileone_s0", 64, {}),
    "repghost": ("repghostnet_050", 64, {}),
    "repvit": ("repvit_m0_9", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "cspnet": ("cspresnet50", 64, {}),
    "gernet": ("gernet_s", 64, {}),
    "nfnet": ("test_nfnet", 64, {}),
    "convnext_timm": ("test_convnext", 64, {}),
    "convnextv2_timm": ("test_convnext2", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "inception_next": ("inception_next_atto", 64, {}),
    "starnet": ("starnet_s050", 64, {}),
    "efficientvit": ("efficientvit_b0", 64, {}),
    "vit_timm": ("test_vit", 64, {"img_size": 64}),
    "davit": ("davit_tiny", 64, {"depths": (1, 1, 1, 1)}),
    "gcvit": ("gcvit_xxtiny", 64, {"img_size": 64}),
    "cait": ("cait_xxs24_224", 64, {"img_size": 64, "depth": 2}),
    "xcit": ("xcit_nano_12_p16_224", 64, {"depth": 2}),
    "coat": ("coat_lite_tiny", 64, {"img_size": 64}),
    "tnt": ("tnt_s_legacy_patch16_224", 64, {"img_size": 64, "depth": 2}),
    "visformer": ("visformer_tiny", 64, {"img_size": 64}),
    "eva02": ("eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 2}),
    "convit": ("convit_tiny", 64, {"img_size": 64, "depth": 2, "local_up_to_layer": 1}),
    "sequencer": ("sequencer2d_s", 64, {"layers": (1, 1, 1, 1)}),
    "mambaout": ("test_mambaout", 64, {}),
    "pvt_v2_timm": ("pvt_v2_b0", 64, {}),
    "swin_timm": (
        "swin_tiny_patch4_window7_224",
        56,
        {"img_size": 56, "depths": (1, 2), "num_heads": (3, 6)},
    ),
    "swinv2_cr": (
        "swinv2_cr_tiny_224",
        56,
        {"img_size": 56, "window_size": 7, "depths": (1, 2), "num_heads": (3, 6)},
    ),
    "swiftformer_timm": ("swiftformer_xs", 64, {}),
    "hardcorenas": ("hardcorenas_a", 64, {}),
    "shvit": ("shvit_s1", 64, {}),
}
# Name of the builder in torchvision, side of the image.
TORCHVISION: dict[str, tuple[str, int]] = {
    "squeezenet": ("squeezenet1_1", 64),
    "googlenet": ("googlenet", 64),
    "shufflenet_v2": ("shufflenet_v2_x0_5", 64),
    "shufflenet_v2_x1_0": ("shufflenet_v2_x1_0", 64),
    "shufflenet_v2_x1_5": ("shufflenet_v2_x1_5", 64),
    "shufflenet_v2_x2_0": ("shufflenet_v2_x2_0", 64),
}
SMALL = {"lcnet", "tinynet", "mobilenetv3", "shufflenet_v2", "densenet", "res2net"}


def _timm(model: str, arguments: dict[str, object]):
    return timm.create_model(model, pretrained=False, num_classes=10, **arguments)


def _torchvision(model: str):
    extra = {"init_weights": False, "aux_logits": False} if model == "googlenet" else {}
    return getattr(torchvision.models, model)(num_classes=10, **extra)


def every() -> Iterator[Job]:
    for name, (model, side, arguments) in TIMM.items():
        routes = ("ts", "dynamo") if name in SMALL else ("dynamo",)
        yield from jobs(name, partial(_timm, model, arguments), (3, side, side), routes=routes)
    for name, (model, side) in TORCHVISION.items():
        routes = ("ts", "dynamo") if name in SMALL else ("ts",)
        yield from jobs(name, partial(_torchvision, model), (3, side, side), routes=routes)


if __name__ == "__main__":
    run(every(), __doc__)
