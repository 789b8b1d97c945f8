"""Convolutions as PyTorch pads and starts them, each with the normalisation and activation that follow it.

The published networks were trained there: weights fit only where the padding agrees. Every function names its layers
`<name>_conv`, `<name>_norm` and `<name>_relu` (or the activation's own name). Tensors are NHWC.
"""

from __future__ import annotations

from typing import Any

import keras

from kpose.models.layers import BatchNormalization


def he_normal() -> keras.initializers.Initializer:
    """He initialisation as PyTorch's `kaiming_normal_(mode="fan_out")` draws it for a dense kernel (H, W, in, out)."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def he_normal_depthwise() -> keras.initializers.Initializer:
    """The same for a depthwise kernel (H, W, C, 1): PyTorch's fan-out there is H x W x C, which Keras calls the fan-in."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_in", distribution="untruncated_normal")


def lecun_uniform() -> keras.initializers.Initializer:
    """What PyTorch gives a convolution whose author chose nothing: uniform within 1 / sqrt(fan-in)."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_in", distribution="uniform")


def small_normal() -> keras.initializers.Initializer:
    """normal(0, 0.001), from which heads start, and HRNet as a whole. A new one for each layer: one instance draws the same twice."""
    return keras.initializers.RandomNormal(stddev=0.001)


def pad_for_stride(x: Any, kernel_size: int, stride: int, padding: str, name: str) -> tuple[Any, str]:
    """Pads `x` for a strided convolution and says which `padding` argument that convolution then needs.

    Keras' "same" puts the odd pixel of a stride-2 convolution at the bottom and right, PyTorch puts `kernel_size // 2` on every
    side: outputs half an output pixel apart, so weights of one do not fit the other.

    Args:
        x: (B, H, W, C).
        kernel_size: Odd kernel size.
        stride: 1 or 2; at stride 1, and for 1x1 kernels, the two conventions agree and nothing is padded here.
        padding: "symmetric" (PyTorch's) or "same" (TensorFlow's).
        name: Name of the padding layer.

    Returns:
        The padded tensor, and "valid" or "same".
    """
    if stride == 1 or padding == "same" or kernel_size == 1:
        return x, "same"
    return keras.layers.ZeroPadding2D(kernel_size // 2, name=name)(x), "valid"


def strided_conv(
    x: Any, filters: int, kernel_size: int, stride: int = 1, *, name: str, padding: str = "symmetric", use_bias: bool = False, **kwargs: Any
) -> Any:
    """`Conv2D` that pads as PyTorch does at stride 2 (see `pad_for_stride`); without bias unless asked.

    Args:
        x: (B, H, W, C).
        filters: Output channels.
        kernel_size: Odd kernel size.
        stride: 1 or 2.
        name: Name of the convolution; its padding layer is called `<name>_pad`.
        padding: "symmetric" or "same".
        use_bias: Whether the convolution has a bias.
        **kwargs: Passed to `keras.layers.Conv2D`; the kernel starts from `he_normal` unless said otherwise.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    x, mode = pad_for_stride(x, kernel_size, stride, padding, f"{name}_pad")
    kwargs.setdefault("kernel_initializer", he_normal())
    return keras.layers.Conv2D(filters, kernel_size, strides=stride, padding=mode, use_bias=use_bias, name=name, **kwargs)(x)


def strided_depthwise_conv(x: Any, kernel_size: int, stride: int = 1, *, name: str, padding: str = "symmetric", **kwargs: Any) -> Any:
    """`DepthwiseConv2D` without bias that pads as PyTorch does at stride 2; arguments as for `strided_conv`."""
    x, mode = pad_for_stride(x, kernel_size, stride, padding, f"{name}_pad")
    kwargs.setdefault("depthwise_initializer", he_normal_depthwise())
    return keras.layers.DepthwiseConv2D(kernel_size, strides=stride, padding=mode, use_bias=False, name=name, **kwargs)(x)


def normalise(x: Any, name: str, activation: str | None = None) -> Any:
    """Batch normalisation `<name>_norm`, and after it the activation, if any, `<name>_<activation>`; (B, H, W, C) to the same shape."""
    return activate(BatchNormalization(name=f"{name}_norm")(x), name, activation)


def activate(x: Any, name: str, activation: str | None) -> Any:
    """The activation as a layer `<name>_<activation>`: "relu", "relu6" or a name that Keras knows; None leaves `x` as it is."""
    if activation is None:
        return x
    if activation == "relu":
        return keras.layers.ReLU(name=f"{name}_relu")(x)
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(x)


def conv_norm(
    x: Any, filters: int, kernel_size: int = 1, stride: int = 1, *, name: str, activation: str | None = "relu", **kwargs: Any
) -> Any:
    """Convolution without bias, batch normalisation, activation.

    Args:
        x: (B, H, W, C).
        filters: Output channels.
        kernel_size: Odd kernel size.
        stride: 1 or 2.
        name: Prefix of the layer names.
        activation: As for `activate`.
        **kwargs: As for `strided_conv`.

    Returns:
        (B, H / stride, W / stride, filters).
    """
    return normalise(strided_conv(x, filters, kernel_size, stride, name=f"{name}_conv", **kwargs), name, activation)


def depthwise_conv_norm(x: Any, kernel_size: int, stride: int = 1, *, name: str, activation: str | None = "relu", **kwargs: Any) -> Any:
    """Depthwise convolution without bias, batch normalisation, activation; arguments as for `conv_norm`."""
    return normalise(strided_depthwise_conv(x, kernel_size, stride, name=f"{name}_conv", **kwargs), name, activation)


def heatmap_conv(x: Any, channels: int, *, name: str = "heatmaps", kernel_initializer: Any = None) -> Any:
    """The 1x1 convolution with bias that ends a network; float32 under mixed precision too.

    Args:
        x: (B, H, W, C).
        channels: One per joint, or three with offsets.
        name: Name of the layer.
        kernel_initializer: normal(0, 0.001) unless given.

    Returns:
        (B, H, W, channels) float32.
    """
    kernel_initializer = kernel_initializer or small_normal()
    return keras.layers.Conv2D(channels, 1, kernel_initializer=kernel_initializer, dtype="float32", name=name)(x)
