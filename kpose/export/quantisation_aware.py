"""Quantisation-aware training: a trained network learns to give its own heatmaps again while it is rounded as int8 will round it.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018. What is trained is the
network as it is exported, batch normalisation folded and channels equalised, so that its weights are those that the file will round. It
needs people's crops but no annotation: the teacher is the same network in float.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kpose.errors import KposeError
from kpose.export.quantisation import outer_values

# By the name of an operation the smallest and greatest value that its output is to hold.
Ranges = Mapping[str, tuple[float, float]]

# By the names of their classes: those of operations without weights are not public.
_RECTIFIERS = ("ReLU", "Relu6")
# These give values of their inputs again, in steps of their inputs.
_REARRANGING = ("Concatenate", "ZeroPadding2D", "MaxPooling2D", "DepthToSpace")


def train_quantisation_aware(
    network: keras.Model,
    batches: Iterable[np.ndarray] | tf.data.Dataset,
    crops: np.ndarray,
    steps: int,
    learning_rate: float = 1e-3,
    *,
    progress: bool = True,
) -> list[float]:
    """Train the weights of a network that is to be quantised, in place.

    Args:
        network: of `kpose.export.inference_network`, equalised.
        batches: of crops `(B, H, W, 3)` in 0..255, augmented as in training; as many as there are steps.
        crops: `(N, H, W, 3)` in 0..255, on which the ranges of the activations are found; they stay as they are then.
        steps: of Adam. The learning rate rises for a tenth of them and falls to 0 along a cosine.
        learning_rate: in units of the greatest weight of the output channel: folded channels differ by factors of thousands, and so do
            the steps to which they are rounded.
        progress: whether to show a bar.

    Returns:
        The mean squared difference between the rounded heatmaps and the teacher's, at each step.

    Raises:
        KposeError: when there are no steps, or fewer batches than steps.
    """
    if steps < 1:
        raise KposeError(f"quantisation-aware training takes at least 1 step, found {steps}")
    teacher = keras.models.clone_model(network)
    teacher.set_weights(network.get_weights())
    teacher.trainable = False
    teacher = keras.models.clone_model(teacher, input_tensors=keras.Input(network.inputs[0].shape[1:]), clone_function=_itself)
    student = fake_quantised(network, activation_ranges(network, crops))
    warmup = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else learning_rate, steps - warmup, warmup_target=learning_rate if warmup else None, warmup_steps=warmup
    )
    optimizer = keras.optimizers.Adam(schedule)
    weights = student.trainable_variables
    optimizer.build(weights)

    @tf.function(autograph=False, jit_compile=False, reduce_retracing=True)
    def step(images: tf.Tensor) -> tf.Tensor:
        expected = teacher(images, training=False)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(student(images, training=True) - expected))
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    losses: list[float] = []
    bar = keras.utils.Progbar(steps, verbose=int(progress), stateful_metrics=["difference"])
    for images in batches:
        losses.append(float(step(tf.cast(images, tf.float32))))
        if not np.isfinite(losses[-1]):
            raise KposeError(f"quantisation-aware training diverged at step {len(losses)}; lower its learning rate, {learning_rate:g}")
        bar.update(len(losses), [("difference", losses[-1])])
        if len(losses) == steps:
            for layer in student.layers:
                if isinstance(layer, _RoundedConvolution):
                    layer.settle()
            return losses
    raise KposeError(f"quantisation-aware training got {len(losses)} batches for {steps} steps")


def fake_quantised(network: keras.Model, ranges: Ranges) -> keras.Model:
    """The network as int8 computes it, in float: every weight and every activation rounded to its 8 bits, gradients passed through.

    Args:
        network: of `kpose.export.inference_network`.
        ranges: of its activations, see `activation_ranges`.

    Returns:
        A functional model of batches, on the layers of `network` itself.
    """
    rounded = set(_rounded(network))

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        name = layer.name
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            layer = _RoundedConvolution(layer)
        outputs = layer(*args, **kwargs)
        return _Rounded(ranges[name], name=f"{name}_rounded")(outputs) if name in rounded else outputs

    image = keras.Input(network.inputs[0].shape[1:], name=network.inputs[0].name)
    return keras.models.clone_model(network, input_tensors=image, clone_function=_itself, call_function=call)


def activation_ranges(network: keras.Model, crops: np.ndarray) -> dict[str, tuple[float, float]]:
    """Smallest and greatest value of each tensor that int8 rounds, by the name of the operation that makes it; as the file's are found."""
    names = _rounded(network)
    operations = {operation.name: operation for operation in network.operations}
    inner = keras.Model(network.inputs, {name: operations[name].output for name in names})
    compute = tf.function(lambda crop: inner(crop, training=False), autograph=False, jit_compile=False)
    ranges: dict[str, tuple[float, float]] = {}
    for crop in crops:
        for name, values in compute(tf.constant(crop[None], tf.float32)).items():
            low, high = outer_values(values.numpy())
            known = ranges.get(name, (0.0, 0.0))
            ranges[name] = min(low, known[0]), max(high, known[1])
    for gate in network.operations:
        if isinstance(gate, keras.layers.DepthwiseConv2D) and "Relu6" in {type(other).__name__ for other in _followers(network, gate)}:
            # Hard swish tells no values apart whose gate is closed, see `kpose.export.quantisation.narrowed`.
            name = gate.input._keras_history.operation.name
            kernel, bias = (ops.convert_to_numpy(weight).ravel() for weight in gate.weights)
            ranges[name] = max(ranges[name][0], -float(np.max(bias / kernel))), ranges[name][1]
    return ranges


def _rounded(network: keras.Model) -> list[str]:
    """The operations whose output the file rounds: not where an activation is fused behind, not the heatmaps, which stay in float."""
    names = []
    for operation in network.operations:
        if type(operation).__name__ in ("InputLayer", *_REARRANGING) or operation.output is network.outputs[0]:
            continue
        followers = _followers(network, operation)
        if not (followers and all(type(other).__name__ in _RECTIFIERS for other in followers)):
            names.append(operation.name)
    return names


def _followers(network: keras.Model, operation: Any) -> list[Any]:
    """The operations that use its output. Only those of the network: the tensors still know those that the rewriting dropped."""
    known = {id(other) for other in network.operations}
    return [node.operation for node in operation._outbound_nodes if id(node.operation) in known]


def _itself(layer: Any) -> Any:
    return layer


class _Rounded(keras.layers.Layer):
    """Rounds to the 256 values of 8 bits between two ends, 0 among them."""

    def __init__(self, ends: tuple[float, float], **options: Any) -> None:
        super().__init__(**options)
        low, high = min(ends[0], 0.0), max(ends[1], 0.0)
        self.ends = low, high if high > low else low + 1e-6

    def call(self, inputs: Any) -> Any:
        return tf.quantization.fake_quant_with_min_max_args(inputs, *self.ends)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        # Keras takes the product of a tensor and a constant for a sparse tensor; it is none.
        return keras.KerasTensor(inputs.shape, inputs.dtype)


class _RoundedConvolution(keras.layers.Layer):
    """A convolution with its kernel rounded by output channel, symmetrically, to 8 bits.

    What is trained is the change of its weights in units of the channel's greatest one, until `settle` adds it to them.
    """

    def __init__(self, convolution: keras.layers.Layer) -> None:
        super().__init__(name=f"{convolution.name}_rounded_weights")
        convolution.trainable = False
        self.convolution = convolution
        self.depthwise = isinstance(convolution, keras.layers.DepthwiseConv2D)
        kernel = ops.convert_to_numpy(convolution.kernel)
        by_channel = kernel.reshape((-1, kernel.shape[2] if self.depthwise else kernel.shape[3]))
        self.unit = np.maximum(np.abs(by_channel).max(axis=0), 1e-12)
        self.kernel_change = self.add_weight(kernel.shape, "zeros", name="kernel_change")
        self.bias_change = self.add_weight(convolution.bias.shape, "zeros", name="bias_change")

    def changed(self) -> tuple[Any, Any]:
        """Kernel and bias as they are now."""
        unit = self.unit[:, None] if self.depthwise else self.unit
        layer = self.convolution
        return layer.kernel + self.kernel_change * unit, layer.bias + self.bias_change * self.unit

    def settle(self) -> None:
        """Give the convolution its trained weights."""
        self.convolution.set_weights([ops.convert_to_numpy(weight) for weight in self.changed()])
        for change in (self.kernel_change, self.bias_change):
            change.assign(ops.zeros_like(change))

    def call(self, inputs: Any) -> Any:
        layer = self.convolution
        kernel, bias = self.changed()
        by_channel = tf.reshape(kernel, (*kernel.shape[:2], -1)) if self.depthwise else kernel
        greatest = tf.stop_gradient(tf.maximum(tf.reduce_max(tf.abs(by_channel), axis=list(range(by_channel.shape.rank - 1))), 1e-12))
        by_channel = tf.quantization.fake_quant_with_min_max_vars_per_channel(by_channel, -greatest, greatest, narrow_range=True)
        convolve = ops.depthwise_conv if self.depthwise else ops.conv
        outputs = convolve(inputs, tf.reshape(by_channel, kernel.shape), layer.strides, layer.padding, dilation_rate=layer.dilation_rate)
        return layer.activation(outputs + bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.convolution.compute_output_shape(input_shape)
