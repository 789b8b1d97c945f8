"""The stacked hourglass: encoder-decoders with residual blocks on every skip, in a row.

Newell, Yang and Deng, "Stacked Hourglass Networks for Human Pose Estimation", 2016. Published weights exist for three networks
of that name, which differ; the option `variant` says which one is meant:

    variant        published weights and scores
    newell         the authors' own network. MPII validation, PCKh@0.5: 88.5 with 2 stacks, 90.1 with 8 (their PyTorch code;
                   88.1 in the first code), 90.9 with 8 on the test set
    pytorch_pose   the widely used re-implementation bearpaw/pytorch-pose: the second residual block of the stem already has the
                   full width. MPII validation: 86.95 with 2 stacks, 88.78 with 8
    cornernet      the hourglass of Law and Deng, "CornerNet", 2018, which MMPose calls Hourglass: basic blocks, two or four at a
                   time, strided convolutions for pooling, five levels of growing width. One stack, "Hourglass-52": COCO val2017
                   AP 72.6 at 256x256, 74.6 at 384x384; MPII validation 88.9 and 89.4

    size, 8 stacks             published          here (10^9 "plain", 2^30 "hrnet")
    COCO 256x192, 17 joints    25.1 M / 14.3      25.438 M / 19.178 (2^30)
    MPII 256x256, 16 joints    25.5 M             25.434 M / 27.44 (10^9)

14.3 is the cost without the residual block between each hourglass and its prediction: then 23.722 M and 14.303, as the authors'
code was in its first version. In the network as published the cost is 19.2.
"""

from __future__ import annotations

from typing import Any

import keras

from kpose.models.checks import check_choice, check_input_size, check_integer, check_num_keypoints
from kpose.models.convolutions import activate, conv_norm, heatmap_conv, lecun_uniform, small_normal
from kpose.models.stacks import heatmaps_name, pre_activated_conv, stacked_model

DEPTH = 4
STEM_WIDTHS = (64, 128)

VARIANTS = ("newell", "pytorch_pose", "cornernet")

CORNERNET_WIDTHS = (1.0, 1.0, 1.5, 1.5, 1.5, 2.0)
"""Width of every level, from the top down, in units of the first."""
CORNERNET_BLOCKS = (2, 2, 2, 2, 2, 4)
"""How many basic blocks stand at a place of that level."""
CORNERNET_DEPTH = len(CORNERNET_WIDTHS) - 1


def stacked_hourglass(
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    stacks: int = 8,
    channels: int = 256,
    variant: str = "newell",
) -> keras.Model:
    """Builds a stacked hourglass.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 64; of 128 for the variant "cornernet".
        stacks: Number of hourglasses, 1 to 8.
        channels: Width of the hourglasses (for "cornernet" at their top), an even number.
        variant: "newell" (the network as published), "pytorch_pose" or "cornernet"; see the table of this module.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to the heatmaps of all stacks, a list of (B, H/4, W/4,
        num_keypoints) float32 named `stack_1_heatmaps` and so on, the last of which is to be decoded; with one stack a single
        tensor, `heatmaps`. Kernels start uniform within 1 / sqrt(fan-in), the default of the authors' Torch; in "cornernet"
        normal(0, 0.001) as in MMPose. Biases start at zero.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "stacked_hourglass"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    check_choice(name, "variant", variant, VARIANTS)
    height, width = check_input_size(name, input_size, multiple=4 << (CORNERNET_DEPTH if variant == "cornernet" else DEPTH))
    check_integer(name, "stacks", stacks, minimum=1, maximum=8)
    check_integer(name, "channels", channels, multiple=2)

    inputs = keras.Input((height, width, 3), name="image")
    if variant == "cornernet":
        outputs = _cornernet(inputs, num_keypoints, stacks, channels)
    else:
        outputs = _newell(inputs, num_keypoints, stacks, channels, second_width=STEM_WIDTHS[1] if variant == "newell" else channels)
    return stacked_model(inputs, outputs, name)


def _newell(inputs: Any, num_keypoints: int, stacks: int, channels: int, second_width: int) -> list[Any]:
    """The heatmaps of all stacks; `second_width` is that of the stem's second residual block."""
    x = conv_norm(inputs, STEM_WIDTHS[0], 7, 2, use_bias=True, kernel_initializer=lecun_uniform(), name="stem")
    x = _residual(x, STEM_WIDTHS[1], "stem_residual_0")
    x = keras.layers.MaxPooling2D(2, name="stem_pool")(x)
    x = _residual(x, second_width, "stem_residual_1")
    x = _residual(x, channels, "stem_residual_2")
    outputs = []
    for stack in range(1, stacks + 1):
        name = f"stack_{stack}"
        features = _residual(_hourglass(x, name), channels, f"{name}_output")
        features = conv_norm(features, channels, use_bias=True, kernel_initializer=lecun_uniform(), name=f"{name}_linear")
        heatmaps = heatmap_conv(features, num_keypoints, kernel_initializer=lecun_uniform(), name=heatmaps_name(stack, stacks))
        outputs.append(heatmaps)
        if stack < stacks:
            remapped = [
                keras.layers.Conv2D(channels, 1, kernel_initializer=lecun_uniform(), name=f"{name}_remap_{part}_conv")(tensor)
                for part, tensor in (("features", features), ("heatmaps", heatmaps))
            ]
            x = keras.layers.Add(name=f"{name}_remap_add")([x, *remapped])
    return outputs


def _hourglass(x: Any, name: str) -> Any:
    """One hourglass, (B, H, W, C) to the same shape: a residual block on every skip, and two between pooling and upsampling."""
    channels = x.shape[-1]
    skips = []
    for level in range(DEPTH):
        skips.append(_residual(x, channels, f"{name}_level_{level}_skip"))
        x = keras.layers.MaxPooling2D(2, name=f"{name}_level_{level}_pool")(x)
        x = _residual(x, channels, f"{name}_level_{level + 1}_encoder")
    x = _residual(x, channels, f"{name}_level_{DEPTH}_middle")
    for level in reversed(range(DEPTH)):
        x = _residual(x, channels, f"{name}_level_{level + 1}_decoder")
        x = keras.layers.UpSampling2D(2, name=f"{name}_level_{level}_upsample")(x)
        x = keras.layers.Add(name=f"{name}_level_{level}_merge")([skips[level], x])
    return x


def _residual(x: Any, channels: int, name: str) -> Any:
    """A pre-activated bottleneck whose convolutions have biases; a 1x1 convolution on the shortcut where the width changes."""
    residual = pre_activated_conv(x, channels // 2, use_bias=True, name=f"{name}_1")
    residual = pre_activated_conv(residual, channels // 2, 3, use_bias=True, name=f"{name}_2")
    residual = pre_activated_conv(residual, channels, use_bias=True, name=f"{name}_3")
    if x.shape[-1] != channels:
        x = keras.layers.Conv2D(channels, 1, kernel_initializer=lecun_uniform(), name=f"{name}_shortcut_conv")(x)
    return keras.layers.Add(name=f"{name}_add")([x, residual])


def _cornernet(inputs: Any, num_keypoints: int, stacks: int, channels: int) -> list[Any]:
    """The heatmaps of all stacks."""
    x = conv_norm(inputs, channels // 2, 7, 2, kernel_initializer=small_normal(), name="stem")
    x = _basic_block(x, channels, 2, "stem_block_0")
    outputs = []
    for stack in range(1, stacks + 1):
        name = f"stack_{stack}"
        features = _cornernet_hourglass(x, name)
        features = conv_norm(features, channels, 3, kernel_initializer=small_normal(), name=f"{name}_output")
        outputs.append(heatmap_conv(features, num_keypoints, name=heatmaps_name(stack, stacks)))
        if stack < stacks:
            remapped = [
                conv_norm(tensor, channels, kernel_initializer=small_normal(), activation=None, name=f"{name}_remap_{part}")
                for part, tensor in (("input", x), ("features", features))
            ]
            x = activate(keras.layers.Add(name=f"{name}_remap_add")(remapped), f"{name}_remap", "relu")
            x = _basic_block(x, channels, 1, f"{name}_remap_block_0")
    return outputs


def _cornernet_hourglass(x: Any, name: str) -> Any:
    """One hourglass, (B, H, W, C) to the same shape: basic blocks on every skip, on the way down and on the way up."""
    widths = [int(x.shape[-1] * factor) for factor in CORNERNET_WIDTHS]
    skips = []
    for level in range(CORNERNET_DEPTH):
        skips.append(_basic_blocks(x, [widths[level]] * CORNERNET_BLOCKS[level], 1, f"{name}_level_{level}_skip"))
        x = _basic_blocks(x, [widths[level + 1]] * CORNERNET_BLOCKS[level], 2, f"{name}_level_{level + 1}_encoder")
    x = _basic_blocks(x, widths[-1:] * CORNERNET_BLOCKS[-1], 1, f"{name}_level_{CORNERNET_DEPTH}_middle")
    for level in reversed(range(CORNERNET_DEPTH)):
        # On the way up the last of the blocks changes the width, on the way down the first.
        before = [widths[level + 1]] * (CORNERNET_BLOCKS[level] - 1)
        x = _basic_blocks(x, [*before, widths[level]], 1, f"{name}_level_{level + 1}_decoder")
        x = keras.layers.UpSampling2D(2, name=f"{name}_level_{level}_upsample")(x)
        x = keras.layers.Add(name=f"{name}_level_{level}_merge")([skips[level], x])
    return x


def _basic_blocks(x: Any, widths: list[int], stride: int, name: str) -> Any:
    """One basic block for each of the widths, the first with the stride."""
    for index, width in enumerate(widths):
        x = _basic_block(x, width, stride if index == 0 else 1, f"{name}_{index}")
    return x


def _basic_block(x: Any, channels: int, stride: int, name: str) -> Any:
    """ResNet's basic block: two 3x3 convolutions, and a 1x1 on the shortcut where width or resolution change."""
    residual = conv_norm(x, channels, 3, stride, kernel_initializer=small_normal(), name=f"{name}_1")
    residual = conv_norm(residual, channels, 3, kernel_initializer=small_normal(), activation=None, name=f"{name}_2")
    if stride != 1 or x.shape[-1] != channels:
        x = conv_norm(x, channels, 1, stride, kernel_initializer=small_normal(), activation=None, name=f"{name}_shortcut")
    return activate(keras.layers.Add(name=f"{name}_add")([x, residual]), name, "relu")
