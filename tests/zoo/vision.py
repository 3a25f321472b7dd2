"""Convolutional networks and vision transformers."""

from shapes import BATCH, HIDDEN, HIDDEN_STATE, INNER, LABELS, Architecture, Input, Sizes, image

PATCHES: Sizes = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": INNER,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": LABELS,
}
STAGES: Sizes = {"hidden_sizes": [24, 32, 48, 64], "depths": [1, 2, 1, 1], "num_labels": LABELS}
PYRAMID: Sizes = {
    **STAGES,
    "image_size": 64,
    "num_attention_heads": [1, 2, 3, 4],
    "mlp_ratios": [3, 3, 2, 2],
}
WINDOWS: Sizes = {
    "embed_dim": 24,
    "depths": [2, 2],
    "num_heads": [2, 3],
    "window_size": 4,
    "mlp_ratio": 3.0,
    "image_size": 32,
    "patch_size": 4,
    "num_labels": LABELS,
}

CONVOLUTIONAL = (
    Architecture(
        "resnet",
        "ResNetForImageClassification",
        {"embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 2, 1, 1]}
        | {"num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "resnet_basic",
        "ResNetForImageClassification",
        {**STAGES, "embedding_size": 16, "layer_type": "basic"},
        (image(64),),
    ),
    Architecture(
        "mobilenet_v1",
        "MobileNetV1ForImageClassification",
        {"depth_multiplier": 0.25, "image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "mobilenet_v2",
        "MobileNetV2ForImageClassification",
        {"depth_multiplier": 0.35, "image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "efficientnet",
        "EfficientNetForImageClassification",
        # The head has 1280 filters times the width, whatever hidden_dim says.
        {"width_coefficient": 0.25, "depth_coefficient": 1.0, "image_size": 64, "hidden_dim": 320}
        | {"kernel_sizes": [3, 5, 3, 5], "in_channels": [32, 64, 96, 160]}
        | {"out_channels": [64, 96, 160, 192], "strides": [1, 2, 2, 1]}
        | {"num_block_repeats": [1, 2, 2, 1], "expand_ratios": [1, 4, 4, 6]}
        | {"depthwise_padding": [], "batch_norm_eps": 1e-6, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "regnet",
        "RegNetForImageClassification",
        {**STAGES, "embedding_size": 16, "groups_width": 8},
        (image(64),),
    ),
    Architecture("convnext", "ConvNextForImageClassification", STAGES, (image(64),)),
    Architecture("convnextv2", "ConvNextV2ForImageClassification", STAGES, (image(64),)),
    Architecture("dinov3_convnext", "DINOv3ConvNextModel", STAGES, (image(64),), HIDDEN_STATE),
    Architecture("poolformer", "PoolFormerForImageClassification", STAGES, (image(64),)),
    Architecture(
        "focalnet",
        "FocalNetForImageClassification",
        {**STAGES, "embed_dim": 24, "image_size": 32, "depths": [1, 1], "hidden_sizes": [24, 48]}
        | {"focal_levels": [2, 2], "focal_windows": [3, 3], "mlp_ratio": 3.0},
        (image(),),
    ),
    Architecture(
        "hgnet_v2",
        "HGNetV2ForImageClassification",
        {"embedding_size": 24, "depths": [1, 1], "hidden_sizes": [48, 96], "num_labels": LABELS}
        | {"stem_channels": [3, 16, 24], "stem_strides": [2, 1, 1, 2, 1]}
        | {"stage_in_channels": [24, 48], "stage_mid_channels": [16, 32]}
        | {"stage_out_channels": [48, 96], "stage_num_blocks": [1, 2]}
        | {"stage_downsample": [False, True], "stage_downsample_strides": [2, 2]}
        | {"stage_light_block": [False, True], "stage_kernel_size": [3, 5]}
        | {"stage_numb_of_layers": [3, 3]},
        (image(64),),
    ),
)

VISION = (
    Architecture("vit", "ViTForImageClassification", PATCHES, (image(),)),
    Architecture("deit", "DeiTForImageClassification", PATCHES, (image(),)),
    Architecture(
        "beit",
        "BeitForImageClassification",
        {**PATCHES, "use_relative_position_bias": True},
        (image(),),
    ),
    Architecture(
        "dinov2",
        "Dinov2ForImageClassification",
        {**PATCHES, "mlp_ratio": 3, "use_swiglu_ffn": True},
        (image(),),
    ),
    Architecture("dinov3_vit", "DINOv3ViTModel", PATCHES, (image(),), HIDDEN_STATE),
    Architecture("vit_msn", "ViTMSNForImageClassification", PATCHES, (image(),)),
    Architecture("ijepa", "IJepaForImageClassification", PATCHES, (image(),)),
    Architecture("swin", "SwinForImageClassification", WINDOWS, (image(),)),
    Architecture("swinv2", "Swinv2ForImageClassification", WINDOWS, (image(),)),
    Architecture(
        "hiera",
        "HieraForImageClassification",
        {"embed_dim": 24, "image_size": [64, 64], "depths": [1, 1], "num_heads": [1, 2]}
        | {"num_query_pool": 1, "masked_unit_attention": [True, False]}
        | {"masked_unit_size": [2, 2], "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "segformer",
        "SegformerForSemanticSegmentation",
        {**PYRAMID, "decoder_hidden_size": 40},
        (image(64),),
    ),
    Architecture(
        "glpn",
        "GLPNForDepthEstimation",
        {**PYRAMID, "decoder_hidden_size": 40},
        (image(64),),
        ("predicted_depth",),
    ),
    Architecture("pvt", "PvtForImageClassification", PYRAMID, (image(64),)),
    Architecture("pvt_v2", "PvtV2ForImageClassification", PYRAMID, (image(64),)),
    Architecture(
        "cvt",
        "CvtForImageClassification",
        {"embed_dim": [16, 32, 48], "num_heads": [1, 2, 3], "depth": [1, 2, 3]}
        | {"mlp_ratio": [3.0, 3.0, 2.0], "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "levit",
        "LevitForImageClassification",
        {"hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4], "depths": [1, 2, 1]}
        | {"key_dim": [8, 8, 8], "image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "mobilevit",
        "MobileViTForImageClassification",
        {"hidden_sizes": [32, 48, 64], "neck_hidden_sizes": [8, 16, 24, 40, 56, 72, 96]}
        | {"image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "mobilevitv2",
        "MobileViTV2ForImageClassification",
        {"width_multiplier": 0.25, "base_attn_unit_dims": [128, 192, 256]}
        | {"n_attn_blocks": [1, 2, 1], "image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "swiftformer",
        "SwiftFormerForImageClassification",
        {"depths": [1, 2, 1, 1], "embed_dims": [24, 32, 48, 64], "mlp_ratio": 3}
        | {"image_size": 64, "num_labels": LABELS},
        (image(64),),
    ),
    Architecture(
        "dpt",
        "DPTForDepthEstimation",
        {**PATCHES, "num_hidden_layers": 4, "backbone_out_indices": [0, 1, 2, 3]}
        | {"neck_hidden_sizes": [16, 24, 32, 48], "fusion_hidden_size": 40},
        (image(),),
        ("predicted_depth",),
    ),
    Architecture(
        "yolos",
        "YolosForObjectDetection",
        {**PATCHES, "image_size": [32, 32], "num_detection_tokens": 5},
        (image(),),
        ("logits", "pred_boxes"),
    ),
    Architecture(
        "detr",
        "DetrForObjectDetection",
        {"num_queries": 5, "d_model": HIDDEN, "encoder_layers": 1, "decoder_layers": 2}
        | {"encoder_ffn_dim": INNER, "decoder_ffn_dim": INNER + 32, "num_labels": LABELS}
        | {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
        | {
            "backbone_config": {
                "model_type": "resnet",
                "embedding_size": 16,
                "hidden_sizes": [24, 32, 40, 48],
                "depths": [1, 1, 1, 1],
                "layer_type": "basic",
                "out_features": ["stage4"],
            }
        },
        (image(64),),
        ("logits", "pred_boxes"),
    ),
    Architecture(
        "videomae",
        "VideoMAEForVideoClassification",
        {**PATCHES, "num_frames": 4},
        (Input("pixel_values", (BATCH, 4, 3, 32, 32)),),
    ),
)
