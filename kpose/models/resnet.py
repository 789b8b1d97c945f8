"""ResNet as a backbone: the variant with the stride in the bottleneck's 3x3 convolution, from which published pose networks start.

He et al., "Deep Residual Learning for Image Recognition", 2016. The paper halves the resolution in the first 1x1 convolution of a stage;
PyTorch's networks, known as v1.5, do so in the 3x3.

    depth        bottlenecks in stages 1 to 4
    RESNET_50    3, 4, 6, 3
    RESNET_101   3, 4, 23, 3
    RESNET_152   3, 8, 36, 3
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kpose.models.convolutions import conv_norm, pad_for_stride

RESNET_50 = (3, 4, 6, 3)
RESNET_101 = (3, 4, 23, 3)
RESNET_152 = (3, 8, 36, 3)

STEM_WIDTH = 64
EXPANSION = 4
"""How many times wider a bottleneck's output is than its 3x3 convolution."""


def resnet(inputs: Any, blocks: Sequence[int] = RESNET_50) -> dict[str, Any]:
    """Builds the trunk on `inputs`, total stride 32.

    Args:
        inputs: (B, H, W, 3) normalised RGB; H and W are multiples of 32.
        blocks: How many bottlenecks each of the four stages has.

    Returns:
        Its tensors by name: "stem" (stride 4, 64 wide), "stage_1" (stride 4, 256 wide), "stage_2" (8, 512), "stage_3" (16, 1024) and
        "stage_4" (32, 2048).
    """
    outputs = {}
    x = conv_norm(inputs, STEM_WIDTH, 7, 2, name="stem")
    # PyTorch pads a maximum with minus infinity; after a ReLU zeros do the same.
    x, mode = pad_for_stride(x, 3, 2, "symmetric", "stem_pool_pad")
    outputs["stem"] = x = keras.layers.MaxPooling2D(3, 2, padding=mode, name="stem_pool")(x)
    for stage, count in enumerate(blocks, start=1):
        width = STEM_WIDTH * 2 ** (stage - 1)
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            x = bottleneck(x, width, EXPANSION * width, stride, name=f"stage_{stage}_block_{index}")
        outputs[f"stage_{stage}"] = x
    return outputs


def bottleneck(inputs: Any, width: int, expanded_width: int, stride: int = 1, *, name: str, project: bool | None = None) -> Any:
    """1x1, 3x3, 1x1 convolution, added to what came in.

    Args:
        inputs: (B, H, W, C).
        width: Of the first two convolutions.
        expanded_width: Of the third.
        stride: Of the 3x3 convolution, 1 or 2.
        name: Prefix of the layer names.
        project: Whether a 1x1 convolution stands in the shortcut; unless given, where the shape changes.

    Returns:
        (B, H / stride, W / stride, expanded_width).
    """
    if project is None:
        project = stride != 1 or inputs.shape[-1] != expanded_width
    shortcut = conv_norm(inputs, expanded_width, 1, stride, activation=None, name=f"{name}_shortcut") if project else inputs
    x = conv_norm(inputs, width, name=f"{name}_1")
    x = conv_norm(x, width, 3, stride, name=f"{name}_2")
    x = conv_norm(x, expanded_width, activation=None, name=f"{name}_3")
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)
