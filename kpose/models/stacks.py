"""What the networks of several stacked encoders and decoders share."""

from __future__ import annotations

from typing import Any

import keras

from kpose.models.convolutions import activate, lecun_uniform, strided_conv
from kpose.models.layers import BatchNormalization


def pre_activated_conv(
    x: Any,
    filters: int,
    kernel_size: int = 1,
    *,
    name: str,
    gamma_initializer: str | keras.initializers.Initializer = "ones",
    **kwargs: Any,
) -> Any:
    """Batch normalisation, ReLU, convolution, in this order.

    Args:
        x: (B, H, W, C).
        filters: Output channels.
        kernel_size: Odd kernel size.
        name: Prefix of the layer names.
        gamma_initializer: How the scale of the normalisation starts.
        **kwargs: As for `convolutions.strided_conv`; the kernel starts from `lecun_uniform`.

    Returns:
        (B, H, W, filters).
    """
    x = activate(BatchNormalization(gamma_initializer=gamma_initializer, name=f"{name}_norm")(x), name, "relu")
    return strided_conv(x, filters, kernel_size, kernel_initializer=lecun_uniform(), name=f"{name}_conv", **kwargs)


def heatmaps_name(stack: int, stacks: int) -> str:
    """What the layer is called that ends the stack (the first is 1): "heatmaps" where there is no other one."""
    return f"stack_{stack}_heatmaps" if stacks > 1 else "heatmaps"


def stacked_model(inputs: Any, heatmaps: list[Any], name: str) -> keras.Model:
    """The model that returns the heatmaps of all stacks, the last being the best; a single tensor where there is one stack."""
    return keras.Model(inputs, heatmaps if len(heatmaps) > 1 else heatmaps[0], name=name)
