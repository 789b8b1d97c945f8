"""What published checkpoints call the layers of the cascaded pyramid network in its variant "pytorch".

The names are those of the re-implementation (GengDavid/pytorch-cpn, weights of September 2018 and later; earlier ones have a bias where
the pyramid's levels are merged). MMPose has no such network, and the paper's authors published weights for TensorFlow only.
"""

from __future__ import annotations

from kpose.weights.torch_names import resnet

HEAD = r"(?:global|refine)_.+"
"""The layers that no trunk trained on ImageNet has."""

HEAD_NAMES: tuple[tuple[str, str], ...] = (
    # Levels count from the coarsest there, from 0; here by the trunk's stages, from 4 down to 1.
    *(
        rule
        for position, level in enumerate((4, 3, 2, 1))
        for rule in (
            (rf"global_{level}_lateral_conv", rf"global_net.laterals.{position}.0"),
            (rf"global_{level}_lateral_norm", rf"global_net.laterals.{position}.1"),
            # What a level takes from the coarser one is counted with the coarser one.
            (rf"global_{level}_merge_conv", rf"global_net.upsamples.{position - 1}.1"),
            (rf"global_{level}_merge_norm", rf"global_net.upsamples.{position - 1}.2"),
            (rf"global_{level}_predict_conv", rf"global_net.predict.{position}.0"),
            (rf"global_{level}_predict_norm", rf"global_net.predict.{position}.1"),
            (rf"global_{level}_heatmap_conv", rf"global_net.predict.{position}.3"),
            (rf"global_{level}_heatmap_norm", rf"global_net.predict.{position}.5"),
            (rf"refine_{level}_block_(\d)_shortcut_conv", rf"refine_net.cascade.{position}.\1.downsample.0"),
            (rf"refine_{level}_block_(\d)_shortcut_norm", rf"refine_net.cascade.{position}.\1.downsample.1"),
            (rf"refine_{level}_block_(\d)_(\d)_conv", rf"refine_net.cascade.{position}.\1.conv\2"),
            (rf"refine_{level}_block_(\d)_(\d)_norm", rf"refine_net.cascade.{position}.\1.bn\2"),
        )
    ),
    (r"refine_last_block_shortcut_conv", r"refine_net.final_predict.0.downsample.0"),
    (r"refine_last_block_shortcut_norm", r"refine_net.final_predict.0.downsample.1"),
    (r"refine_last_block_(\d)_conv", r"refine_net.final_predict.0.conv\1"),
    (r"refine_last_block_(\d)_norm", r"refine_net.final_predict.0.bn\1"),
    (r"refine_heatmap_conv", r"refine_net.final_predict.1"),
    (r"refine_heatmap_norm", r"refine_net.final_predict.2"),
)

NAMES = (*((pattern, f"resnet.{template}") for pattern, template in resnet.NAMES), *HEAD_NAMES)

NAMES_ON_IMAGENET = (*resnet.NAMES, *HEAD_NAMES)
"""The same with the trunk's names as its own checkpoints have them: for the trunk alone."""
