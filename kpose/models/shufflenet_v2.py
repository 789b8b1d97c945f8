"""ShuffleNetV2 as a backbone.

Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018, at width 1.0 and with the 1024-wide 1x1
convolution at its end. Stages count from 2, as in the paper.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kpose.models.convolutions import conv_norm, depthwise_conv_norm, pad_for_stride
from kpose.models.layers import ChannelShuffle, ChannelSlice


class Stage(NamedTuple):
    """Units of one width; the first halves the resolution (table 5 of the paper)."""

    width: int
    blocks: int


STAGES = (Stage(116, 4), Stage(232, 8), Stage(464, 4))

STEM_WIDTH = 24
LAST_WIDTH = 1024


def shufflenet_v2(inputs: Any, padding: str = "symmetric") -> dict[str, Any]:
    """Builds the trunk on `inputs`, total stride 32.

    Args:
        inputs: (B, H, W, 3) normalised RGB; H and W are multiples of 32.
        padding: Of what halves the resolution: "symmetric" (PyTorch's) or "same" (TensorFlow's).

    Returns:
        Its tensors by name: "stem" (stride 4, 24 wide), "stage_2" (stride 8, 116 wide), "stage_3" (16, 232), "stage_4" (32, 464) and
        "last" (32, 1024).
    """
    outputs = {}
    x = conv_norm(inputs, STEM_WIDTH, 3, 2, padding=padding, name="stem")
    # PyTorch pads a maximum with minus infinity; after a ReLU zeros do the same.
    x, mode = pad_for_stride(x, 3, 2, padding, "stem_pool_pad")
    outputs["stem"] = x = keras.layers.MaxPooling2D(3, 2, padding=mode, name="stem_pool")(x)
    for number, stage in enumerate(STAGES, start=2):
        for index in range(stage.blocks):
            name = f"stage_{number}_block_{index}"
            x = _unit(x, name) if index else _downsampling_unit(x, stage.width, padding, name)
        outputs[f"stage_{number}"] = x
    outputs["last"] = conv_norm(x, LAST_WIDTH, name="last")
    return outputs


def _unit(inputs: Any, name: str) -> Any:
    """Half of the channels passes as it is, the other half through three convolutions (figure 3c)."""
    width = inputs.shape[-1]
    kept = ChannelSlice(0, width // 2, name=f"{name}_kept")(inputs)
    x = ChannelSlice(width // 2, width, name=f"{name}_changed")(inputs)
    return _join(kept, _convolve(x, width // 2, 1, "symmetric", name), name)


def _downsampling_unit(inputs: Any, width: int, padding: str, name: str) -> Any:
    """All channels go both ways, at half the resolution (figure 3d)."""
    shortcut = depthwise_conv_norm(inputs, 3, 2, padding=padding, activation=None, name=f"{name}_shortcut_depthwise")
    shortcut = conv_norm(shortcut, width // 2, name=f"{name}_shortcut_pointwise")
    return _join(shortcut, _convolve(inputs, width // 2, 2, padding, name), name)


def _convolve(x: Any, width: int, stride: int, padding: str, name: str) -> Any:
    x = conv_norm(x, width, name=f"{name}_1")
    x = depthwise_conv_norm(x, 3, stride, padding=padding, activation=None, name=f"{name}_2")
    return conv_norm(x, width, name=f"{name}_3")


def _join(first: Any, second: Any, name: str) -> Any:
    x = keras.layers.Concatenate(name=f"{name}_concat")([first, second])
    return ChannelShuffle(2, name=f"{name}_shuffle")(x)
