"""What published checkpoints call the layers of Lite-HRNet.

The names are those of the authors' code (HRNet/Lite-HRNet), which builds on MMPose; MMPose itself, before and after version 1, has the
same after its prefix.
"""

from __future__ import annotations

# One list there: depthwise convolution, normalisation, pointwise convolution, normalisation.
SEPARABLE = (("depthwise_conv", 0), ("depthwise_norm", 1), ("pointwise_conv", 2), ("pointwise_norm", 3))

MODULE = r"_module_(\d)"
BLOCK = MODULE + r"_block_(\d)"

NAMES: tuple[tuple[str, str], ...] = (
    (r"stem_conv", r"stem.conv1.conv"),
    (r"stem_norm", r"stem.conv1.bn"),
    *(
        rule
        for ours, theirs in (
            ("left_depthwise", "branch1.0"),
            ("left_pointwise", "branch1.1"),
            ("right_expand", "expand_conv"),
            ("right_depthwise", "depthwise_conv"),
            ("right_project", "linear_conv"),
        )
        for rule in ((f"stem_{ours}_conv", f"stem.{theirs}.conv"), (f"stem_{ours}_norm", f"stem.{theirs}.bn"))
    ),
    # Only branch 0 of the first transition changes its width in place; a new branch is a list of steps, of which it has one.
    *((rf"stage_2_transition_0_{ours}", f"transition0.0.{index}") for ours, index in SEPARABLE),
    # Stages count from 2 here, as in the paper, and from 0 there.
    *(
        rule
        for stage in range(3)
        for rule in (
            *((rf"stage_{stage + 2}_transition_(\d)_{ours}", rf"transition{stage}.\1.0.{index}") for ours, index in SEPARABLE),
            *(
                rule
                for ours, theirs in (("reduce", "conv1"), ("restore", "conv2"))
                for rule in (
                    (
                        rf"stage_{stage + 2}{BLOCK}_cross_{ours}_conv",
                        rf"stage{stage}.\1.layers.\2.cross_resolution_weighting.{theirs}.conv",
                    ),
                    (rf"stage_{stage + 2}{BLOCK}_cross_{ours}_norm", rf"stage{stage}.\1.layers.\2.cross_resolution_weighting.{theirs}.bn"),
                    (
                        rf"stage_{stage + 2}{BLOCK}_branch_(\d)_spatial_{ours}_conv",
                        rf"stage{stage}.\1.layers.\2.spatial_weighting.\3.{theirs}.conv",
                    ),
                )
            ),
            (rf"stage_{stage + 2}{BLOCK}_branch_(\d)_depthwise_conv", rf"stage{stage}.\1.layers.\2.depthwise_convs.\3.conv"),
            (rf"stage_{stage + 2}{BLOCK}_branch_(\d)_depthwise_norm", rf"stage{stage}.\1.layers.\2.depthwise_convs.\3.bn"),
            (rf"stage_{stage + 2}{MODULE}_fuse_(\d)_from_(\d)_conv", rf"stage{stage}.\1.fuse_layers.\2.\3.0"),
            (rf"stage_{stage + 2}{MODULE}_fuse_(\d)_from_(\d)_norm", rf"stage{stage}.\1.fuse_layers.\2.\3.1"),
            *(
                (rf"stage_{stage + 2}{MODULE}_fuse_(\d)_from_(\d)_step_(\d)_{ours}", rf"stage{stage}.\1.fuse_layers.\2.\3.\4.{index}")
                for ours, index in SEPARABLE
            ),
        )
    ),
    (r"head_(\d)_(depthwise|pointwise)_conv", r"head_layer.projects.\1.\2_conv.conv"),
    (r"head_(\d)_(depthwise|pointwise)_norm", r"head_layer.projects.\1.\2_conv.bn"),
    (r"heatmaps", r"final_layer"),
)
