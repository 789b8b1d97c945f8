"""Layers that several networks share: those with a faster TensorFlow form and a neutral fallback of equal output, and channel arithmetic.

Everything else in `kpose.models` is plain `keras.layers`. Tensors are NHWC.
"""

from __future__ import annotations

import importlib
from typing import Any

import keras
import numpy as np
from keras import ops

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
else:
    tf = None
torch: Any = importlib.import_module("torch") if keras.backend.backend() == "torch" else None

EPSILON = 1e-5
"""Batch normalisation's epsilon in PyTorch, which all four papers leave at its default."""

MOMENTUM = 0.9
"""PyTorch's default momentum of 0.1, as Keras counts it."""


@keras.saving.register_keras_serializable(package="kpose")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch normalisation, through the fused kernel of TensorFlow or PyTorch wherever that computes the same.

    Same arguments, weights, outputs, gradients and moving statistics as `keras.layers.BatchNormalization`, whose TensorFlow form consists
    of seven separate operations (see docs/decisions/fused-batch-normalisation.md), and whose PyTorch form of as many passes over the
    tensor, with copies for the gradient. TensorFlow's kernel reports the unbiased variance, N / (N - 1) times what Keras averages; that
    factor is taken back. With `synchronized=True` the replicas of a TensorFlow strategy exchange their means and variances once forward and
    once backward. Falls back to Keras' own form on JAX, whose compiler fuses it, for inputs that are not NHWC images, for float64, for
    masked or renormalised statistics. On other backends than TensorFlow there are no replicas, and `synchronized` is False.
    Epsilon and momentum default to PyTorch's.
    """

    def __init__(
        self, axis: int = -1, momentum: float = MOMENTUM, epsilon: float = EPSILON, synchronized: bool = False, **kwargs: Any
    ) -> None:
        # Elsewhere Keras refuses it; a network that was trained with it must be readable.
        super().__init__(axis=axis, momentum=momentum, epsilon=epsilon, synchronized=synchronized and tf is not None, **kwargs)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not self._fused_form_applies(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        scale = self.gamma if self.scale else ops.ones_like(self.moving_variance)
        offset = self.beta if self.center else ops.zeros_like(self.moving_mean)
        scale, offset = (ops.cast(tensor, "float32") for tensor in (scale, offset))
        if torch is not None:
            return self._fused_in_torch(inputs, scale, offset, bool(training and self.trainable))
        if not (training and self.trainable):
            return self._fused(inputs, scale, offset, ops.cast(self.moving_mean, "float32"), ops.cast(self.moving_variance, "float32"))[0]

        replicas = tf.distribute.get_replica_context() if self.synchronized else None
        if replicas is not None and replicas.num_replicas_in_sync > 1:
            outputs, mean, variance = normalize_over_replicas(inputs, scale, offset, self.epsilon)
        else:
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
            (tf is not None or torch is not None)
            and len(inputs.shape) == 4
            and self.axis in (-1, 3)
            and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "float16", "bfloat16")
            and keras.backend.standardize_dtype(inputs.dtype) == self.compute_dtype
            and mask is None
            and not self.renorm
        )

    def _fused(self, inputs: Any, scale: Any, offset: Any, mean: Any, variance: Any, training: bool = False) -> tuple[Any, Any, Any]:
        results = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=self.epsilon, is_training=training
        )
        return results.y, results.batch_mean, results.batch_variance

    def _fused_in_torch(self, inputs: Any, scale: Any, offset: Any, training: bool) -> Any:
        # A view: what Keras' convolutions give lies in memory channels last.
        images = torch.permute(inputs, (0, 3, 1, 2))
        mean, variance = (None, None) if training else (self.moving_mean.value.float(), self.moving_variance.value.float())
        outputs, mean, inverse_deviation = torch.native_batch_norm(images, scale, offset, mean, variance, training, 0.0, self.epsilon)
        if training:
            variance = 1.0 / torch.square(inverse_deviation.detach()) - self.epsilon
            for moving, batch in ((self.moving_mean, mean.detach()), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return torch.permute(outputs, (0, 2, 3, 1))


def normalize_over_replicas(inputs: Any, scale: Any, offset: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Batch normalisation with the mean and variance over all replicas of a TensorFlow strategy; inside of a replica.

    Each replica's own mean and variance are exchanged, not its sums of squares, whose difference loses digits. A share of the batch may be
    empty.

    Args:
        inputs: (B, H, W, C), the replica's share.
        scale: (C,) float32.
        offset: (C,) float32.
        epsilon: added to the variance.

    Returns:
        Outputs like the inputs, and mean and variance (C,) float32 of the whole batch, which pass no gradient on. The gradients of scale
        and offset are the replica's share; their sum over replicas is that of the batch.
    """
    replicas = tf.distribute.get_replica_context()

    def sum_over_replicas(value: Any) -> Any:
        # Not `all_reduce`: made to be differentiated, it searches the graphs of all replicas for variables, at each call.
        return replicas.merge_call(
            lambda strategy, values: strategy.extended.reduce_to(tf.distribute.ReduceOp.SUM, values, destinations=values), args=(value,)
        )

    images = tf.stop_gradient(tf.cast(inputs, tf.float32))
    count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
    own = tf.stack([*tf.nn.moments(images, [0, 1, 2]), tf.fill([images.shape[-1]], count)])
    own = tf.where(count > 0, own, tf.zeros_like(own))
    place = tf.one_hot(replicas.replica_id_in_sync_group, replicas.num_replicas_in_sync)
    means, variances, counts = tf.unstack(sum_over_replicas(place[:, None, None] * own), axis=1)
    total = tf.reduce_sum(counts, axis=0)
    mean = tf.reduce_sum(counts * means, axis=0) / total
    variance = tf.reduce_sum(counts * (variances + tf.square(means - mean)), axis=0) / total

    @tf.custom_gradient
    def normalize(inputs: Any, scale: Any, offset: Any, mean: Any, variance: Any) -> Any:
        statistics = {"epsilon": epsilon, "is_training": False}
        outputs = tf.raw_ops.FusedBatchNormV3(x=inputs, scale=scale, offset=offset, mean=mean, variance=variance, **statistics).y

        def gradient(of_outputs: Any) -> tuple[Any, ...]:
            # As if mean and variance were constants; what comes through them is taken off below.
            constant = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=of_outputs,
                x=inputs,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=tf.zeros([0], tf.float32),
                **statistics,
            )
            of_scale, of_offset = constant.scale_backprop, constant.offset_backprop
            mean_of_scale, mean_of_offset = tf.unstack(sum_over_replicas(tf.stack([of_scale, of_offset])) / total)
            inverse_deviation = tf.math.rsqrt(variance + epsilon)
            centred = (tf.cast(inputs, tf.float32) - mean) * (inverse_deviation * mean_of_scale)
            through_statistics = scale * inverse_deviation * (centred + mean_of_offset)
            of_inputs = constant.x_backprop - tf.cast(through_statistics, inputs.dtype)
            return of_inputs, of_scale, of_offset, tf.zeros_like(mean), tf.zeros_like(variance)

        return outputs, gradient

    return normalize(inputs, scale, offset, mean, variance), mean, variance


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
class GroupedConv2D(keras.layers.Conv2D):
    """`Conv2D` with groups, through TensorFlow's own kernel.

    Same arguments, weights, outputs and gradients. Keras hands grouped convolutions to XLA, whose gradient takes some hundred times as
    long on a CPU. Falls back to Keras' own form on other backends. Computed in float32 where the compute dtype is float16, of which
    TensorFlow has no gradient on a CPU.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # As for `DepthwiseConv2DTranspose`: Keras must not choose XLA by itself.
        self.supports_jit = tf is None

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        if tf is None or self.data_format != "channels_last":
            return super().convolution_op(inputs, kernel)
        if self.compute_dtype == "float16":
            inputs, kernel = ops.cast(inputs, "float32"), ops.cast(kernel, "float32")
        outputs = tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)
        return ops.cast(outputs, self.compute_dtype)


@keras.saving.register_keras_serializable(package="kpose")
class ChannelPooling(keras.layers.Layer):
    """Mean and maximum over the channels, (B, H, W, C) to (B, H, W, 2): what CBAM's spatial attention looks at."""

    def call(self, inputs: Any) -> Any:
        return ops.concatenate([ops.mean(inputs, axis=-1, keepdims=True), ops.max(inputs, axis=-1, keepdims=True)], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], 2)


@keras.saving.register_keras_serializable(package="kpose")
class ChannelSlice(keras.layers.Layer):
    """The channels from `start` to before `stop`: (B, H, W, C) to (B, H, W, stop - start)."""

    def __init__(self, start: int, stop: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start = start
        self.stop = stop

    def call(self, inputs: Any) -> Any:
        return inputs[..., self.start : self.stop]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.stop - self.start)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "start": self.start, "stop": self.stop}


@keras.saving.register_keras_serializable(package="kpose")
class ChannelShuffle(keras.layers.Layer):
    """ShuffleNet's channel shuffle, (B, H, W, C) to the same shape: channel `g * C / groups + c` goes to `c * groups + g`."""

    def __init__(self, groups: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.groups = groups

    def call(self, inputs: Any) -> Any:
        height, width, channels = inputs.shape[1:]
        grouped = ops.reshape(inputs, (-1, height, width, self.groups, channels // self.groups))
        return ops.reshape(ops.swapaxes(grouped, 3, 4), (-1, height, width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "groups": self.groups}


@keras.saving.register_keras_serializable(package="kpose")
class CornerAlignedUpSampling2D(keras.layers.Layer):
    """Bilinear upsampling that keeps the corner pixels in place: PyTorch's `Upsample(mode="bilinear", align_corners=True)`.

    Input (B, H, W, C) of a fixed size, output (B, size * H, size * W, C). Every output row is a weighted sum of input rows, likewise
    the columns: two multiplications by constant matrices.

    Args:
        size: How many times higher and wider the output is.
        **kwargs: `name`, `dtype`, `trainable`.
    """

    def __init__(self, size: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Any) -> Any:
        """Upsamples."""
        height, width, channels = inputs.shape[1:]
        rows, columns = (ops.convert_to_tensor(corner_aligned_weights(side, self.size), dtype=inputs.dtype) for side in (height, width))
        x = ops.matmul(rows, ops.reshape(inputs, (-1, height, width * channels)))
        x = ops.matmul(columns, ops.reshape(x, (-1, self.size * height, width, channels)))
        return ops.reshape(x, (-1, self.size * height, self.size * width, channels))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(B, size * H, size * W, C)."""
        batch, height, width, channels = input_shape
        return (batch, height and self.size * height, width and self.size * width, channels)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "size": self.size}


def corner_aligned_weights(side: int, factor: int) -> np.ndarray:
    """How much each of `side` pixels counts for each of `factor * side` pixels between the same two end points.

    Returns:
        (factor * side, side) float32; every row adds up to 1 and has at most two entries that are not 0.
    """
    positions = np.linspace(0.0, side - 1.0, factor * side)
    return np.maximum(1.0 - np.abs(positions[:, None] - np.arange(side)), 0.0).astype("float32")
