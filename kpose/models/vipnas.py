"""ViPNAS: a MobileNetV3 whose widths, depths, kernels, groups and attention were searched for, and a depthwise transposed head.

Xu et al., "ViPNAS: Efficient Video Pose Estimation via Neural Architecture Search", 2021. Built as in MMPose, to which an author of the
paper contributed it and where its weights are published.

    source    input      parameters   multiply-adds   COCO val2017
    paper     256x192    2.8 M        0.69 G          AP 67.8
    MMPose    256x192    5.9 M        0.76 G          AP 70.0, the network built here

The paper's figures do not belong to this network. Without its attention MMPose's still has 3.1 M parameters; which network has the paper's
2.8 M is not known here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras

from kpose.models.checks import check_input_size, check_num_keypoints
from kpose.models.convolutions import conv_norm, depthwise_conv_norm, heatmap_conv, normalise, pad_for_stride, small_normal
from kpose.models.layers import DepthwiseConv2DTranspose, GroupedConv2D

STEM_WIDTH = 16
HEAD_STEPS = 3
SQUEEZE_RATIO = 4


class Stage(NamedTuple):
    """Blocks of one width; the first may halve the resolution, all others have an identity shortcut.

    `expansion` is the width inside a block as a multiple of `width` (1: no expansion convolution), `groups` are those of the spatial
    convolution.
    """

    kernel_size: int
    expansion: int
    width: int
    blocks: int
    groups: int
    attention: bool
    activation: str
    stride: int


STAGES = (
    Stage(3, 1, 16, 1, 8, True, "relu", 1),
    Stage(7, 5, 24, 4, 120, True, "relu", 2),
    Stage(7, 4, 40, 4, 20, False, "relu", 2),
    Stage(5, 5, 80, 4, 100, True, "hard_swish", 2),
    Stage(7, 5, 112, 4, 280, True, "hard_swish", 1),
    Stage(5, 6, 160, 4, 240, True, "hard_swish", 2),
)


def vipnas_mobilenet_v3(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds S-ViPNAS-MobileNetV3.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output is
        float32 under mixed precision too. All convolutions start as the authors' do, normal(0, 0.001), biases at 0.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "vipnas_mobilenet_v3"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=32)

    inputs = keras.Input((height, width, 3), name="image")
    x = conv_norm(inputs, STEM_WIDTH, 3, 2, activation="hard_swish", kernel_initializer=small_normal(), name="stem")
    index = 0
    for stage in STAGES:
        for position in range(stage.blocks):
            x = _inverted_residual(x, stage, stage.stride if position == 0 else 1, f"block_{index}")
            index += 1
    for step in range(1, HEAD_STEPS + 1):
        x = DepthwiseConv2DTranspose(small_normal(), name=f"head_{step}_upsample_conv")(x)
        x = normalise(x, f"head_{step}_upsample", "relu")
    return keras.Model(inputs, heatmap_conv(x, num_keypoints), name=name)


def _inverted_residual(inputs: Any, stage: Stage, stride: int, name: str) -> Any:
    x = inputs
    if stage.expansion > 1:
        x = conv_norm(
            x, stage.expansion * stage.width, activation=stage.activation, kernel_initializer=small_normal(), name=f"{name}_expand"
        )
    x = _spatial_conv_norm(x, stage, stride, f"{name}_spatial")
    if stage.attention:
        x = _squeeze_and_excite(x, f"{name}_squeeze")
    x = conv_norm(x, stage.width, activation=None, kernel_initializer=small_normal(), name=f"{name}_project")
    if stride == 1 and inputs.shape[-1] == stage.width:
        x = keras.layers.Add(name=f"{name}_add")([inputs, x])
    return x


def _spatial_conv_norm(x: Any, stage: Stage, stride: int, name: str) -> Any:
    """The convolution over space; with as many groups as channels it is a depthwise one."""
    channels = x.shape[-1]
    if stage.groups == channels:
        return depthwise_conv_norm(
            x, stage.kernel_size, stride, activation=stage.activation, depthwise_initializer=small_normal(), name=name
        )
    x, padding = pad_for_stride(x, stage.kernel_size, stride, "symmetric", f"{name}_conv_pad")
    x = GroupedConv2D(
        channels,
        stage.kernel_size,
        strides=stride,
        padding=padding,
        groups=stage.groups,
        use_bias=False,
        kernel_initializer=small_normal(),
        name=f"{name}_conv",
    )(x)
    return normalise(x, name, stage.activation)


def _squeeze_and_excite(inputs: Any, name: str) -> Any:
    """Scales every channel by a gate computed from the means of all, between 0 and 1 while (x + 1) / 2 is.

    That is the hard sigmoid of OpenMMLab's code at the time, three times as steep as the usual one, (x + 3) / 6, which Keras has.
    """
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(inputs)
    x = keras.layers.Conv2D(inputs.shape[-1] // SQUEEZE_RATIO, 1, kernel_initializer=small_normal(), name=f"{name}_reduce_conv")(x)
    x = keras.layers.ReLU(name=f"{name}_reduce_relu")(x)
    x = keras.layers.Conv2D(inputs.shape[-1], 1, kernel_initializer=small_normal(), name=f"{name}_restore_conv")(x)
    x = keras.layers.Rescaling(3.0, name=f"{name}_steepen")(x)
    x = keras.layers.Activation("hard_sigmoid", name=f"{name}_gate")(x)
    return keras.layers.Multiply(name=f"{name}_scale")([inputs, x])
