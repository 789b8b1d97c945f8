"""MobileNetV2 as a backbone.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, at width 1.0 and with the 1280-wide 1x1 convolution at
its end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kpose.models.convolutions import conv_norm, depthwise_conv_norm


class Stage(NamedTuple):
    """Inverted residual blocks of one width; `stride` is that of the first (table 2 of the paper)."""

    expansion: int
    width: int
    blocks: int
    stride: int


STAGES = (
    Stage(1, 16, 1, 1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)

STEM_WIDTH = 32
LAST_WIDTH = 1280


def mobilenet_v2(inputs: Any, padding: str = "symmetric") -> dict[str, Any]:
    """Builds the trunk on `inputs`, total stride 32.

    Args:
        inputs: (B, H, W, 3) normalised RGB; H and W are multiples of 32.
        padding: Of the stride-2 convolutions: "symmetric" (PyTorch's) or "same" (TensorFlow's).

    Returns:
        Its tensors by name: "stem" (stride 2, 32 wide), "stage_1" ... "stage_7", and "last" (stride 32, 1280 wide). "stage_2" is the
        last one of stride 4, "stage_3" of stride 8, "stage_5" of stride 16.
    """
    outputs = {}
    outputs["stem"] = x = conv_norm(inputs, STEM_WIDTH, 3, 2, padding=padding, activation="relu6", name="stem")
    for number, stage in enumerate(STAGES, start=1):
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            x = _inverted_residual(x, stage.expansion, stage.width, stride, padding, f"stage_{number}_block_{index}")
        outputs[f"stage_{number}"] = x
    outputs["last"] = conv_norm(x, LAST_WIDTH, activation="relu6", name="last")
    return outputs


def _inverted_residual(inputs: Any, expansion: int, width: int, stride: int, padding: str, name: str) -> Any:
    x = inputs
    if expansion > 1:
        x = conv_norm(x, expansion * inputs.shape[-1], activation="relu6", name=f"{name}_expand")
    x = depthwise_conv_norm(x, 3, stride, padding=padding, activation="relu6", name=f"{name}_depthwise")
    x = conv_norm(x, width, activation=None, name=f"{name}_project")
    if stride == 1 and inputs.shape[-1] == width:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x
