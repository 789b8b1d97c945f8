"""Cascaded pyramid network: GlobalNet, a feature pyramid that finds the easy joints, then RefineNet, which puts all its levels together.

Chen et al., "Cascaded Pyramid Network for Multi-Person Pose Estimation", 2018. Published at 256x192: 27.0 M, 6.20 G, AP 68.6 on COCO
val2017, 69.4 with online hard keypoint mining.

    variant    what it is                                          parameters   multiply-adds, in 2^30
    authors    the code of the paper's authors (tf-cpn)            27.010 M     6.734; without GlobalNet's predictions 6.336
    pytorch    a re-implementation, of which there are weights     27.407 M     6.813; without GlobalNet's predictions 6.415
               (GengDavid/pytorch-cpn)

"authors" has the published number of parameters, all of them counted. Both published figures come out, at 26.986 M and 6.204, for
"pytorch" as it predicts, without GlobalNet's own predictions, on the original ResNet, which halves the resolution in the 1x1 convolution;
neither code has that ResNet.

The re-implementation differs from the authors' code in four ways: every bottleneck of RefineNet has a projection, what comes down the
pyramid is normalised, upsampling keeps the corner pixels in place, and predictions are normalised after it and not before. In the
authors' code output pixel i of an upsampling by f lies at input i / f, as TensorFlow once had it, which moves coarse levels against
fine ones by up to 3.5 pixels; here the edges of the image stay in place, and all levels lie upon one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from kpose.models.checks import check_choice, check_input_size, check_num_keypoints
from kpose.models.convolutions import conv_norm, strided_conv
from kpose.models.layers import BatchNormalization, CornerAlignedUpSampling2D
from kpose.models.resnet import RESNET_50, bottleneck, resnet

STRIDE = 32
"""Of the trunk's last stage."""

WIDTH = 256
"""Of the pyramid's levels and RefineNet's bottlenecks."""

BOTTLENECK_WIDTH = 128

LEVELS = (4, 3, 2, 1)
"""The trunk's stages on which the pyramid stands, the coarsest first."""

INITIALIZER = "glorot_uniform"
"""Of all convolutions but the bottlenecks', as in the authors' code."""


class Variant(NamedTuple):
    """What the two published codes do differently.

    Attributes:
        projects: whether every bottleneck of RefineNet has a convolution in its shortcut, or only the one that changes the width.
        normalises_merge: whether what comes down from the coarser level is normalised, or has a bias.
        aligns_corners: whether upsampling keeps the centres of the corner pixels in place, or the edges of the image.
        upsamples_first: whether predictions are upsampled before they are normalised, or after.
    """

    projects: bool
    normalises_merge: bool
    aligns_corners: bool
    upsamples_first: bool


VARIANTS = {"authors": Variant(False, False, False, False), "pytorch": Variant(True, True, True, True)}


def cpn_resnet50(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), variant: str = "authors") -> keras.Model:
    """Builds the cascaded pyramid network on ResNet-50.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        variant: "authors" (the published network) or "pytorch" (the one that PyTorch weights were published for).

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to a list of five (B, H/4, W/4, num_keypoints) float32 heatmaps:
        GlobalNet's from its coarsest level to its finest, then RefineNet's, which is the one to decode; the outputs are float32
        under mixed precision too. Weights start as the authors' do, but for the trunk, which they had trained on ImageNet: He
        (fan-out) there and in RefineNet's bottlenecks, Glorot (uniform) in the other convolutions.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "cpn_resnet50"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=STRIDE)
    check_choice(name, "variant", variant, VARIANTS)
    inputs = keras.Input((height, width, 3), name="image")
    return keras.Model(inputs, cascaded_pyramid(resnet(inputs, RESNET_50), num_keypoints, VARIANTS[variant]), name=name)


def cascaded_pyramid(trunk: Mapping[str, Any], num_keypoints: int, variant: Variant) -> list[Any]:
    """Builds GlobalNet and RefineNet.

    Args:
        trunk: "stage_1" (stride 4) to "stage_4" (stride 32), as `kpose.models.resnet.resnet` returns them.
        num_keypoints: Number of joints.
        variant: One of `VARIANTS`.

    Returns:
        Five (B, H/4, W/4, num_keypoints) float32 tensors: GlobalNet's predictions, the coarsest level's first, and RefineNet's.
    """
    features: dict[int, Any] = {}
    coarser = None
    for level in LEVELS:
        x = conv_norm(trunk[f"stage_{level}"], WIDTH, kernel_initializer=INITIALIZER, name=f"global_{level}_lateral")
        if coarser is not None:
            x = keras.layers.Add(name=f"global_{level}_add")([x, _merge(coarser, variant, f"global_{level}_merge")])
        features[level] = coarser = x

    predictions = []
    for level in LEVELS:
        name = f"global_{level}"
        x = conv_norm(features[level], WIDTH, kernel_initializer=INITIALIZER, name=f"{name}_predict")
        predictions.append(_heatmaps(x, 2 ** (level - 1), num_keypoints, variant, name))

    refined = []
    for level in LEVELS:
        x = features[level]
        # The coarser a level, the more there is to make good.
        for index in range(level - 1):
            x = _refine(x, variant.projects, f"refine_{level}_block_{index}")
        refined.append(_upsample(x, 2 ** (level - 1), variant, f"refine_{level}_upsample"))
    x = keras.layers.Concatenate(name="refine_concat")(refined)
    x = _refine(x, True, "refine_last_block")
    return [*predictions, _heatmaps(x, 1, num_keypoints, variant, "refine")]


def _merge(coarser: Any, variant: Variant, name: str) -> Any:
    """What a level takes over from the one above it."""
    x = _upsample(coarser, 2, variant, f"{name}_upsample")
    if variant.normalises_merge:
        return conv_norm(x, WIDTH, activation=None, kernel_initializer=INITIALIZER, name=name)
    return strided_conv(x, WIDTH, 1, use_bias=True, kernel_initializer=INITIALIZER, name=f"{name}_conv")


def _refine(x: Any, project: bool, name: str) -> Any:
    return bottleneck(x, BOTTLENECK_WIDTH, WIDTH, project=project, name=name)


def _heatmaps(x: Any, factor: int, num_keypoints: int, variant: Variant, name: str) -> Any:
    """3x3 convolution without bias, normalisation and upsampling, all in float32; the last layer is called `<name>_heatmaps`."""
    x = keras.layers.Conv2D(
        num_keypoints, 3, padding="same", use_bias=False, kernel_initializer=INITIALIZER, dtype="float32", name=f"{name}_heatmap_conv"
    )(x)
    if variant.upsamples_first:
        x = _upsample(x, factor, variant, f"{name}_heatmap_upsample", "float32")
    x = BatchNormalization(dtype="float32", name=f"{name}_heatmap_norm")(x)
    if not variant.upsamples_first:
        x = _upsample(x, factor, variant, f"{name}_heatmap_upsample", "float32")
    return keras.layers.Identity(dtype="float32", name=f"{name}_heatmaps")(x)


def _upsample(x: Any, factor: int, variant: Variant, name: str, dtype: str | None = None) -> Any:
    """Bilinear; a map that is as large as wanted stays as it is."""
    if factor == 1:
        return x
    if variant.aligns_corners:
        return CornerAlignedUpSampling2D(factor, dtype=dtype, name=name)(x)
    return keras.layers.UpSampling2D(factor, interpolation="bilinear", dtype=dtype, name=name)(x)
