"""What the authors' checkpoints call the layers of the lightweight network.

The names are those of the authors' code (HAIV-Lab/ICPR22w), which builds on MMPose 0.x; no weights have been published there. They hold
for attention after the last upsampling step, or none: the head is one list, and attention after an earlier step moves what follows.

The code leaves the hard sigmoid of the trunk and of the "full" and "se" attention at mmcv's default: (x + 3) / 6, kpose's, since 1.4.4,
and (x + 1) / 2 before. Weights trained with the latter fit once the convolution before each gate is multiplied by three.
"""

from __future__ import annotations

from kpose.weights.torch_names import mobilenet_v3

# Every step has six entries: transposed convolution, normalisation, ReLU, pointwise convolution, normalisation, ReLU.
HEAD_NAMES: tuple[tuple[str, str], ...] = (
    *(
        rule
        for step in range(3)
        for rule in (
            (f"head_{step + 1}_upsample_conv", f"deconv_layers.{6 * step}"),
            (f"head_{step + 1}_upsample_norm", f"deconv_layers.{6 * step + 1}"),
            (f"head_{step + 1}_pointwise_conv", f"deconv_layers.{6 * step + 3}"),
            (f"head_{step + 1}_pointwise_norm", f"deconv_layers.{6 * step + 4}"),
        )
    ),
    (r"heatmaps", r"final_layer"),
)

NAMES: tuple[tuple[str, str], ...] = (
    *mobilenet_v3.NAMES,
    *HEAD_NAMES,
    (r"attention_3_channel_reduce_conv", r"deconv_layers.18.se.conv1.conv"),
    (r"attention_3_channel_restore_conv", r"deconv_layers.18.se.conv2.conv"),
    (r"attention_3_spatial_reduce_conv", r"deconv_layers.18.sse.conv1.conv"),
    (r"attention_3_spatial_conv", r"deconv_layers.18.sse.conv2.conv"),
)
"""With attention "full", the published network, or "none"."""

SE_NAMES: tuple[tuple[str, str], ...] = (
    *mobilenet_v3.NAMES,
    *HEAD_NAMES,
    (r"attention_3_channel_reduce_conv", r"deconv_layers.18.conv1.conv"),
    (r"attention_3_channel_restore_conv", r"deconv_layers.18.conv2.conv"),
)

CBAM_NAMES: tuple[tuple[str, str], ...] = (
    *mobilenet_v3.NAMES,
    *HEAD_NAMES,
    (r"attention_3_channel_reduce_conv", r"deconv_layers.18.channel_attention.shared_MLP.0"),
    (r"attention_3_channel_restore_conv", r"deconv_layers.18.channel_attention.shared_MLP.2"),
    (r"attention_3_spatial_conv", r"deconv_layers.18.spatial_attention.conv2d"),
)
