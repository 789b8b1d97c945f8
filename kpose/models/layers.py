"""The few layers with a faster TensorFlow form and a neutral fallback of equal output, and PyTorch's stride-2 padding.

Everything else in `kpose.models` is plain `keras.layers`. Tensors are NHWC.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None

EPSILON = 1e-5
"""Batch normalisation's epsilon in PyTorch, which all four papers leave at its default."""

MOMENTUM = 0.9
"""PyTorch's default momentum of 0.1, as Keras counts it."""


def he_normal() -> keras.initializers.Initializer:
    """He initialisation as PyTorch's `kaiming_normal_(mode="fan_out")` draws it for a dense kernel (H, W, in, out)."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")


def he_normal_depthwise() -> keras.initializers.Initializer:
    """The same for a depthwise kernel (H, W, C, 1): PyTorch's fan-out there is H x W x C, which Keras calls the fan-in."""
    return keras.initializers.VarianceScaling(2.0, mode="fan_in", distribution="untruncated_normal")


def lecun_uniform() -> keras.initializers.Initializer:
    """What PyTorch gives a convolution whose author chose nothing: uniform within 1 / sqrt(fan-in)."""
    return keras.initializers.VarianceScaling(1.0 / 3.0, mode="fan_in", distribution="uniform")


@keras.saving.register_keras_serializable(package="kpose")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, through TensorFlow's fused kernel wherever that computes the same.

    Same arguments, weights, outputs, gradients and moving statistics as `keras.layers.BatchNormalization`, whose TensorFlow
    form consists of seven separate operations (see docs/decisions/fused-batch-normalisation.md). The fused kernel reports the
    unbiased variance, N / (N - 1) times what Keras averages; that factor is taken back. Falls back to Keras' own form on other
    backends, for inputs that are not NHWC images, for float64, and for masked, synchronised or renormalised statistics.
    Epsilon and momentum default to PyTorch's.
    """

    def __init__(self, axis: int = -1, momentum: float = MOMENTUM, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fused_form_applies(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        scale = self.gamma if self.scale else ops.ones_like(self.moving_variance)
        offset = self.beta if self.center else ops.zeros_like(self.moving_mean)
        scale, offset = (ops.cast(tensor, "float32") for tensor in (scale, offset))
        if not (training and self.trainable):
            return self._fused(inputs, scale, offset, ops.cast(self.moving_mean, "float32"), ops.cast(self.moving_variance, "float32"))[0]

        empty = tf.zeros([0], tf.float32)
        outputs, mean, variance = self._fused(inputs, scale, offset, empty, empty, training=True)
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], tf.float32)
        variance = variance * (tf.maximum(count - 1.0, 1.0) / count)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _fused_form_applies(self, inputs: Any, mask: Any) -> bool:
        """Whether the fused kernel computes exactly what Keras would."""
        return (
            tf is not None
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            and keras.backend.standardize_dtype(inputs.dtype) == self.compute_dtype
            and mask is None
            and not (self.synchronized or self.renorm)
        )

    def _fused(self, inputs: Any, scale: Any, offset: Any, mean: Any, variance: Any, training: bool = False) -> tuple[Any, Any, Any]:
        results = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon, is_training=training
        )
        return results.y, results.batch_mean, results.batch_variance


@keras.saving.register_keras_serializable(package="kpose")
class DepthwiseConv2DTranspose(keras.layers.Layer):
    """Depthwise transposed convolution, 4x4, stride 2: every channel upsampled twofold by a filter of its own.

    Exactly PyTorch's `ConvTranspose2d(C, C, 4, stride=2, padding=1, groups=C)`: input (B, H, W, C), output (B, 2H, 2W, C).
    The kernel is (4, 4, C, 1), PyTorch's `weight.transpose(2, 3, 0, 1)`. Computed in float32 also under mixed precision (the
    half-precision gradient kernels are several times slower), then cast to the compute dtype.

    Args:
        kernel_initializer: How the kernel starts.
        use_bias: Whether a bias is added per channel.
        bias_initializer: How the bias starts.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(
        self,
        kernel_initializer: str | keras.initializers.Initializer = "glorot_uniform",
        use_bias: bool = False,
        bias_initializer: str | keras.initializers.Initializer = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.use_bias = use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        # With Keras' default, jit_compile="auto", a plain `compile` would choose XLA, under which TensorFlow's kernel takes some
        # hundred times as long on a CPU. An explicit `jit_compile=True` still wins.
        self.supports_jit = tf is None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        channels = input_shape[-1]
        self.kernel = self.add_weight(
            name="kernel", shape=(4, 4, channels, 1), initializer=self.kernel_initializer, dtype="float32", autocast=False
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(channels,), initializer=self.bias_initializer, dtype="float32", autocast=False)

    def call(self, inputs: Any) -> Any:
        upsample = depthwise_transpose_neutral if tf is None else depthwise_transpose_tensorflow
        outputs = upsample(ops.cast(inputs, "float32"), ops.convert_to_tensor(self.kernel))
        if self.use_bias:
            outputs = outputs + self.bias
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, channels = input_shape
        return (batch, height and 2 * height, width and 2 * width, channels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def depthwise_transpose_tensorflow(inputs: Any, kernel: Any) -> Any:
    """The transposed convolution as what it is, the input gradient of a depthwise convolution.

    Args:
        inputs: (B, H, W, C) float32.
        kernel: (4, 4, C, 1) float32.

    Returns:
        (B, 2H, 2W, C).
    """
    batch, height, width, channels = tf.unstack(tf.shape(inputs))
    outputs = tf.nn.depthwise_conv2d_backprop_input(
        # On even sizes SAME pads a 4x4 kernel by one pixel on every side, PyTorch's padding=1.
        input_sizes=tf.stack([batch, 2 * height, 2 * width, channels]),
        filter=kernel,
        out_backprop=inputs,
        strides=[1, 2, 2, 1],
        padding="SAME",
    )
    batch, height, width, channels = inputs.shape
    outputs.set_shape((batch, height and 2 * height, width and 2 * width, channels))
    return outputs


def depthwise_transpose_neutral(inputs: Any, kernel: Any) -> Any:
    """The same in `keras.ops`: every output phase is a 2x2 filter, all four of them one 3x3 depthwise convolution.

    Args:
        inputs: (B, H, W, C) float32.
        kernel: (4, 4, C, 1) float32.

    Returns:
        (B, 2H, 2W, C).
    """
    phases = ops.depthwise_conv(ops.concatenate([inputs] * 4, axis=-1), phase_kernel(kernel), strides=1, padding="same")
    return ops.depth_to_space(phases, 2, data_format="channels_last")


def phase_kernel(kernel: Any) -> Any:
    """The 3x3 depthwise kernel whose four channel groups are the output phases of the 4x4 stride-2 transposed convolution.

    Args:
        kernel: (4, 4, C, 1).

    Returns:
        (3, 3, 4C, 1), phase by phase: (even row, even column), (even, odd), (odd, even), (odd, odd).
    """
    flipped = ops.flip(kernel, axis=(0, 1))
    return ops.concatenate(
        [
            ops.pad(flipped[row::2, column::2], ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0)))
            for row in (0, 1)
            for column in (0, 1)
        ],
        axis=2,
    )


@keras.saving.register_keras_serializable(package="kpose")
class ChannelPooling(keras.layers.Layer):
    """Mean and maximum over the channels, (B, H, W, C) to (B, H, W, 2): what CBAM's spatial attention looks at."""

    def call(self, inputs: Any) -> Any:
        return ops.concatenate([ops.mean(inputs, axis=-1, keepdims=True), ops.max(inputs, axis=-1, keepdims=True)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 2)


def pad_for_stride(x: Any, kernel_size: int, stride: int, padding: str, name: str) -> tuple[Any, str]:
    """Pads `x` for a strided convolution and says which `padding` argument that convolution then needs.

    Keras' "same" puts the odd pixel of a stride-2 convolution at the bottom and right, PyTorch puts `kernel_size // 2` on every
    side: outputs half an output pixel apart, so weights of one do not fit the other.

    Args:
        x: (B, H, W, C).
        kernel_size: Odd kernel size.
        stride: 1 or 2; at stride 1 the two conventions agree and nothing is padded here.
        padding: "symmetric" (PyTorch's) or "same" (TensorFlow's).
        name: Name of the padding layer.

    Returns:
        The padded tensor, and "valid" or "same".
    """
    if stride == 1 or padding == "same":
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
