"""What published PyTorch checkpoints of the stacked hourglass call its layers.

One table for each variant of `kpose.models.hourglass`, up to its 8 stacks:

* `PRINCETON_NAMES`, variant "newell": princeton-vl/pytorch_stacked_hourglass, the authors' own PyTorch code.
* `PYTORCH_POSE_NAMES`, variant "pytorch_pose": bearpaw/pytorch-pose, its checkpoints with one residual block at a place
  (`hg_s1_b1` to `hg_s8_b1`).
* `MMPOSE_NAMES`, variant "cornernet": MMPose's HourglassNet and its multi-stage head.

Two of these code bases keep layers that no forward pass reads; `PRINCETON_UNUSED` and `MMPOSE_UNUSED` are regular expressions
for the tensors that are therefore left over.
"""

from __future__ import annotations

from collections.abc import Iterator

STACKS = 8

PRINCETON_UNUSED = (r".*\.skip_layer\.conv\.(weight|bias)",)
"""The authors make a projection for every residual block and use it only where the width changes."""

MMPOSE_UNUSED = (r"inters\.0\..*",)
"""MMPose makes the block between the first two stacks also where there is one stack."""


def _newell_places(depth: int = 4) -> Iterator[tuple[str, int, int, str]]:
    """The residual blocks of the hourglasses: layer prefix, stack from 0, level of the recursion that holds it, place within."""
    for stack in range(STACKS):
        for level in range(depth):
            yield f"stack_{stack + 1}_level_{level}_skip", stack, level, "skip"
            yield f"stack_{stack + 1}_level_{level + 1}_encoder", stack, level, "encoder"
            yield f"stack_{stack + 1}_level_{level + 1}_decoder", stack, level, "decoder"
        yield f"stack_{stack + 1}_level_{depth}_middle", stack, depth - 1, "middle"


# Place within a hourglass to the module of the published recursion.
RECURSION = {"skip": "up1", "encoder": "low1", "middle": "low2", "decoder": "low3"}
LISTED = {"skip": 0, "encoder": 1, "decoder": 2, "middle": 3}


def _recursive(root: str, level: int, place: str) -> str:
    """The module at a level of a recursion that names its inner part `low2`."""
    return f"{root}{'.low2' * level}.{RECURSION[place]}"


def _princeton_names() -> Iterator[tuple[str, str]]:
    blocks = [("stem_residual_0", "pre.1"), ("stem_residual_1", "pre.3"), ("stem_residual_2", "pre.4")]
    blocks += [(f"stack_{stack + 1}_output", f"features.{stack}.0") for stack in range(STACKS)]
    blocks += [(ours, _recursive(f"hgs.{stack}.0", level, place)) for ours, stack, level, place in _newell_places()]
    yield r"stem_conv", r"pre.0.conv"
    yield r"stem_norm", r"pre.0.bn"
    for ours, theirs in blocks:
        yield rf"{ours}_(\d)_norm", rf"{theirs}.bn\1"
        yield rf"{ours}_(\d)_conv", rf"{theirs}.conv\1.conv"
        yield rf"{ours}_shortcut_conv", rf"{theirs}.skip_layer.conv"
    for stack in range(STACKS):
        yield rf"stack_{stack + 1}_linear_conv", rf"features.{stack}.1.conv"
        yield rf"stack_{stack + 1}_linear_norm", rf"features.{stack}.1.bn"
        yield rf"stack_{stack + 1}_heatmaps", rf"outs.{stack}.conv"
        yield rf"stack_{stack + 1}_remap_features_conv", rf"merge_features.{stack}.conv.conv"
        yield rf"stack_{stack + 1}_remap_heatmaps_conv", rf"merge_preds.{stack}.conv.conv"
    yield r"heatmaps", r"outs.0.conv"


def _pytorch_pose_names(depth: int = 4) -> Iterator[tuple[str, str]]:
    blocks = [(f"stem_residual_{index}", f"layer{index + 1}.0") for index in range(3)]
    blocks += [(f"stack_{stack + 1}_output", f"res.{stack}.0") for stack in range(STACKS)]
    # Their list of levels begins at the lowest resolution.
    blocks += [(ours, f"hg.{stack}.hg.{depth - 1 - level}.{LISTED[place]}.0") for ours, stack, level, place in _newell_places(depth)]
    yield r"stem_conv", r"conv1"
    yield r"stem_norm", r"bn1"
    for ours, theirs in blocks:
        yield rf"{ours}_(\d)_norm", rf"{theirs}.bn\1"
        yield rf"{ours}_(\d)_conv", rf"{theirs}.conv\1"
        yield rf"{ours}_shortcut_conv", rf"{theirs}.downsample.0"
    for stack in range(STACKS):
        yield rf"stack_{stack + 1}_linear_conv", rf"fc.{stack}.0"
        yield rf"stack_{stack + 1}_linear_norm", rf"fc.{stack}.1"
        yield rf"stack_{stack + 1}_heatmaps", rf"score.{stack}"
        yield rf"stack_{stack + 1}_remap_features_conv", rf"fc_.{stack}"
        yield rf"stack_{stack + 1}_remap_heatmaps_conv", rf"score_.{stack}"
    yield r"heatmaps", r"score.0"


def _mmpose_names(depth: int = 5) -> Iterator[tuple[str, str]]:
    places = [("stem_block", "stem.1")]
    places += [(ours, _recursive(f"hourglass_modules.{stack}", level, place)) for ours, stack, level, place in _newell_places(depth)]
    blocks = [(rf"{ours}_(?P<block>\d)", rf"{theirs}.\g<block>") for ours, theirs in places]
    blocks += [(rf"stack_{stack + 1}_remap_block_0", rf"inters.{stack}") for stack in range(STACKS)]
    yield r"stem_conv", r"stem.0.conv"
    yield r"stem_norm", r"stem.0.bn"
    for ours, theirs in blocks:
        yield rf"{ours}_(?P<layer>[12])_conv", rf"{theirs}.conv\g<layer>"
        yield rf"{ours}_(?P<layer>[12])_norm", rf"{theirs}.bn\g<layer>"
        yield rf"{ours}_shortcut_conv", rf"{theirs}.downsample.0"
        yield rf"{ours}_shortcut_norm", rf"{theirs}.downsample.1"
    for stack in range(STACKS):
        for ours, theirs in (("output", "out_convs"), ("remap_input", "conv1x1s"), ("remap_features", "remap_convs")):
            yield rf"stack_{stack + 1}_{ours}_conv", rf"{theirs}.{stack}.conv"
            yield rf"stack_{stack + 1}_{ours}_norm", rf"{theirs}.{stack}.bn"
        yield rf"stack_{stack + 1}_heatmaps", rf"multi_final_layers.{stack}"
    yield r"heatmaps", r"multi_final_layers.0"


PRINCETON_NAMES: tuple[tuple[str, str], ...] = tuple(_princeton_names())
PYTORCH_POSE_NAMES: tuple[tuple[str, str], ...] = tuple(_pytorch_pose_names())
MMPOSE_NAMES: tuple[tuple[str, str], ...] = tuple(_mmpose_names())

NAMES = PRINCETON_NAMES
"""For the network as it is built without options."""

HEAD = r"(?:stack_\d_)?heatmaps|stack_\d_remap_heatmaps_conv"
"""The layers whose shape depends on the number of joints, in every variant."""
