"""What published checkpoints call the layers of MobileNetV3-Large in its OpenMMLab variant, of `kpose.models.mobilenet_v3`.

The names are MMPose's, after its prefix. The 1x1 convolution at the end is an addition of the lightweight network's authors
(HAIV-Lab/ICPR22w), and named as they do.

Names agree more widely than the networks behind them. kpose's squeeze-and-excite gates are (x + 3) / 6, as with the lightweight network's
authors; MMPose's own file has (x + 1) / 2, which is the same once kernel and bias of `squeeze_restore_conv` are multiplied by three.
MMPose's first versions also have an activation after the projection, which kpose has not.
"""

from __future__ import annotations

from kpose.models.mobilenet_v3 import OPENMMLAB_BLOCKS

PARTS = {"expand": "expand_conv", "depthwise": "depthwise_conv", "project": "linear_conv"}

NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"conv1.conv"),
    (r"stem_norm", r"conv1.bn"),
    (r"last_conv", r"conv2.conv"),
    (r"last_norm", r"conv2.bn"),
    # Blocks count from 1 there.
    *(
        rule
        for index in range(len(OPENMMLAB_BLOCKS))
        for rule in (
            *((f"block_{index}_{ours}_conv", f"layer{index + 1}.{theirs}.conv") for ours, theirs in PARTS.items()),
            *((f"block_{index}_{ours}_norm", f"layer{index + 1}.{theirs}.bn") for ours, theirs in PARTS.items()),
            (f"block_{index}_squeeze_reduce_conv", f"layer{index + 1}.se.conv1.conv"),
            (f"block_{index}_squeeze_restore_conv", f"layer{index + 1}.se.conv2.conv"),
        )
    ),
)
