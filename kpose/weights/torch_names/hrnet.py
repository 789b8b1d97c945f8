"""What published checkpoints call the layers of HRNet, and of the trunks of Multi-Stage HRNet and RAM+GPR.

The names are those of HRNet's authors (leoxiaobin/deep-high-resolution-net.pytorch); MMPose has the same after its prefix. The trunks
trained on ImageNet (HRNet/HRNet-Image-Classification) have them too, and all four outputs of the last exchange, of which HRNet
uses one and RAM+GPR all.

All networks of Multi-Stage HRNet find their layers under the same names: one HRNet fills each of them, as in the paper. With one stage
it is an HRNet with three channels per joint, as MMPose's HRNets with the UDP "regress" target are, in the same order. The authors' own
HRNets with such a target (HuangJunjie2017/UDP-Pose) are another network: their last exchange widens the highest branch fourfold.
"""

from __future__ import annotations

NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_(\d)_conv", r"conv\1"),
    (r"stem_(\d)_norm", r"bn\1"),
    (r"stage_1_block_(\d)_shortcut_conv", r"layer1.\1.downsample.0"),
    (r"stage_1_block_(\d)_shortcut_norm", r"layer1.\1.downsample.1"),
    (r"stage_1_block_(\d)_(\d)_conv", r"layer1.\1.conv\2"),
    (r"stage_1_block_(\d)_(\d)_norm", r"layer1.\1.bn\2"),
    (r"transition_1_branch_0_conv", r"transition1.0.0"),
    (r"transition_1_branch_0_norm", r"transition1.0.1"),
    # A new branch is a list of convolutions there; it has one entry.
    (r"(?:network_\d_)?transition_(\d)_branch_(\d)_conv", r"transition\1.\2.0.0"),
    (r"(?:network_\d_)?transition_(\d)_branch_(\d)_norm", r"transition\1.\2.0.1"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_branch_(\d)_block_(\d)_(\d)_conv", r"stage\1.\2.branches.\3.\4.conv\5"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_branch_(\d)_block_(\d)_(\d)_norm", r"stage\1.\2.branches.\3.\4.bn\5"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_exchange_(\d)_from_(\d)_conv", r"stage\1.\2.fuse_layers.\3.\4.0"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_exchange_(\d)_from_(\d)_norm", r"stage\1.\2.fuse_layers.\3.\4.1"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_exchange_(\d)_from_(\d)_step_(\d)_conv", r"stage\1.\2.fuse_layers.\3.\4.\5.0"),
    (r"(?:network_\d_)?stage_(\d)_module_(\d)_exchange_(\d)_from_(\d)_step_(\d)_norm", r"stage\1.\2.fuse_layers.\3.\4.\5.1"),
    (r"(?:stage_\d_)?heatmaps", r"final_layer"),
)

MULTI_STAGE_HEAD = r"(?:stage_\d_)?heatmaps|network_\d_entry_.+"
"""The layers of Multi-Stage HRNet that no HRNet has, or with other shapes."""

RAM_GPR_HEAD = r"heatmaps|refinement_.+|rescaled_sum_.+|.+_attention_.+"
"""The layers of RAM+GPR that no trunk trained on ImageNet has."""

RAM_GPR_HEAD_ON_POSE = RAM_GPR_HEAD + r"|stage_4_module_2_exchange_[123]_.+"
"""The layers of RAM+GPR that no HRNet trained for poses has."""
