"""What published checkpoints call the layers of SimpleBaseline.

On ResNet the names are those of the authors (microsoft/human-pose-estimation.pytorch), and MMPose has the same after its prefix. On the
lightweight trunks they are MMPose's, after its prefix. The trunks alone, trained on ImageNet, have these names too: PyTorch's ResNets,
and OpenMMLab's MobileNets and ShuffleNets.
"""

from __future__ import annotations

from kpose.weights.torch_names import mobilenet_v3, resnet

HEAD = r"head_\d_upsample_.+|heatmaps"
"""The layers that belong to the head."""

HEAD_NAMES: tuple[tuple[str, str], ...] = (
    # Convolution, normalisation and ReLU follow one another in one list.
    (r"head_1_upsample_conv", r"deconv_layers.0"),
    (r"head_1_upsample_norm", r"deconv_layers.1"),
    (r"head_2_upsample_conv", r"deconv_layers.3"),
    (r"head_2_upsample_norm", r"deconv_layers.4"),
    (r"head_3_upsample_conv", r"deconv_layers.6"),
    (r"head_3_upsample_norm", r"deconv_layers.7"),
    (r"heatmaps", r"final_layer"),
)

RESNET_NAMES = (*resnet.NAMES, *HEAD_NAMES)

MOBILENET_V2_NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"conv1.conv"),
    (r"stem_norm", r"conv1.bn"),
    # Stage 1 has no expansion, so that what follows it moves up.
    (r"stage_1_block_0_depthwise_conv", r"layer1.0.conv.0.conv"),
    (r"stage_1_block_0_depthwise_norm", r"layer1.0.conv.0.bn"),
    (r"stage_1_block_0_project_conv", r"layer1.0.conv.1.conv"),
    (r"stage_1_block_0_project_norm", r"layer1.0.conv.1.bn"),
    (r"stage_(\d)_block_(\d)_expand_conv", r"layer\1.\2.conv.0.conv"),
    (r"stage_(\d)_block_(\d)_expand_norm", r"layer\1.\2.conv.0.bn"),
    (r"stage_(\d)_block_(\d)_depthwise_conv", r"layer\1.\2.conv.1.conv"),
    (r"stage_(\d)_block_(\d)_depthwise_norm", r"layer\1.\2.conv.1.bn"),
    (r"stage_(\d)_block_(\d)_project_conv", r"layer\1.\2.conv.2.conv"),
    (r"stage_(\d)_block_(\d)_project_norm", r"layer\1.\2.conv.2.bn"),
    (r"last_conv", r"conv2.conv"),
    (r"last_norm", r"conv2.bn"),
    *HEAD_NAMES,
)

MOBILENET_V3_NAMES = (*mobilenet_v3.NAMES, *HEAD_NAMES)

SHUFFLENET_V2_NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"conv1.conv"),
    (r"stem_norm", r"conv1.bn"),
    # Stages count from 0 there and from 2 here, the convolutions of a unit from 0 there and from 1 here.
    *(
        rule
        for stage in range(3)
        for ours, theirs in (
            ("shortcut_depthwise", "branch1.0"),
            ("shortcut_pointwise", "branch1.1"),
            ("1", "branch2.0"),
            ("2", "branch2.1"),
            ("3", "branch2.2"),
        )
        for rule in (
            (rf"stage_{stage + 2}_block_(\d)_{ours}_conv", rf"layers.{stage}.\1.{theirs}.conv"),
            (rf"stage_{stage + 2}_block_(\d)_{ours}_norm", rf"layers.{stage}.\1.{theirs}.bn"),
        )
    ),
    (r"last_conv", r"layers.3.conv"),
    (r"last_norm", r"layers.3.bn"),
    *HEAD_NAMES,
)
