"""Lite-HRNet: HRNet's parallel branches, with channel weights computed across resolutions in place of its costly convolutions.

Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", 2021. Built as in the authors' code, with which the published weights
were trained. Multiply-adds in units of 2^30 by the paper's count, which adds bias, normalisation and, it seems, activations; scores
from the authors' repository.

    network          input      parameters   multiply-adds   score
    lite_hrnet_18    256x192    1.1 M        0.20            COCO val2017 AP 64.8
    lite_hrnet_18    384x288    1.1 M        0.45            COCO val2017 AP 67.6
    lite_hrnet_30    256x192    1.8 M        0.31            COCO val2017 AP 67.2
    lite_hrnet_30    384x288    1.8 M        0.70            COCO val2017 AP 70.4
    lite_hrnet_18    256x256    1.1 M        0.27            MPII val PCKh 85.4
    lite_hrnet_30    256x256    1.8 M        0.42            MPII val PCKh 87.0

Stages are called as in the paper, from 2 on (1 is the stem); modules, blocks and branches (0 is the highest resolution) count from 0.
"""

from __future__ import annotations

from typing import Any

import keras

from kpose.models.checks import check_input_size, check_num_keypoints
from kpose.models.convolutions import conv_norm, depthwise_conv_norm, heatmap_conv, small_normal
from kpose.models.layers import ChannelShuffle, ChannelSlice, CornerAlignedUpSampling2D

STEM_WIDTH = 32
WIDTHS = (40, 80, 160, 320)
"""Channels of the branches, the highest resolution first."""

BLOCKS = 2
"""Conditional channel weighting blocks in every module."""

CROSS_RATIO = 8
SPATIAL_RATIO = 4

# Of stages 2, 3 and 4, which have two, three and four branches.
MODULES_18 = (2, 4, 2)
MODULES_30 = (3, 8, 3)

Branches = list[Any]
"""One tensor per resolution, the highest first; each next one has half the height and width."""


def lite_hrnet_18(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds Lite-HRNet-18; arguments, result and errors as for `lite_hrnet`."""
    return lite_hrnet("lite_hrnet_18", MODULES_18, num_keypoints, input_size)


def lite_hrnet_30(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds Lite-HRNet-30; arguments, result and errors as for `lite_hrnet`."""
    return lite_hrnet("lite_hrnet_30", MODULES_30, num_keypoints, input_size)


def lite_hrnet(name: str, modules: tuple[int, ...], num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds a Lite-HRNet.

    Args:
        name: Of the model.
        modules: How many modules stages 2, 3 and 4 have.
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output is
        float32 under mixed precision too. All convolutions start as the authors' do, normal(0, 0.001), biases at 0.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=32)

    inputs = keras.Input((height, width, 3), name="image")
    branches = [_stem(inputs)]
    for stage, count in enumerate(modules, start=2):
        branches = _transition(branches, WIDTHS[:stage], f"stage_{stage}_transition")
        for module in range(count):
            branches = _module(branches, f"stage_{stage}_module_{module}")
    return keras.Model(inputs, heatmap_conv(_iterative_head(branches), num_keypoints), name=name)


def _stem(inputs: Any) -> Any:
    """A strided convolution, and ShuffleNet's downsampling block, each half of whose channels goes its own way: to a quarter, 32 wide."""
    half = STEM_WIDTH // 2
    x = _conv_norm(inputs, STEM_WIDTH, 3, 2, name="stem")
    left = ChannelSlice(0, half, name="stem_left_slice")(x)
    left = _depthwise_conv_norm(left, 2, name="stem_left_depthwise")
    left = _conv_norm(left, half, name="stem_left_pointwise")
    right = ChannelSlice(half, STEM_WIDTH, name="stem_right_slice")(x)
    right = _conv_norm(right, STEM_WIDTH, name="stem_right_expand")
    right = _depthwise_conv_norm(right, 2, name="stem_right_depthwise")
    right = _conv_norm(right, half, name="stem_right_project")
    return ChannelShuffle(name="stem_shuffle")(keras.layers.Concatenate(name="stem_concat")([left, right]))


def _transition(branches: Branches, widths: tuple[int, ...], name: str) -> Branches:
    """Brings the branches to their widths and makes a new one, at half the resolution, of the lowest."""
    outputs = [
        x if x.shape[-1] == width else _separable_conv_norm(x, width, name=f"{name}_{index}")
        for index, (x, width) in enumerate(zip(branches, widths, strict=False))
    ]
    return [*outputs, _separable_conv_norm(branches[-1], widths[-1], 2, name=f"{name}_{len(branches)}")]


def _module(branches: Branches, name: str) -> Branches:
    for block in range(BLOCKS):
        branches = conditional_channel_weighting(branches, f"{name}_block_{block}")
    return _fuse(branches, f"{name}_fuse")


def conditional_channel_weighting(branches: Branches, name: str) -> Branches:
    """ShuffleNet's unit without its two pointwise convolutions: half of every branch's channels is weighted, the other passes.

    Args:
        branches: One tensor per resolution, of even width.
        name: Prefix of the layer names.

    Returns:
        Tensors of the same shapes.
    """
    kept, weighted = [], []
    for index, x in enumerate(branches):
        half = x.shape[-1] // 2
        kept.append(ChannelSlice(0, half, name=f"{name}_branch_{index}_kept_slice")(x))
        weighted.append(ChannelSlice(half, 2 * half, name=f"{name}_branch_{index}_weighted_slice")(x))
    outputs = []
    for index, (keep, x) in enumerate(zip(kept, _cross_resolution_weighting(weighted, f"{name}_cross"), strict=True)):
        branch = f"{name}_branch_{index}"
        x = _depthwise_conv_norm(x, name=f"{branch}_depthwise")
        x = _spatial_weighting(x, f"{branch}_spatial")
        x = keras.layers.Concatenate(name=f"{branch}_concat")([keep, x])
        outputs.append(ChannelShuffle(name=f"{branch}_shuffle")(x))
    return outputs


def _cross_resolution_weighting(branches: Branches, name: str) -> Branches:
    """Scales every channel, at every position of the lowest resolution, by a weight computed from all branches there."""
    lowest = len(branches) - 1
    pooled = [
        keras.layers.AveragePooling2D(2 ** (lowest - index), name=f"{name}_{index}_pool")(x) if index < lowest else x
        for index, x in enumerate(branches)
    ]
    weights = keras.layers.Concatenate(name=f"{name}_concat")(pooled)
    channels = weights.shape[-1]
    weights = _conv_norm(weights, channels // CROSS_RATIO, name=f"{name}_reduce")
    weights = _conv_norm(weights, channels, activation="sigmoid", name=f"{name}_restore")
    outputs, start = [], 0
    for index, x in enumerate(branches):
        stop = start + x.shape[-1]
        own = ChannelSlice(start, stop, name=f"{name}_{index}_slice")(weights)
        if index < lowest:
            own = keras.layers.UpSampling2D(2 ** (lowest - index), name=f"{name}_{index}_upsample")(own)
        outputs.append(keras.layers.Multiply(name=f"{name}_{index}_scale")([x, own]))
        start = stop
    return outputs


def _spatial_weighting(x: Any, name: str) -> Any:
    """Scales every channel by a weight computed from the means of all: squeeze-and-excite, with a sigmoid."""
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_mean")(x)
    gate = keras.layers.Conv2D(x.shape[-1] // SPATIAL_RATIO, 1, kernel_initializer=small_normal(), name=f"{name}_reduce_conv")(gate)
    gate = keras.layers.ReLU(name=f"{name}_reduce_relu")(gate)
    gate = keras.layers.Conv2D(x.shape[-1], 1, kernel_initializer=small_normal(), name=f"{name}_restore_conv")(gate)
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def _fuse(branches: Branches, name: str) -> Branches:
    """Adds to every branch what the others know, as the authors' code does it, which is not what the paper shows.

    The code adds in place and begins each sum with what comes from branch 0, which it then adds once more. So branch 0 counts double
    everywhere, and the other branches are given its sum with all others in place of itself. The published weights expect this; by MMPose's
    account a plain sum costs 0.5 to 1 AP.
    """
    outputs: Branches = []
    fused = branches[0]
    for target, x in enumerate(branches):
        maps = []
        for source, other in enumerate([fused, *branches[1:]]):
            path = f"{name}_{target}_from_{source}"
            if source == target:
                maps.append(x)
            elif source > target:
                other = _conv_norm(other, x.shape[-1], activation=None, name=path)
                maps.append(keras.layers.UpSampling2D(2 ** (source - target), name=f"{path}_upsample")(other))
            else:
                maps.append(_downsample(other, x.shape[-1], target - source, path))
        total = keras.layers.Add(name=f"{name}_{target}_add")([maps[0], *maps])
        if target == 0:
            fused = total
        outputs.append(keras.layers.ReLU(name=f"{name}_{target}_relu")(total))
    return outputs


def _downsample(x: Any, width: int, steps: int, name: str) -> Any:
    """Halves the resolution `steps` times; only the last step changes the width, and has no activation."""
    for step in range(steps - 1):
        x = _separable_conv_norm(x, x.shape[-1], 2, name=f"{name}_step_{step}")
    return _separable_conv_norm(x, width, 2, activation=None, name=f"{name}_step_{steps - 1}")


def _iterative_head(branches: Branches) -> Any:
    """From the lowest resolution to the highest: each branch and what the one below it became; returns the highest, 40 wide."""
    widths = [x.shape[-1] for x in branches]
    x = None
    for step, branch in enumerate(reversed(branches)):
        if x is not None:
            x = CornerAlignedUpSampling2D(name=f"head_{step}_upsample")(x)
            branch = keras.layers.Add(name=f"head_{step}_add")([branch, x])
        x = _separable_conv_norm(branch, widths[max(0, len(widths) - 2 - step)], name=f"head_{step}")
    return x


def _separable_conv_norm(x: Any, filters: int, stride: int = 1, *, name: str, activation: str | None = "relu") -> Any:
    """A 3x3 depthwise convolution, and a pointwise one; the activation follows the second."""
    x = _depthwise_conv_norm(x, stride, name=f"{name}_depthwise")
    return _conv_norm(x, filters, activation=activation, name=f"{name}_pointwise")


def _conv_norm(x: Any, *arguments: int, name: str, activation: str | None = "relu") -> Any:
    return conv_norm(x, *arguments, name=name, activation=activation, kernel_initializer=small_normal())


def _depthwise_conv_norm(x: Any, stride: int = 1, *, name: str) -> Any:
    """3x3, without activation."""
    return depthwise_conv_norm(x, 3, stride, name=name, activation=None, depthwise_initializer=small_normal())
