"""The soft-gated hourglass: gates on the residual shortcuts, and a U-Net's concatenation in place of the hourglass' sum.

Bulat, Kossaifi, Tzimiropoulos and Pantic, "Toward fast and accurate human pose estimation via soft-gated skip connections", 2020.
The authors published no code. The block is the one of figure 1; how many blocks a stack has, and how wide they are where the
paper names no width, is what reproduces its parameters and multiply-adds (10^9, `count`'s convention "plain", MPII: 16 joints,
256x256). PCKh@0.5 on MPII's validation set, 91.1 and 92.4 on its test set:

    PRESETS                stacks  channels   published                 here              where
    1x68                   1       68         0.5 M  0.80 G  81.6       0.512 M   0.802 G table III
    2x68                   2       68         1.0 M  1.39 G  84.8       0.988 M   1.344 G table III
    2x80                   2       80         1.4 M  1.75 G  85.7       1.355 M   1.778 G table III
    2x96                   2       96         1.9 M  2.43 G  86.4       1.937 M   2.461 G table III
    2x108                  2       108        2.4 M  3.10 G  86.7       2.441 M   3.051 G table III
    2x120                  2       120        2.9 M  3.75 G  87.1       3.004 M   3.709 G table III
    2x128                  2       128        3.4 M  4.27 G  88.0       3.411 M   4.185 G tables I, II and IV
    4x144                  4       144        8.5 M  9.9 G   89.5, 91.1 8.536 M  10.041 G tables I, V and VII
    4x256                  4       256        26 M           92.4       26.800 M 31.022 G table V
    2x148_sum              2       148        3.4 M          87.5       3.398 M   3.956 G table IV
    2x144_concat_grouped   2       144        3.4 M          87.8       3.392 M   3.985 G table IV
    2x128_identity         2       128                       87.0       3.408 M   4.185 G table II
    2x128_scalar           2       128                                  3.408 M   4.185 G table II

Table I prints four stacks for the row of 3.4 M. That is a misprint: four stacks of 144 channels have 8.5 M, so that 3.4 M leave
88 channels and 3.9 G, whereas two stacks of 128, the network of table IV with the same 88.0, have 3.4 M and nearly the FLOPs.
Table IV compares the ways to merge at equal parameters: the widths of its other rows follow from that. Table II does not say
which of its rows is the single learnable gate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from kpose.errors import KposeError
from kpose.models.checks import check_choice, check_input_size, check_integer, check_num_keypoints
from kpose.models.convolutions import conv_norm, heatmap_conv, lecun_uniform, normalise
from kpose.models.stacks import heatmaps_name, pre_activated_conv, stacked_model

STEM_WIDTH = 64
DEPTH = 4
MERGES = ("concat", "concat_grouped", "sum")
GATES = ("channel", "scalar", "identity")

PRESETS: dict[str, dict[str, Any]] = {
    "1x68": {"stacks": 1, "channels": 68},  # 0.5 M, 0.80 G, PCKh 81.6
    "2x68": {"stacks": 2, "channels": 68},  # 1.0 M, 1.39 G, PCKh 84.8
    "2x80": {"stacks": 2, "channels": 80},  # 1.4 M, 1.75 G, PCKh 85.7
    "2x96": {"stacks": 2, "channels": 96},  # 1.9 M, 2.43 G, PCKh 86.4
    "2x108": {"stacks": 2, "channels": 108},  # 2.4 M, 3.10 G, PCKh 86.7
    "2x120": {"stacks": 2, "channels": 120},  # 2.9 M, 3.75 G, PCKh 87.1
    "2x128": {"stacks": 2, "channels": 128},  # 3.4 M, 4.27 G, PCKh 88.0; with "4 stacks" misprinted in table I
    "4x144": {"stacks": 4, "channels": 144},  # 8.5 M, 9.9 G, PCKh 89.5, test set 91.1
    "4x256": {"stacks": 4, "channels": 256},  # 26 M, test set 92.4
    "2x148_sum": {"stacks": 2, "channels": 148, "merge": "sum"},  # 3.4 M, PCKh 87.5
    "2x144_concat_grouped": {"stacks": 2, "channels": 144, "merge": "concat_grouped"},  # 3.4 M, PCKh 87.8
    "2x128_identity": {"stacks": 2, "channels": 128, "gate": "identity"},  # PCKh 87.0
    "2x128_scalar": {"stacks": 2, "channels": 128, "gate": "scalar"},  # PCKh 87.4, 87.5 or 87.6
}
"""Options for `soft_gated_hourglass`, one entry per row of the paper's tables: stacks x channels, and what departs from the rule."""


@keras.saving.register_keras_serializable(package="kpose")
class SoftGate(keras.layers.Layer):
    """The input times a learnable factor (equation 1): one for every channel, or a single one. (B, H, W, C) to the same shape.

    Args:
        per_channel: Whether every channel has a factor of its own.
        initial_value: Where the factors start.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(self, per_channel: bool = True, initial_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.per_channel = per_channel
        self.initial_value = initial_value

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Adds the factors."""
        shape = (input_shape[-1],) if self.per_channel else (1,)
        self.gate = self.add_weight(name="gate", shape=shape, initializer=keras.initializers.Constant(self.initial_value))

    def call(self, inputs: Any) -> Any:
        """Scales the inputs."""
        return inputs * self.gate

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """That of the input."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {**super().get_config(), "per_channel": self.per_channel, "initial_value": self.initial_value}


def soft_gated_hourglass(
    num_keypoints: int = 17,
    input_size: tuple[int, int] = (256, 192),
    stacks: int = 4,
    channels: int = 144,
    merge: str = "concat",
    gate: str = "channel",
    gate_initial_value: float = 0.0,
) -> keras.Model:
    """Builds a soft-gated hourglass; `PRESETS` holds the options of the published ones, which take 256x256 for 16 joints.

    Args:
        num_keypoints: Number of joints, one heatmap each.
        input_size: (height, width) of the crop, multiples of 64.
        stacks: Number of encoder-decoders, each of which refines what the one before it found.
        channels: Width of all blocks, a multiple of 4. The stem stays 64 wide.
        merge: What becomes of the upsampled features and those of the long skip: "concat" (joined, and the block that follows
            takes both), "concat_grouped" (the same, and that block's first convolution keeps the two apart) or "sum".
        gate: What scales the shortcut of every block: "channel" (a learnable factor for each channel), "scalar" (a single one)
            or "identity" (nothing, a plain residual block).
        gate_initial_value: Where the gates start. The paper's value is lost in its stored text; 0 is what one of the
            re-implementations gives as the paper's. 1 starts from plain residual blocks.

    Returns:
        A functional model from (B, H, W, 3) float32 normalised RGB to the heatmaps of all stacks, a list of (B, H/4, W/4,
        num_keypoints) float32 named `stack_1_heatmaps` and so on, the last of which is to be decoded; with one stack a single
        tensor, `heatmaps`. Kernels start uniform within 1 / sqrt(fan-in), as PyTorch draws them and the paper says; biases at zero.

    Raises:
        KposeError: when an argument is out of its range; the message names the argument.
    """
    name = "soft_gated_hourglass"
    num_keypoints = check_num_keypoints(name, num_keypoints)
    height, width = check_input_size(name, input_size, multiple=4 << DEPTH)
    check_integer(name, "stacks", stacks, minimum=1)
    check_integer(name, "channels", channels, multiple=4)
    check_choice(name, "merge", merge, MERGES)
    check_choice(name, "gate", gate, GATES)
    if isinstance(gate_initial_value, bool) or not isinstance(gate_initial_value, int | float) or not math.isfinite(gate_initial_value):
        raise KposeError(f"{name}: gate_initial_value is {gate_initial_value!r}, but must be a finite number, e.g. 0.0 or 1.0")

    inputs = keras.Input((height, width, 3), name="image")
    block = partial(_block, channels=channels, gate=gate, gate_initial_value=float(gate_initial_value))
    x = conv_norm(inputs, STEM_WIDTH, 7, 2, use_bias=True, kernel_initializer=lecun_uniform(), name="stem")
    x = keras.layers.MaxPooling2D(2, name="stem_pool")(x)
    x = block(x, name="stem_block")
    outputs = []
    for stack in range(1, stacks + 1):
        features = normalise(_encode_decode(x, block, merge, f"stack_{stack}"), f"stack_{stack}_head", "relu")
        heatmaps = heatmap_conv(features, num_keypoints, kernel_initializer=lecun_uniform(), name=heatmaps_name(stack, stacks))
        outputs.append(heatmaps)
        if stack < stacks:
            x = _remap(x, features, heatmaps, f"stack_{stack}")
    return stacked_model(inputs, outputs, name)


def _encode_decode(x: Any, block: Callable[..., Any], merge: str, name: str) -> Any:
    """One stack: down to a sixteenth of the resolution and up again, with a block on the long skip of every resolution (figure 2)."""
    skips = []
    for level in range(DEPTH):
        skips.append(block(x, name=f"{name}_level_{level}_skip"))
        x = keras.layers.MaxPooling2D(2, name=f"{name}_level_{level}_pool")(x)
        x = block(x, name=f"{name}_level_{level + 1}_encoder")
    for level in reversed(range(DEPTH)):
        x = keras.layers.UpSampling2D(2, name=f"{name}_level_{level}_upsample")(x)
        join = keras.layers.Add if merge == "sum" else keras.layers.Concatenate
        x = join(name=f"{name}_level_{level}_merge")([x, skips[level]])
        x = block(x, groups=2 if merge == "concat_grouped" else 1, name=f"{name}_level_{level}_decoder")
    return x


def _block(x: Any, channels: int, gate: str, gate_initial_value: float, name: str, groups: int = 1) -> Any:
    """The hierarchical residual block of figure 1: three convolutions, each on the one before it, joined; plus the gated input.

    Args:
        x: (B, H, W, C).
        channels: Output channels: a half from the first convolution, a quarter from each of the others.
        gate: One of `GATES`.
        gate_initial_value: Where the gate starts.
        name: Prefix of the layer names.
        groups: Of the first convolution and of the projection, the two that see the input.

    Returns:
        (B, H, W, channels).
    """
    first = pre_activated_conv(x, channels // 2, 3, groups=groups, name=f"{name}_1")
    second = pre_activated_conv(first, channels // 4, 3, name=f"{name}_2")
    third = pre_activated_conv(second, channels // 4, 3, name=f"{name}_3")
    residual = keras.layers.Concatenate(name=f"{name}_concat")([first, second, third])
    shortcut = x if x.shape[-1] == channels else pre_activated_conv(x, channels, groups=groups, name=f"{name}_shortcut")
    if gate != "identity":
        shortcut = SoftGate(gate == "channel", gate_initial_value, name=f"{name}_gate")(shortcut)
    return keras.layers.Add(name=f"{name}_add")([shortcut, residual])


def _remap(x: Any, features: Any, heatmaps: Any, name: str) -> Any:
    """The next stack's input: this one's, plus its features and its heatmaps, each through a 1x1 convolution."""
    terms = [
        keras.layers.Conv2D(x.shape[-1], 1, kernel_initializer=lecun_uniform(), name=f"{name}_remap_{part}_conv")(tensor)
        for part, tensor in (("features", features), ("heatmaps", heatmaps))
    ]
    return keras.layers.Add(name=f"{name}_remap_add")([x, *terms])
