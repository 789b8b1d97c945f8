"""MobileNetV3-Large as a backbone: the blocks of the OpenMMLab code base, or those of the paper.

Howard et al., "Searching for MobileNetV3", 2019. The lightweight pose network was trained on the OpenMMLab variant, which
differs from the paper: the first block has an expansion too, the squeeze widths are a plain quarter (not rounded to a multiple
of 8), and among the 160-wide blocks the second, with expansion 672, halves the resolution instead of the first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kpose.models.convolutions import conv_norm, depthwise_conv_norm, he_normal


class Block(NamedTuple):
    """One inverted residual block: expansion 1x1, depthwise, squeeze-excite, projection 1x1.

    `expansion` is the width inside the block (0: no expansion convolution), `squeeze` the width of the squeeze-excite bottleneck
    (0: none).
    """

    kernel_size: int
    expansion: int
    width: int
    squeeze: int
    activation: str
    stride: int


OPENMMLAB_BLOCKS = (
    Block(3, 16, 16, 0, "relu", 1),
    Block(3, 64, 24, 0, "relu", 2),
    Block(3, 72, 24, 0, "relu", 1),
    Block(5, 72, 40, 18, "relu", 2),
    Block(5, 120, 40, 30, "relu", 1),
    Block(5, 120, 40, 30, "relu", 1),
    Block(3, 240, 80, 0, "hard_swish", 2),
    Block(3, 200, 80, 0, "hard_swish", 1),
    Block(3, 184, 80, 0, "hard_swish", 1),
    Block(3, 184, 80, 0, "hard_swish", 1),
    Block(3, 480, 112, 120, "hard_swish", 1),
    Block(3, 672, 112, 168, "hard_swish", 1),
    Block(5, 672, 160, 168, "hard_swish", 1),
    Block(5, 672, 160, 168, "hard_swish", 2),
    Block(5, 960, 160, 240, "hard_swish", 1),
)

PAPER_BLOCKS = (
    Block(3, 0, 16, 0, "relu", 1),
    Block(3, 64, 24, 0, "relu", 2),
    Block(3, 72, 24, 0, "relu", 1),
    Block(5, 72, 40, 24, "relu", 2),
    Block(5, 120, 40, 32, "relu", 1),
    Block(5, 120, 40, 32, "relu", 1),
    Block(3, 240, 80, 0, "hard_swish", 2),
    Block(3, 200, 80, 0, "hard_swish", 1),
    Block(3, 184, 80, 0, "hard_swish", 1),
    Block(3, 184, 80, 0, "hard_swish", 1),
    Block(3, 480, 112, 120, "hard_swish", 1),
    Block(3, 672, 112, 168, "hard_swish", 1),
    Block(5, 672, 160, 168, "hard_swish", 2),
    Block(5, 960, 160, 240, "hard_swish", 1),
    Block(5, 960, 160, 240, "hard_swish", 1),
)

BLOCKS = {"openmmlab": OPENMMLAB_BLOCKS, "paper": PAPER_BLOCKS}


def mobilenet_v3_large(inputs: Any, blocks: str = "openmmlab", padding: str = "symmetric") -> dict[str, Any]:
    """Builds the trunk on `inputs`, total stride 32.

    Args:
        inputs: (B, H, W, 3) normalised RGB; H and W are multiples of 32.
        blocks: A key of `BLOCKS`.
        padding: Of the stride-2 convolutions: "symmetric" (PyTorch's) or "same" (TensorFlow's).

    Returns:
        Its tensors by name: "stem" (stride 2, 16 wide), "block_0" ... "block_14", and "last" (stride 32, 960 wide). In both
        variants "block_2" is the last one of stride 4, "block_5" of stride 8, and "block_11" lies at stride 16.
    """
    outputs = {}
    outputs["stem"] = x = conv_norm(inputs, 16, 3, 2, padding=padding, activation="hard_swish", name="stem")
    for index, block in enumerate(BLOCKS[blocks]):
        outputs[f"block_{index}"] = x = _inverted_residual(x, block, padding, f"block_{index}")
    outputs["last"] = conv_norm(x, 960, activation="hard_swish", name="last")
    return outputs


def _inverted_residual(inputs: Any, block: Block, padding: str, name: str) -> Any:
    x = inputs
    if block.expansion:
        x = conv_norm(x, block.expansion, activation=block.activation, name=f"{name}_expand")
    x = depthwise_conv_norm(x, block.kernel_size, block.stride, padding=padding, activation=block.activation, name=f"{name}_depthwise")
    if block.squeeze:
        x = squeeze_and_excite(x, block.squeeze, f"{name}_squeeze")
    x = conv_norm(x, block.width, activation=None, name=f"{name}_project")
    if block.stride == 1 and inputs.shape[-1] == block.width:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x


def squeeze_and_excite(inputs: Any, width: int, name: str) -> Any:
    """Scales every channel by a gate computed from the channels' means (Hu et al., 2018, with MobileNetV3's hard sigmoid).

    Args:
        inputs: (B, H, W, C).
        width: Width of the bottleneck between the two 1x1 convolutions.
        name: Prefix of the layer names.

    Returns:
        (B, H, W, C).
    """
    return keras.layers.Multiply(name=f"{name}_scale")([inputs, channel_gate(inputs, width, name)])


def channel_gate(inputs: Any, width: int, name: str) -> Any:
    """The gate of `squeeze_and_excite` alone: (B, 1, 1, C), within [0, 1]."""
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(inputs)
    x = keras.layers.Conv2D(width, 1, kernel_initializer=he_normal(), name=f"{name}_reduce_conv")(x)
    x = keras.layers.ReLU(name=f"{name}_reduce_relu")(x)
    x = keras.layers.Conv2D(inputs.shape[-1], 1, kernel_initializer=he_normal(), name=f"{name}_restore_conv")(x)
    return keras.layers.Activation("hard_sigmoid", name=f"{name}_gate")(x)
