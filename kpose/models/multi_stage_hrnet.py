"""Multi-Stage HRNet: HRNets in a row, each refining what the one before it found, with heatmaps and offsets.

Huang and Zhu, "Multi-Stage HRNet: Multiple Stage High-Resolution Network for Human Pose Estimation", 2019. Multiply-adds by HRNet's
count ("hrnet" in `kpose.models.counting`), in units of 2^30; scores on COCO val2017, trained on COCO alone.

    network                  stages   input      parameters   multiply-adds   published
    multi_stage_hrnet_w32    1        256x192    28.537 M     7.123           AP 76.3
    multi_stage_hrnet_w32    1        384x288    28.537 M     16.027          AP 77.6
    multi_stage_hrnet_w32    2        256x192    56.547 M     13.009          -
    multi_stage_hrnet_w48    1        256x192    63.597 M     14.619          AP 76.9
    multi_stage_hrnet_w48    1        384x288    63.597 M     32.892          AP 77.8
    multi_stage_hrnet_w48    2        384x288    126.579 M    62.682          61.5, AP 78.2 (79.4 with three more datasets)

The paper's tables leave the input sizes out; they follow from its text and from the authors' other work. Nor does it say where the second
network begins. Here the first feeds the second: its output is the second's highest branch and, through a strided convolution, its next
one; stem, stage 1 and transition 1 are there once. Of all the readings this one, in which the second network really refines the first
one's result, comes nearest to the published multiply-adds (+1.9 %; two whole networks: +7.0 %).

The paper's stages are HRNets; HRNet has stages within it. In layer names "stage" means the latter, but for the outputs; the first network
has the names of `kpose.models.hrnet`, the n-th the prefix `network_<n>_`.
"""

from __future__ import annotations

import keras

from kpose.models.checks import check_input_size, check_integer, check_num_keypoints
from kpose.models.convolutions import heatmap_conv
from kpose.models.hrnet import RECIPE, STRIDE, Recipe, first_stage, hrnet_conv, parallel_stages

CHANNELS_PER_KEYPOINT = 3
"""Heatmap, x offset, y offset: channels 3k, 3k + 1 and 3k + 2 for joint k."""

MOST_STAGES = 4
"""As many as MSPN has, from which the paper takes the idea."""


def multi_stage_hrnet(
    name: str,
    width: int,
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    stages: int = 2,
    recipe: Recipe = RECIPE,
) -> keras.Model:
    """Builds a Multi-Stage HRNet of any width.

    Args:
        name: Name of the model.
        width: Channels of the highest resolution.
        num_keypoints: Number of joints, three channels each.
        input_size: (height, width) of the crop, multiples of 32.
        stages: How many HRNets in a row, 1 to 4.
        recipe: Modules and blocks of each HRNet.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to a list of float32 tensors (B, H/4, W/4, 3 * num_keypoints), one per
        stage and called "stage_1_heatmaps", "stage_2_heatmaps", ...; the last is the one to decode. With `stages=1` to that one
        tensor, called "heatmaps". Joint k has the channels 3k (heatmap), 3k + 1 and 3k + 2 (offsets in x and y). Weights start from
        normal(0, 0.001) in every convolution, as HRNet's; the authors then load a trunk trained on ImageNet into every stage.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    num_keypoints = check_num_keypoints(name, num_keypoints)
    input_size = check_input_size(name, input_size, multiple=STRIDE)
    check_integer(name, "stages", stages, minimum=1, maximum=MOST_STAGES)

    inputs = keras.Input((*input_size, 3), name="image")
    trail = parallel_stages(first_stage(inputs, width, recipe), recipe)
    found = [trail[-1][0]]
    for number in range(2, stages + 1):
        prefix = f"network_{number}_"
        lower = hrnet_conv(found[-1], 2 * width, 3, 2, name=f"{prefix}entry_branch_1")
        trail = parallel_stages([found[-1], lower], recipe, delivered=trail, prefix=prefix)
        found.append(trail[-1][0])

    channels = CHANNELS_PER_KEYPOINT * num_keypoints
    if stages == 1:
        return keras.Model(inputs, heatmap_conv(found[0], channels), name=name)
    outputs = [heatmap_conv(x, channels, name=f"stage_{number}_heatmaps") for number, x in enumerate(found, start=1)]
    return keras.Model(inputs, outputs, name=name)


def multi_stage_hrnet_w32(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), stages: int = 2) -> keras.Model:
    """Builds Multi-Stage HRNet-W32; arguments, result and errors as for `multi_stage_hrnet`."""
    return multi_stage_hrnet("multi_stage_hrnet_w32", 32, num_keypoints, input_size, stages)


def multi_stage_hrnet_w48(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), stages: int = 2) -> keras.Model:
    """Builds Multi-Stage HRNet-W48; arguments, result and errors as for `multi_stage_hrnet`."""
    return multi_stage_hrnet("multi_stage_hrnet_w48", 48, num_keypoints, input_size, stages)
