"""Coupled U-Nets: small U-Nets in a row, each block of which also sees what the same block of the U-Nets before it found.

Tang, Peng, Geng, Zhu and Metaxas, "CU-Net: Coupled U-Nets", 2018, and Tang, Peng, Geng, Wu, Zhang and Metaxas, "Quantized
Densely Connected U-Nets for Efficient Landmark Localization", 2018. The structure is that of the authors' code. The rows are
those that the soft-gated hourglass is compared with (its tables I, III and VII: MPII, 16 joints, 256x256, multiply-adds in
10^9 by `count`'s convention "plain", PCKh@0.5 on the validation set; 90.8 on the test set for the largest):

    PRESETS          U-Nets channels growth order   published                 here              difference
    2x64_growth_16   2      64       16     1       0.5 M   0.77 G  81.6      0.493 M   0.770 G -1.5 %,  +0.1 %
    2x144_growth_8   2      144      8      1       1.0 M   1.68 G  84.2      1.001 M   1.699 G +0.1 %,  +1.1 %
    2x124_growth_24  2      124      24     1       1.4 M   2.14 G  85.6      1.417 M   2.122 G +1.2 %,  -0.8 %
    2x128_growth_32  2      128      32     1       1.9 M   2.70 G  86.0      1.923 M   2.757 G +1.2 %,  +2.1 %
    2x160_growth_32  2      160      32     1       2.4 M   3.50 G  86.3      2.411 M   3.499 G +0.5 %,   0.0 %
    2x172_growth_36  2      172      36     1       2.9 M   4.15 G  86.6      2.899 M   4.153 G  0.0 %,  +0.1 %
    4x128_growth_32  4      128      32     1       4.0 M   5.17 G  88.0      3.952 M   5.451 G -1.2 %,  +5.4 %
    8x128_growth_32  8      128      32     7       10.1 M  12.7 G  89.4 90.8 10.281 M 14.591 G +1.8 %, +14.9 %

No publication gives the settings row by row. 128 channels that grow by 32 are those of the authors' code; with them the
convolutions alone have 1.899 M in two U-Nets and, every pair being coupled as the first paper has it, 10.144 M in eight, which
are the printed figures. The printed multiply-adds of the large rows are smaller than these networks': without what the coupling
adds to the inputs of the 1x1 convolutions between the U-Nets they would be 2.69, 5.25 and 12.71 G. The settings of the rows of 1.0, 1.4,
2.4 and 2.9 M are the multiples of 4 that fit both figures best, no more.
"""

from __future__ import annotations

from typing import Any

import keras

from kpose.models.checks import check_input_size, check_integer, check_num_keypoints
from kpose.models.convolutions import activate, lecun_uniform, strided_conv
from kpose.models.layers import BatchNormalization
from kpose.models.stacks import heatmaps_name, pre_activated_conv, stacked_model

DEPTH = 4
BOTTLENECK = 4
"""How many times as wide as the growth a dense layer is inside."""

PRESETS: dict[str, dict[str, int]] = {
    "2x64_growth_16": {"stacks": 2, "channels": 64, "growth": 16, "order": 1},  # 0.5 M, 0.77 G, PCKh 81.6
    "2x144_growth_8": {"stacks": 2, "channels": 144, "growth": 8, "order": 1},  # 1.0 M, 1.68 G, PCKh 84.2
    "2x124_growth_24": {"stacks": 2, "channels": 124, "growth": 24, "order": 1},  # 1.4 M, 2.14 G, PCKh 85.6
    "2x128_growth_32": {"stacks": 2, "channels": 128, "growth": 32, "order": 1},  # 1.9 M, 2.70 G, PCKh 86.0
    "2x160_growth_32": {"stacks": 2, "channels": 160, "growth": 32, "order": 1},  # 2.4 M, 3.50 G, PCKh 86.3
    "2x172_growth_36": {"stacks": 2, "channels": 172, "growth": 36, "order": 1},  # 2.9 M, 4.15 G, PCKh 86.6
    "4x128_growth_32": {"stacks": 4, "channels": 128, "growth": 32, "order": 1},  # 4.0 M, 5.17 G, PCKh 88.0
    "8x128_growth_32": {"stacks": 8, "channels": 128, "growth": 32, "order": 7},  # 10.1 M, 12.7 G, PCKh 89.4, test set 90.8
}
"""Options for `cu_net`, one entry per published row: U-Nets x channels, and the growth."""


def cu_net(
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    stacks: int = 2,
    channels: int = 128,
    growth: int = 32,
    order: int = 1,
) -> keras.Model:
    """Builds coupled U-Nets; `PRESETS` holds the options of the published ones, which take 256x256 for 16 joints.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 64.
        stacks: Number of U-Nets.
        channels: Width of the stem and of what passes from block to block.
        growth: Width of the features that a block adds to its input and hands on to the same block of later U-Nets.
        order: How many U-Nets back a block, and the input of a U-Net, looks: 0 for plain stacked U-Nets, `stacks - 1` (or
            more) to couple every pair.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to the heatmaps of all U-Nets, a list of (B, H/4, W/4,
        num_keypoints) float32 named `stack_1_heatmaps` and so on, the last of which is to be decoded; with one U-Net a single
        tensor, `heatmaps`. As in the authors' code, no convolution has a bias, kernels start uniform within 1 / sqrt(fan-in), and
        the scales of the normalisations uniform between 0 and 1.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "cu_net"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=4 << DEPTH)
    check_integer(name, "stacks", stacks, minimum=1)
    check_integer(name, "channels", channels, minimum=1)
    check_integer(name, "growth", growth, minimum=1)
    check_integer(name, "order", order, minimum=0)

    inputs = keras.Input((height, width, 3), name="image")
    x = strided_conv(inputs, channels, 7, 2, kernel_initializer=lecun_uniform(), name="stem_conv")
    x = activate(BatchNormalization(gamma_initializer=_uniform_scale(), name="stem_norm")(x), "stem", "relu")
    x = keras.layers.MaxPooling2D(2, name="stem_pool")(x)

    # The new features of every block, U-Net by U-Net, and the U-Nets' inputs.
    features: dict[str, list[Any]] = {}
    earlier_inputs: list[Any] = []
    outputs = []
    for stack in range(1, stacks + 1):
        if stack > 1:
            x = _join([x, *_latest(earlier_inputs, order)], f"stack_{stack}_input_concat")
            x = _norm_relu_conv(x, channels, name=f"stack_{stack}_input")
        earlier_inputs.append(x)
        x = _u_net(x, features, growth, order, f"stack_{stack}")
        outputs.append(_heatmaps(x, num_keypoints, f"stack_{stack}_head", heatmaps_name(stack, stacks)))
    return stacked_model(inputs, outputs, name)


def _u_net(x: Any, features: dict[str, list[Any]], growth: int, order: int, name: str) -> Any:
    """One U-Net, (B, H, W, C) to the same shape; appends to `features` what its blocks add."""
    channels = x.shape[-1]
    skips = []
    for level in range(DEPTH):
        joined = _dense(x, features, growth, order, name, f"down_{level}")
        x = _norm_relu_conv(joined, channels, name=f"{name}_down_{level}_ahead")
        skips.append(_norm_relu_conv(joined, channels, name=f"{name}_down_{level}_skip"))
        x = keras.layers.MaxPooling2D(2, name=f"{name}_down_{level}_pool")(x)
    x = _norm_relu_conv(_dense(x, features, growth, order, name, "neck"), channels, name=f"{name}_neck_ahead")
    for level in reversed(range(DEPTH)):
        x = keras.layers.UpSampling2D(2, name=f"{name}_up_{level}_upsample")(x)
        x = keras.layers.Concatenate(name=f"{name}_up_{level}_merge")([x, skips[level]])
        x = _norm_relu_conv(_dense(x, features, growth, order, name, f"up_{level}"), channels, name=f"{name}_up_{level}_ahead")
    return x


def _dense(x: Any, features: dict[str, list[Any]], growth: int, order: int, stack: str, block: str) -> Any:
    """A dense layer, coupled with the same one of the U-Nets before it.

    Args:
        x: (B, H, W, C).
        features: For every block what the U-Nets so far have added; this one's is appended.
        growth: Width of what is added.
        order: How many U-Nets back it looks.
        stack: Name of the U-Net.
        block: Name of the block within it.

    Returns:
        (B, H, W, C + growth x (U-Nets looked at + 1)): the input, what the earlier U-Nets added, and what this one adds.
    """
    earlier = features.setdefault(block, [])
    name = f"{stack}_{block}"
    coupled = [x, *_latest(earlier, order)]
    added = _norm_relu_conv(_join(coupled, f"{name}_coupling"), BOTTLENECK * growth, name=f"{name}_1")
    added = _norm_relu_conv(added, growth, 3, name=f"{name}_2")
    earlier.append(added)
    return keras.layers.Concatenate(name=f"{name}_concat")([*coupled, added])


def _latest(tensors: list[Any], order: int) -> list[Any]:
    """The last `order` of them, oldest first."""
    return tensors[max(len(tensors) - order, 0) :]


def _join(tensors: list[Any], name: str) -> Any:
    """The tensors, channel after channel; a single one as it is."""
    return keras.layers.Concatenate(name=name)(tensors) if len(tensors) > 1 else tensors[0]


def _norm_relu_conv(x: Any, filters: int, kernel_size: int = 1, *, name: str) -> Any:
    return pre_activated_conv(x, filters, kernel_size, gamma_initializer=_uniform_scale(), name=name)


def _uniform_scale() -> keras.initializers.Initializer:
    """How PyTorch's batch normalisation started when these networks were trained."""
    return keras.initializers.RandomUniform(0.0, 1.0)


def _heatmaps(x: Any, channels: int, head: str, name: str) -> Any:
    """Normalisation, ReLU and a 1x1 convolution without bias, in float32 under mixed precision too."""
    x = activate(BatchNormalization(gamma_initializer=_uniform_scale(), name=f"{head}_norm")(x), head, "relu")
    return keras.layers.Conv2D(channels, 1, use_bias=False, kernel_initializer=lecun_uniform(), dtype="float32", name=name)(x)
