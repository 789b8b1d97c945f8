"""What published checkpoints call the layers of ViPNAS on MobileNetV3.

The names are MMPose's, before and after version 1 the same after its prefix; the authors' repository (luminxu/ViPNAS) has MMPose's file.
"""

from __future__ import annotations

from kpose.models.vipnas import STAGES

PARTS = {"expand": "expand_conv", "spatial": "depthwise_conv", "project": "linear_conv"}

NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"conv1.conv"),
    (r"stem_norm", r"conv1.bn"),
    # Blocks count from 1 there.
    *(
        rule
        for index in range(sum(stage.blocks for stage in STAGES))
        for rule in (
            *((f"block_{index}_{ours}_conv", f"layer{index + 1}.{theirs}.conv") for ours, theirs in PARTS.items()),
            *((f"block_{index}_{ours}_norm", f"layer{index + 1}.{theirs}.bn") for ours, theirs in PARTS.items()),
            (f"block_{index}_squeeze_reduce_conv", f"layer{index + 1}.se.conv1.conv"),
            (f"block_{index}_squeeze_restore_conv", f"layer{index + 1}.se.conv2.conv"),
        )
    ),
    # Convolution, normalisation and ReLU follow one another in one list.
    (r"head_1_upsample_conv", r"deconv_layers.0"),
    (r"head_1_upsample_norm", r"deconv_layers.1"),
    (r"head_2_upsample_conv", r"deconv_layers.3"),
    (r"head_2_upsample_norm", r"deconv_layers.4"),
    (r"head_3_upsample_conv", r"deconv_layers.6"),
    (r"head_3_upsample_norm", r"deconv_layers.7"),
    (r"heatmaps", r"final_layer"),
)
