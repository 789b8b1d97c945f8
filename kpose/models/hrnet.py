"""HRNet: branches of several resolutions side by side, the highest kept from end to end, that exchange what they found.

Sun et al., "Deep High-Resolution Representation Learning for Human Pose Estimation", 2019. Multiply-adds by the paper's count ("hrnet"
in `kpose.models.counting`), in units of 2^30; scores on COCO val2017.

    network            input      parameters   multiply-adds   published
    hrnet_w32          256x192    28.536 M     7.120           28.5 M, 7.1, AP 74.4
    hrnet_w32          384x288    28.536 M     16.020          28.5 M, 16.0, AP 75.8
    hrnet_w48          256x192    63.596 M     14.614          63.6 M, 14.6, AP 75.1
    hrnet_w48          384x288    63.596 M     32.882          63.6 M, 32.9, AP 76.3
    small_hrnet_w16    256x192    1.285 M      0.540           1.3 M, 0.54, AP 55.2
    small_hrnet_w16    384x288    1.285 M      1.215           1.3 M, 1.21, AP 56.0

The small network is the one Lite-HRNet (Yu et al., 2021) compares itself with: HRNet's small classification network ("W18-small-v1") at
width 16. Its published multiply-adds include bias and normalisation: 0.537 and 1.209 so counted ("lite_hrnet").

`first_stage` and `parallel_stages` are the trunk, also that of `kpose.models.multi_stage_hrnet` and `kpose.models.ram_gpr`. Layer names
count stages and transitions from 1 as the paper does; modules, blocks and branches from 0, branch 0 being the highest resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from kpose.models.checks import check_input_size, check_num_keypoints
from kpose.models.convolutions import conv_norm, heatmap_conv, small_normal

STRIDE = 32
"""Of the lowest of the four resolutions."""

STEM_WIDTH = 64
BOTTLENECK_EXPANSION = 4

Fuse = Callable[[list[Any], str], Any]
"""How an exchange adds up maps of equal shape: from the maps, in the order of their branches, and a prefix for layer names to one map."""


class Stage(NamedTuple):
    """A stage of parallel branches: its exchange modules, and the residual blocks in each branch of a module."""

    modules: int
    blocks: int


class Recipe(NamedTuple):
    """What makes an HRNet but for its width: stage 1, then stages 2, 3, 4 with as many branches."""

    bottlenecks: int
    bottleneck_width: int
    stages: tuple[Stage, Stage, Stage]


RECIPE = Recipe(bottlenecks=4, bottleneck_width=64, stages=(Stage(1, 4), Stage(4, 4), Stage(3, 4)))
SMALL_RECIPE = Recipe(bottlenecks=1, bottleneck_width=32, stages=(Stage(1, 2), Stage(1, 2), Stage(1, 2)))


def first_stage(inputs: Any, width: int, recipe: Recipe = RECIPE) -> list[Any]:
    """Builds stem, stage 1 and transition 1.

    Args:
        inputs: (B, H, W, 3) normalised RGB; H and W are multiples of 32.
        width: Channels of the highest resolution.
        recipe: How many bottlenecks, and how wide.

    Returns:
        The two branches that enter stage 2: (B, H/4, W/4, width) and (B, H/8, W/8, 2 * width).
    """
    x = hrnet_conv(inputs, STEM_WIDTH, 3, 2, name="stem_1")
    x = hrnet_conv(x, STEM_WIDTH, 3, 2, name="stem_2")
    for index in range(recipe.bottlenecks):
        x = _bottleneck(x, recipe.bottleneck_width, f"stage_1_block_{index}")
    return [hrnet_conv(x, width, 3, name="transition_1_branch_0"), hrnet_conv(x, 2 * width, 3, 2, name="transition_1_branch_1")]


def plain_sum(maps: list[Any], name: str) -> Any:
    """HRNet's own way to fuse."""
    return keras.layers.Add(name=f"{name}_add")(maps)


def parallel_stages(
    branches: list[Any],
    recipe: Recipe = RECIPE,
    *,
    outputs: int = 1,
    fuse: Fuse = plain_sum,
    delivered: list[list[Any]] | None = None,
    prefix: str = "",
) -> list[list[Any]]:
    """Builds stages 2, 3 and 4.

    Args:
        branches: The two that enter stage 2.
        recipe: Modules and blocks of each stage.
        outputs: How many resolutions the last module gives, the highest first.
        fuse: How an exchange adds up what it brought to one resolution.
        delivered: Another call's result, added position by position; None: nothing is.
        prefix: Of all layer names.

    Returns:
        The branches at every position: those that enter stage 2 and those that leave each exchange module. The last entry is the
        trunk's output, each of its branches half as high and wide as the one before it and with twice its channels.
    """
    trail: list[list[Any]] = []

    def arrive(branches: list[Any], name: str) -> list[Any]:
        if delivered is not None:
            pairs = zip(branches, delivered[len(trail)], strict=True)
            branches = [keras.layers.Add(name=f"{name}_branch_{index}_delivered_add")(pair) for index, pair in enumerate(pairs)]
        trail.append(branches)
        return branches

    branches = arrive(branches, f"{prefix}transition_1")
    for number, stage in enumerate(recipe.stages, start=2):
        if len(branches) < number:
            lowest = branches[-1]
            name = f"{prefix}transition_{number - 1}_branch_{number - 1}"
            branches = [*branches, hrnet_conv(lowest, 2 * lowest.shape[-1], 3, 2, name=name)]
        for module in range(stage.modules):
            is_last = number == len(recipe.stages) + 1 and module == stage.modules - 1
            name = f"{prefix}stage_{number}_module_{module}"
            branches = arrive(_exchange_module(branches, stage.blocks, outputs if is_last else number, fuse, name), name)
    return trail


def _exchange_module(branches: list[Any], blocks: int, outputs: int, fuse: Fuse, name: str) -> list[Any]:
    """Residual blocks in every branch, then every output is made of all branches."""
    found = []
    for index, x in enumerate(branches):
        for block in range(blocks):
            x = _basic_block(x, f"{name}_branch_{index}_block_{block}")
        found.append(x)
    return [exchange(found, target, fuse, f"{name}_exchange_{target}") for target in range(outputs)]


def exchange(branches: list[Any], target: int, fuse: Fuse, name: str) -> Any:
    """All branches brought to the resolution and width of branch `target`, added up by `fuse`, then ReLU."""
    maps = [_rescale(x, source, target, branches[target].shape[-1], f"{name}_from_{source}") for source, x in enumerate(branches)]
    return keras.layers.ReLU(name=f"{name}_relu")(fuse(maps, name))


def _rescale(x: Any, source: int, target: int, width: int, name: str) -> Any:
    """From the resolution of branch `source` to that of branch `target`: upwards 1x1 and nearest upsampling, downwards 3x3 of stride 2."""
    if source > target:
        x = hrnet_conv(x, width, name=name, activation=None)
        return keras.layers.UpSampling2D(2 ** (source - target), name=f"{name}_upsample")(x)
    for step in range(target - source):
        # On the way down the source's width is kept; only the last step takes the target's, and leaves the ReLU to the sum.
        is_last = step == target - source - 1
        filters, activation = (width, None) if is_last else (x.shape[-1], "relu")
        x = hrnet_conv(x, filters, 3, 2, name=f"{name}_step_{step}", activation=activation)
    return x


def _bottleneck(inputs: Any, width: int, name: str) -> Any:
    """ResNet's bottleneck, with a projection where the width changes."""
    shortcut = inputs
    if inputs.shape[-1] != BOTTLENECK_EXPANSION * width:
        shortcut = hrnet_conv(inputs, BOTTLENECK_EXPANSION * width, name=f"{name}_shortcut", activation=None)
    x = hrnet_conv(inputs, width, name=f"{name}_1")
    x = hrnet_conv(x, width, 3, name=f"{name}_2")
    x = hrnet_conv(x, BOTTLENECK_EXPANSION * width, name=f"{name}_3", activation=None)
    return _add_relu([x, shortcut], name)


def _basic_block(inputs: Any, name: str) -> Any:
    """ResNet's block of two 3x3 convolutions."""
    width = inputs.shape[-1]
    x = hrnet_conv(inputs, width, 3, name=f"{name}_1")
    x = hrnet_conv(x, width, 3, name=f"{name}_2", activation=None)
    return _add_relu([x, inputs], name)


def _add_relu(tensors: list[Any], name: str) -> Any:
    return keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")(tensors))


def hrnet_conv(x: Any, filters: int, kernel_size: int = 1, stride: int = 1, *, name: str, activation: str | None = "relu") -> Any:
    """`conv_norm` that starts as every convolution of HRNet does; arguments as there."""
    return conv_norm(x, filters, kernel_size, stride, name=name, activation=activation, kernel_initializer=small_normal())


def hrnet(name: str, width: int, num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192), recipe: Recipe = RECIPE) -> keras.Model:
    """Builds an HRNet of any width.

    Args:
        name: Name of the model.
        width: Channels of the highest resolution.
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 32.
        recipe: Modules and blocks.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to (B, H/4, W/4, num_keypoints) float32 heatmaps; the output
        is float32 under mixed precision too. Weights start as the authors' do where no trunk trained on ImageNet is loaded:
        normal(0, 0.001) in every convolution.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    num_keypoints = check_num_keypoints(name, num_keypoints)
    inputs = keras.Input((*check_input_size(name, input_size, multiple=STRIDE), 3), name="image")
    branches = parallel_stages(first_stage(inputs, width, recipe), recipe)[-1]
    return keras.Model(inputs, heatmap_conv(branches[0], num_keypoints), name=name)


def hrnet_w32(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds HRNet-W32; arguments, result and errors as for `hrnet`."""
    return hrnet("hrnet_w32", 32, num_keypoints, input_size)


def hrnet_w48(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds HRNet-W48; arguments, result and errors as for `hrnet`."""
    return hrnet("hrnet_w48", 48, num_keypoints, input_size)


def small_hrnet_w16(num_keypoints: int = 17, input_size: tuple[int, int] = (256, 192)) -> keras.Model:
    """Builds Small HRNet-W16; arguments, result and errors as for `hrnet`."""
    return hrnet("small_hrnet_w16", 16, num_keypoints, input_size, SMALL_RECIPE)
