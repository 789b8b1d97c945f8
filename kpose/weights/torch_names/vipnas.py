"""What published checkpoints call the layers of ViPNAS on MobileNetV3.

The names are MMPose's, before and after version 1 the same after its prefix; the authors' repository (luminxu/ViPNAS) has MMPose's file.
"""

from __future__ import annotations

from kpose.models.vipnas import STAGES
from kpose.weights.torch_names.simple_baseline import HEAD_NAMES

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
    *HEAD_NAMES,
)
