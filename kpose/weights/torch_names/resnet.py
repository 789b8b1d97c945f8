"""What published checkpoints call the layers of ResNet: PyTorch's own networks, the pose networks on them, and MMPose after its prefix."""

from __future__ import annotations

NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"conv1"),
    (r"stem_norm", r"bn1"),
    (r"stage_(\d)_block_(\d+)_shortcut_conv", r"layer\1.\2.downsample.0"),
    (r"stage_(\d)_block_(\d+)_shortcut_norm", r"layer\1.\2.downsample.1"),
    (r"stage_(\d)_block_(\d+)_(\d)_conv", r"layer\1.\2.conv\3"),
    (r"stage_(\d)_block_(\d+)_(\d)_norm", r"layer\1.\2.bn\3"),
)
