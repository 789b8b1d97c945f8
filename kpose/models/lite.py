"""The lightweight network: MobileNetV3, a head of depthwise transposed convolutions, and attention.

Li and Xiang, "Lightweight Human Pose Estimation Using Heatmap-Weighting Loss", 2022. With the authors' backbone, which is
OpenMMLab's and not that of the MobileNetV3 paper, the network has 3.078 M parameters and 0.559 G multiply-adds at 256x192
(published: 3.1 M; 0.58 by a count that adds normalisation, ReLU and bias, see `kpose.models.counting`).

    attention   after the last step only (table VI, COCO val2017, 256x192)
    none        AP 65.29 in the paper
    se          AP 65.71
    cbam        AP 65.77
    full        AP 65.83, the network the paper proposes
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kpose.errors import KposeError
from kpose.models.checks import check_choice, check_input_size, check_num_keypoints
from kpose.models.convolutions import conv_norm, he_normal, heatmap_conv, lecun_uniform, normalise, small_normal
from kpose.models.layers import ChannelPooling, DepthwiseConv2DTranspose
from kpose.models.mobilenet_v3 import BLOCKS, channel_gate, mobilenet_v3_large, squeeze_and_excite

HEAD_WIDTH = 256
ATTENTION_RATIO = 4


def lite_mobilenet_v3(
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    attention: str = "full",
    attention_steps: Sequence[bool] = (False, False, True),
    backbone: str = "openmmlab",
    padding: str = "symmetric",
) -> keras.Model:
    """Builds the lightweight network.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        attention: "full" (x + channel + spatial, equation 7), "se" (the channel part alone), "cbam", or "none".
        attention_steps: After which of the three upsampling steps attention follows.
        backbone: "openmmlab" (the published network) or "paper" (the MobileNetV3 paper's own blocks: 3.42 M / 0.527 G; every
            published MobileNetV3-Large trunk fits it).
        padding: Of the stride-2 convolutions: "symmetric" (the published network, PyTorch) or "same" (TensorFlow: for a trunk
            that was trained that way).

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output
        is float32 under mixed precision too. Weights start as the authors' do: He (fan-out) in the backbone and the attention,
        normal(0, 0.001) in the transposed convolutions and the last convolution, PyTorch's default in the pointwise ones.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "lite_mobilenet_v3"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=32)
    check_choice(name, "attention", attention, ATTENTION)
    check_choice(name, "backbone", backbone, BLOCKS)
    check_choice(name, "padding", padding, ("symmetric", "same"))
    steps = tuple(attention_steps)
    if len(steps) != 3 or not all(isinstance(step, bool) for step in steps):
        raise KposeError(f"{name}: attention_steps is {attention_steps!r}, but must be three booleans, one for each upsampling step")

    inputs = keras.Input((height, width, 3), name="image")
    x = mobilenet_v3_large(inputs, blocks=backbone, padding=padding)["last"]
    for step, attend in enumerate(steps, start=1):
        x = _upsample(x, f"head_{step}")
        if attend:
            x = ATTENTION[attention](x, f"attention_{step}")
    return keras.Model(inputs, heatmap_conv(x, num_keypoints), name=name)


def _upsample(x: Any, name: str) -> Any:
    """One step of the head: resolution doubled per channel, then channels mixed (section III-A)."""
    x = DepthwiseConv2DTranspose(small_normal(), name=f"{name}_upsample_conv")(x)
    x = normalise(x, f"{name}_upsample", "relu")
    return conv_norm(x, HEAD_WIDTH, use_bias=True, kernel_initializer=lecun_uniform(), name=f"{name}_pointwise")


def _no_attention(x: Any, name: str) -> Any:
    return x


def _squeeze_and_excite(x: Any, name: str) -> Any:
    return squeeze_and_excite(x, x.shape[-1] // ATTENTION_RATIO, f"{name}_channel")


def _full_attention(x: Any, name: str) -> Any:
    """x + channel(x) + spatial(x), equation 7.

    Both parts scale x, so this is x * (1 + channel gate + spatial gate): the large tensor is read once instead of four times.
    """
    channel = channel_gate(x, x.shape[-1] // ATTENTION_RATIO, f"{name}_channel")
    spatial = keras.layers.Conv2D(1, 1, kernel_initializer=he_normal(), name=f"{name}_spatial_reduce_conv")(x)
    spatial = keras.layers.ReLU(name=f"{name}_spatial_reduce_relu")(spatial)
    spatial = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer=he_normal(), name=f"{name}_spatial_conv")(spatial)
    spatial = keras.layers.Activation("hard_sigmoid", name=f"{name}_spatial_gate")(spatial)
    identity = keras.layers.Rescaling(1.0, offset=1.0, name=f"{name}_identity")(channel)
    gate = keras.layers.Add(name=f"{name}_gate")([identity, spatial])
    return keras.layers.Multiply(name=f"{name}_scale")([x, gate])


def _cbam(x: Any, name: str) -> Any:
    """Convolutional block attention (Woo et al., 2018) as the authors' ablation has it, with hard sigmoids."""
    width = x.shape[-1]
    reduce = keras.layers.Conv2D(
        width // ATTENTION_RATIO, 1, use_bias=False, kernel_initializer=lecun_uniform(), name=f"{name}_channel_reduce_conv"
    )
    relu = keras.layers.ReLU(name=f"{name}_channel_reduce_relu")
    restore = keras.layers.Conv2D(width, 1, use_bias=False, kernel_initializer=lecun_uniform(), name=f"{name}_channel_restore_conv")
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_channel_mean")(x)
    maximum = keras.layers.GlobalMaxPooling2D(keepdims=True, name=f"{name}_channel_max")(x)
    channel = keras.layers.Add(name=f"{name}_channel_sum")([restore(relu(reduce(pooled))) for pooled in (mean, maximum)])
    channel = keras.layers.Activation("hard_sigmoid", name=f"{name}_channel_gate")(channel)
    x = keras.layers.Multiply(name=f"{name}_channel_scale")([x, channel])

    spatial = ChannelPooling(name=f"{name}_spatial_pool")(x)
    spatial = keras.layers.Conv2D(1, 7, padding="same", kernel_initializer=lecun_uniform(), name=f"{name}_spatial_conv")(spatial)
    spatial = keras.layers.Activation("hard_sigmoid", name=f"{name}_spatial_gate")(spatial)
    return keras.layers.Multiply(name=f"{name}_spatial_scale")([x, spatial])


ATTENTION = {"full": _full_attention, "se": _squeeze_and_excite, "cbam": _cbam, "none": _no_attention}
