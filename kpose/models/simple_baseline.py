"""SimpleBaseline: a classification network, and three transposed convolutions that bring its last map back to a quarter of the image.

Xiao et al., "Simple Baselines for Human Pose Estimation and Tracking", 2018. Scores on COCO val2017 (flip test, a detector's boxes).

    network                          input      parameters   multiply-adds   published
    simple_baseline_resnet50         256x192    34.000 M      8.991          34.0 M,  8.9, AP 70.4
    simple_baseline_resnet101        256x192    52.992 M     12.378          53.0 M, 12.4, AP 71.4
    simple_baseline_resnet152        256x192    68.636 M     15.765          68.6 M, 15.7, AP 72.0
    simple_baseline_resnet152        384x288    68.636 M     35.471          68.6 M, 35.6, AP 74.3
    simple_baseline_mobilenet_v2     256x192     9.570 M      1.587           9.6 M, 1.59, AP 64.6
    simple_baseline_mobilenet_v2     384x288     9.570 M      3.571           9.6 M, 3.57, AP 67.3
    simple_baseline_mobilenet_v3     256x192     8.670 M      1.466           8.7 M, 1.47, AP 65.9
    simple_baseline_shufflenet_v2    256x192     7.551 M      1.371           7.6 M, 1.37, AP 59.9
    simple_baseline_shufflenet_v2    384x288     7.551 M      3.085           7.6 M, 3.08, AP 63.6

With ResNet, multiply-adds by the HRNet paper's count in units of 2^30, which takes the transposed convolutions for four times what they
cost (5.43 G in truth with ResNet-50); with the lightweight trunks by MMPose's, in units of 10^9: "hrnet" and "mmpose" in
`kpose.models.counting`. Rows of the lightweight trunks were published by Li and Xiang, "Lightweight Human Pose Estimation Using
Heatmap-Weighting Loss", 2022.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from kpose.models.checks import check_choice, check_input_size, check_num_keypoints
from kpose.models.convolutions import heatmap_conv, normalise, small_normal
from kpose.models.mobilenet_v2 import mobilenet_v2
from kpose.models.mobilenet_v3 import BLOCKS, mobilenet_v3_large
from kpose.models.resnet import RESNET_50, RESNET_101, RESNET_152, resnet
from kpose.models.shufflenet_v2 import shufflenet_v2

STRIDE = 32
"""Of every trunk's last map."""

HEAD_WIDTH = 256
HEAD_STEPS = 3

PADDINGS = ("symmetric", "same")


def upsampling_head(x: Any, num_keypoints: int) -> Any:
    """Builds the head: three times a 4x4 transposed convolution of stride 2, then one heatmap per joint.

    Args:
        x: (B, H, W, C), the trunk's last map.
        num_keypoints: Number of joints.

    Returns:
        (B, 8H, 8W, num_keypoints) float32.
    """
    for step in range(1, HEAD_STEPS + 1):
        initializer = small_normal()
        name = f"head_{step}_upsample"
        # Here "same" takes away one pixel on every side, as PyTorch's padding=1 does.
        x = keras.layers.Conv2DTranspose(
            HEAD_WIDTH, 4, strides=2, padding="same", use_bias=False, kernel_initializer=initializer, name=f"{name}_conv"
        )(x)
        x = normalise(x, name, "relu")
    return heatmap_conv(x, num_keypoints)


def _simple_baseline(name: str, num_keypoints: int, input_size: tuple[int, int], last_map: Callable[[Any], Any]) -> keras.Model:
    """The network whose trunk `last_map` makes from the image."""
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=STRIDE)
    inputs = keras.Input((height, width, 3), name="image")
    return keras.Model(inputs, upsampling_head(last_map(inputs), num_keypoints), name=name)


def simple_baseline_resnet50(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds SimpleBaseline on ResNet-50.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output
        is float32 under mixed precision too. Weights start as the authors' do, but for the trunk, which they had trained on
        ImageNet: He (fan-out) there, normal(0, 0.001) in the transposed convolutions and the last convolution.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    return _simple_baseline("simple_baseline_resnet50", num_keypoints, input_size, lambda x: resnet(x, RESNET_50)["stage_4"])


def simple_baseline_resnet101(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds SimpleBaseline on ResNet-101; arguments, result and errors as for `simple_baseline_resnet50`."""
    return _simple_baseline("simple_baseline_resnet101", num_keypoints, input_size, lambda x: resnet(x, RESNET_101)["stage_4"])


def simple_baseline_resnet152(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds SimpleBaseline on ResNet-152; arguments, result and errors as for `simple_baseline_resnet50`."""
    return _simple_baseline("simple_baseline_resnet152", num_keypoints, input_size, lambda x: resnet(x, RESNET_152)["stage_4"])


def simple_baseline_mobilenet_v2(
    num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), padding: str = "symmetric"
) -> keras.Model:
    """Builds SimpleBaseline on MobileNetV2.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        padding: Of the trunk's stride-2 convolutions: "symmetric" (the published network, PyTorch) or "same" (TensorFlow: for a
            trunk that was trained that way).

    Returns:
        A model as `simple_baseline_resnet50` gives, its weights started likewise.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "simple_baseline_mobilenet_v2"
    check_choice(name, "padding", padding, PADDINGS)
    return _simple_baseline(name, num_keypoints, input_size, lambda x: mobilenet_v2(x, padding)["last"])


def simple_baseline_mobilenet_v3(
    num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), backbone: str = "openmmlab", padding: str = "symmetric"
) -> keras.Model:
    """Builds SimpleBaseline on MobileNetV3-Large.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        backbone: "openmmlab" (the published network) or "paper" (the MobileNetV3 paper's own blocks).
        padding: As for `simple_baseline_mobilenet_v2`.

    Returns:
        A model as `simple_baseline_resnet50` gives, its weights started likewise.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "simple_baseline_mobilenet_v3"
    check_choice(name, "backbone", backbone, BLOCKS)
    check_choice(name, "padding", padding, PADDINGS)
    return _simple_baseline(name, num_keypoints, input_size, lambda x: mobilenet_v3_large(x, backbone, padding)["last"])


def simple_baseline_shufflenet_v2(
    num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), padding: str = "symmetric"
) -> keras.Model:
    """Builds SimpleBaseline on ShuffleNetV2; arguments, result and errors as for `simple_baseline_mobilenet_v2`."""
    name = "simple_baseline_shufflenet_v2"
    check_choice(name, "padding", padding, PADDINGS)
    return _simple_baseline(name, num_keypoints, input_size, lambda x: shufflenet_v2(x, padding)["last"])
