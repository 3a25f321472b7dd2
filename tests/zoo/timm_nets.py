"""Image networks of timm and torchvision; needs those two beside torch (``pip install --no-deps``).

    python tests/zoo/timm_nets.py [FOLDER] [--only NAME] [--route ts|dynamo]

Widths and resolutions are small where the packages allow it; the coupling stays what it is.
"""

from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
import torchvision
from saving import Job, run
from shrink import narrowed, shorten
from torch_routes import jobs

NARROW = (16, 32, 64, 128)
# Name of the network in timm, side of the image, arguments that make it smaller.
TIMM: dict[str, tuple[str, int, dict[str, object]]] = {
    "densenet": ("densenet121", 64, {"growth_rate": 8, "block_config": (2, 3, 2)}),
    "inception_v3": ("inception_v3", 96, {}),
    "inception_v4": ("inception_v4", 96, {}),
    "inception_resnet_v2": ("inception_resnet_v2", 96, {}),
    "xception": ("xception41", 64, {}),
    "res2net": ("res2net50_14w_8s", 64, {"layers": (1, 1, 1, 1), "channels": NARROW}),
    "resnest": ("resnest14d", 64, {"channels": NARROW}),
    "sknet": ("skresnet18", 64, {"layers": (1, 1, 1, 1), "channels": NARROW}),
    "resnext": ("resnext26ts", 64, {}),
    "seresnet": ("seresnet18", 64, {"layers": (1, 1, 1, 1), "channels": NARROW}),
    "ecaresnet": ("ecaresnet26t", 64, {"layers": (1, 1, 1, 1)}),
    "lambda_resnet": ("lambda_resnet26t", 64, {}),
    "coatnet": ("coatnet_pico_rw_224", 64, {"img_size": 64}),
    "maxvit": ("maxvit_rmlp_pico_rw_256", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "mobilenetv4": ("mobilenetv4_conv_small_050", 64, {}),
    "mobilenetv4_hybrid": ("mobilenetv4_hybrid_medium", 64, {}),
    "mnasnet": ("mnasnet_small", 64, {}),
    "fbnet": ("fbnetc_100", 64, {}),
    "ghostnet": ("ghostnet_050", 64, {}),
    "ghostnetv2": ("ghostnetv2_100", 64, {}),
    "mixnet": ("mixnet_s", 64, {}),
    "tinynet": ("tinynet_e", 64, {}),
    "rexnet": ("rexnetr_100", 64, {}),
    "lcnet": ("lcnet_035", 64, {}),
    "efficientnetv2": ("test_efficientnet", 64, {}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "dla": ("dla46_c", 64, {}),
    "dpn": (
        "dpn48b",
        64,
        {"k_r": 32, "groups": 8, "k_sec": (1, 1, 2, 1), "inc_sec": (4, 8, 8, 16)},
    ),
    "vovnet": ("ese_vovnet19b_slim_dw", 64, {}),
    "vgg": ("vgg11_bn", 32, {}),
    "regnety": ("regnety_002", 64, {}),
    "regnetz": ("regnetz_005", 64, {}),
    "repvgg": ("repvgg_a0", 64, {}),
    "mobileone": ("mobileone_s0", 64, {}),
    "repghost": ("repghostnet_050", 64, {}),
    "repvit": ("repvit_m0_9", 64, {"embed_dim": NARROW, "depth": (1, 1, 2, 1)}),
    "fastvit": ("fastvit_t8", 64, {}),
    "cspnet": ("cspresnet50", 64, {}),
    "darknet": ("darknet17", 64, {}),
    "gernet": ("gernet_s", 64, {}),
    "nfnet": ("test_nfnet", 64, {}),
    "convnext_timm": ("test_convnext", 64, {}),
    "convnextv2_timm": ("test_convnext2", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "inception_next": ("inception_next_atto", 64, {"dims": NARROW, "depths": (1, 1, 2, 1)}),
    "starnet": ("starnet_s050", 64, {}),
    "efficientformer": ("efficientformer_l1", 224, {}),
    "efficientvit": ("efficientvit_b0", 64, {}),
    "efficientvit_msra": ("efficientvit_m0", 224, {}),
    "vit_timm": ("test_vit", 64, {"img_size": 64}),
    "tiny_vit": ("tiny_vit_5m_224", 64, {}),
    "mvitv2": ("mvitv2_tiny", 64, {"img_size": 64}),
    "nextvit": ("nextvit_small", 64, {}),
    "davit": (
        "davit_tiny",
        64,
        {"depths": (1, 1, 1, 1), "embed_dims": NARROW, "num_heads": (1, 2, 4, 8)},
    ),
    "gcvit": ("gcvit_xxtiny", 64, {"img_size": 64, "embed_dim": 32}),
    "cait": ("cait_xxs24_224", 64, {"img_size": 64, "depth": 2}),
    "xcit": ("xcit_nano_12_p16_224", 64, {"depth": 2}),
    "crossvit": ("crossvit_9_240", 240, {"depth": ((1, 1, 0), (1, 1, 0))}),
    "coat": ("coat_lite_tiny", 64, {"img_size": 64}),
    "twins": ("twins_svt_small", 64, {"img_size": 64, "depths": (1, 1, 2, 1)}),
    "pit": ("pit_ti_224", 224, {"depth": (1, 1, 1)}),
    "tnt": ("tnt_s_legacy_patch16_224", 64, {"img_size": 64, "depth": 2}),
    "visformer": ("visformer_tiny", 64, {"img_size": 64, "embed_dim": 48, "depth": (1, 1, 1)}),
    "volo": ("volo_d1_224", 64, {"img_size": 64}),
    "eva02": ("eva02_tiny_patch14_224", 56, {"img_size": 56, "depth": 2}),
    "nest": ("nest_tiny", 224, {}),
    "convit": ("convit_tiny", 64, {"img_size": 64, "depth": 2, "local_up_to_layer": 1}),
    "mixer": ("mixer_s32_224", 64, {"img_size": 64}),
    "resmlp": ("resmlp_12_224", 64, {"img_size": 64}),
    "gmlp": ("gmlp_ti16_224", 64, {"img_size": 64}),
    "convmixer": ("convmixer_768_32", 64, {}),
    "sequencer": (
        "sequencer2d_s",
        64,
        {"layers": (1, 1, 1, 1), "embed_dims": NARROW, "hidden_sizes": (4, 8, 16, 32)},
    ),
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
    "vitamin": ("vitamin_small_224", 64, {"img_size": 64, "depth": 2}),
    "hiera_timm": ("hiera_tiny_224", 224, {"stages": (1, 1, 1, 1)}),
    "focalnet_timm": ("focalnet_tiny_srf", 64, {}),
    "swiftformer_timm": ("swiftformer_xs", 64, {"embed_dims": NARROW, "layers": (1, 1, 2, 1)}),
    "selecsls": ("selecsls42b", 64, {}),
    "hardcorenas": ("hardcorenas_a", 64, {}),
    "shvit": (
        "shvit_s1",
        64,
        {"embed_dim": (32, 56, 80), "partial_dim": (8, 12, 17), "depth": (1, 1, 2)},
    ),
    "rdnet": (
        "rdnet_tiny",
        64,
        {"num_init_features": 16, "growth_rates": (16, 24, 32, 32, 32, 32, 56)},
    ),
}
# Name of the builder in torchvision, side of the image.
TORCHVISION: dict[str, tuple[str, int]] = {
    "alexnet": ("alexnet", 224),
    "squeezenet": ("squeezenet1_1", 64),
    "googlenet": ("googlenet", 64),
    "shufflenet_v2": ("shufflenet_v2_x0_5", 64),
    "shufflenet_v2_x1_0": ("shufflenet_v2_x1_0", 64),
    "shufflenet_v2_x1_5": ("shufflenet_v2_x1_5", 64),
    "shufflenet_v2_x2_0": ("shufflenet_v2_x2_0", 64),
}
# Networks whose package fixes the widths, and what these are divided by.
DIVISOR = {
    "inception_v3": 8,
    "inception_v4": 8,
    "inception_resnet_v2": 8,
    "xception": 8,
    "vgg": 8,
    "darknet": 8,
    "repvgg": 8,
    "convmixer": 8,
    "selecsls": 8,
    "alexnet": 8,
}
# Networks whose package fixes the depth: of equal blocks in a row, two stay.
SHORT = {
    "convmixer",
    "cspnet",
    "efficientformer",
    "focalnet_timm",
    "gcvit",
    "ghostnetv2",
    "gmlp",
    "inception_resnet_v2",
    "inception_v4",
    "mixer",
    "mobilenetv4_hybrid",
    "mvitv2",
    "nest",
    "nextvit",
    "rdnet",
    "regnety",
    "regnetz",
    "repvgg",
    "resmlp",
    "tiny_vit",
    "vitamin",
    "volo",
    "xception",
}
# Torch's dynamo exporter fails on these.
TRACED = dict.fromkeys(("hiera_timm", "maxvit", "nest", "twins"), "ts")
SMALL = {"mixnet", "lcnet", "tinynet", "mobilenetv3", "shufflenet_v2", "densenet", "res2net"}


def _timm(name: str) -> torch.nn.Module:
    model, _, arguments = TIMM[name]
    return timm.create_model(model, pretrained=False, num_classes=10, **arguments)


def _torchvision(name: str) -> torch.nn.Module:
    model, _ = TORCHVISION[name]
    extra = {"init_weights": False, "aux_logits": False} if model == "googlenet" else {}
    return getattr(torchvision.models, model)(num_classes=10, **extra)


def _small(build: Callable[[str], torch.nn.Module], name: str) -> torch.nn.Module:
    with narrowed(DIVISOR.get(name, 1)):
        module = build(name)
    if name in SHORT:
        shorten(module, 2)
    return module


def every() -> Iterator[Job]:
    for build, named, route in ((_timm, TIMM, "dynamo"), (_torchvision, TORCHVISION, "ts")):
        for name, (_, side, *_) in named.items():
            routes = ("ts", "dynamo") if name in SMALL else (TRACED.get(name, route),)
            yield from jobs(name, partial(_small, build, name), (3, side, side), routes=routes)


if __name__ == "__main__":
    run(every(), __doc__)
