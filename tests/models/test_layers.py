"""The fast TensorFlow forms equal their neutral forms, Keras' own layer and a plain definition."""

from __future__ import annotations

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.models import layers

RANDOM = np.random.default_rng(5)
TORCH = {"momentum": 0.9, "epsilon": 1e-5}


def conv_transpose_by_definition(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """PyTorch's ConvTranspose2d(C, C, 4, stride=2, padding=1, groups=C), pixel by pixel."""
    batch, height, width, channels = x.shape
    padded = np.zeros((batch, 2 * height + 2, 2 * width + 2, channels))
    for row in range(height):
        for column in range(width):
            padded[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += x[:, row, column][:, None, None] * kernel[..., 0]
    return padded[:, 1:-1, 1:-1]


class TestDepthwiseConv2DTranspose:
    SIZES = pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 4)])

    @SIZES
    @pytest.mark.parametrize("form", [layers.depthwise_transpose_tensorflow, layers.depthwise_transpose_neutral])
    def test_equals_the_definition_up_to_the_last_row_and_column(self, form, size):
        x = RANDOM.normal(size=(2, *size, 3)).astype("float32")
        kernel = RANDOM.normal(size=(4, 4, 3, 1)).astype("float32")
        result = keras.ops.convert_to_numpy(form(tf.constant(x), tf.constant(kernel)))
        expected = conv_transpose_by_definition(x, kernel)
        assert result.shape == expected.shape
        np.testing.assert_allclose(result, expected, atol=1e-5)
        assert np.abs(expected[:, -1]).min() > 0 and np.abs(expected[:, :, -1]).min() > 0

    @SIZES
    def test_both_forms_have_the_same_gradients(self, size):
        x = tf.constant(RANDOM.normal(size=(2, *size, 3)).astype("float32"))
        kernel = tf.constant(RANDOM.normal(size=(4, 4, 3, 1)).astype("float32"))
        direction = tf.constant(RANDOM.normal(size=(2, 2 * size[0], 2 * size[1], 3)).astype("float32"))
        gradients = []
        for form in (layers.depthwise_transpose_tensorflow, layers.depthwise_transpose_neutral):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                loss = tf.reduce_sum(form(x, kernel) * direction)
            gradients.append(tape.gradient(loss, [x, kernel]))
        for fast, neutral in zip(*gradients, strict=True):
            np.testing.assert_allclose(fast, neutral, atol=1e-4)

    def test_kernel_layout_is_that_of_a_transposed_torch_weight(self):
        weight = RANDOM.normal(size=(3, 1, 4, 4)).astype("float32")
        kernel = weight.transpose(2, 3, 0, 1)
        impulse = np.zeros((1, 3, 3, 3), "float32")
        impulse[0, 1, 1] = 1
        result = layers.depthwise_transpose_tensorflow(tf.constant(impulse), tf.constant(kernel)).numpy()
        np.testing.assert_array_equal(result[0, 1:5, 1:5, 2], weight[2, 0])

    @pytest.mark.parametrize("use_bias", [False, True])
    def test_the_layer_falls_back_to_the_neutral_form(self, monkeypatch, use_bias):
        layer = layers.DepthwiseConv2DTranspose("normal", use_bias=use_bias, bias_initializer="ones")
        x = RANDOM.normal(size=(2, 3, 4, 5)).astype("float32")
        fast = layer(x).numpy()
        monkeypatch.setattr(layers, "tf", None)
        np.testing.assert_allclose(layer(x).numpy(), fast, atol=1e-6)
        assert len(layer.weights) == 1 + use_bias

    def test_shapes_are_static_and_the_config_returns(self):
        inputs = keras.Input((8, 6, 4))
        layer = layers.DepthwiseConv2DTranspose(keras.initializers.RandomNormal(stddev=0.001), name="up")
        assert layer(inputs).shape == (None, 16, 12, 4)
        assert layer.compute_output_shape((None, None, 6, 4)) == (None, None, 12, 4)
        copy = keras.layers.deserialize(keras.layers.serialize(layer))
        assert copy.get_config() == layer.get_config()

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    def test_computes_in_float32_under_mixed_precision(self, policy):
        layer = layers.DepthwiseConv2DTranspose("normal", dtype=policy)
        x = RANDOM.normal(size=(1, 3, 3, 2)).astype("float32")
        result = layer(x)
        assert result.dtype == layer.compute_dtype and layer.kernel.dtype == "float32"
        rounded = tf.cast(tf.cast(x, layer.compute_dtype), "float32")
        expected = tf.cast(layers.depthwise_transpose_tensorflow(rounded, layer.kernel.value), layer.compute_dtype)
        np.testing.assert_array_equal(tf.cast(result, "float32"), tf.cast(expected, "float32"))


class TestBatchNormalization:
    """Keras' own layer is the reference."""

    @staticmethod
    def pair(**kwargs):
        ours, reference = (
            layers.BatchNormalization(**kwargs),
            keras.layers.BatchNormalization(**TORCH | kwargs),
        )
        for layer in (ours, reference):
            layer.build((None, 4, 5, 6))
        values = [RANDOM.uniform(0.5, 2.0, weight.shape) for weight in ours.weights]
        ours.set_weights(values)
        reference.set_weights(values)
        return ours, reference

    OPTIONS = pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-3, "momentum": 0.99}])

    @OPTIONS
    @pytest.mark.parametrize("batch", [1, 3])
    def test_training_equals_keras_in_outputs_gradients_and_statistics(self, options, batch):
        ours, reference = self.pair(**options)
        x = tf.constant(RANDOM.normal(2.0, 3.0, size=(batch, 4, 5, 6)).astype("float32"))
        direction = tf.constant(RANDOM.normal(size=x.shape).astype("float32"))
        results = []
        for layer in (ours, reference):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(y * direction)
            results.append([y, *tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_weights)])])
        for fused, plain in zip(*results, strict=True):
            np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=2e-5)
        for fused, plain in zip(ours.weights, reference.weights, strict=True):
            np.testing.assert_allclose(fused, plain, rtol=1e-5)

    @OPTIONS
    def test_inference_equals_keras(self, options):
        ours, reference = self.pair(**options)
        x = RANDOM.normal(size=(2, 4, 5, 6)).astype("float32")
        np.testing.assert_allclose(ours(x), reference(x), rtol=1e-5, atol=1e-5)

    def test_one_pixel_and_one_image_leave_a_finite_variance(self):
        ours, reference = layers.BatchNormalization(), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
        x = np.ones((1, 1, 1, 3), "float32")
        np.testing.assert_allclose(ours(x, training=True), reference(x, training=True), atol=1e-6)
        np.testing.assert_allclose(ours.moving_variance, reference.moving_variance)

    def test_frozen_layer_uses_and_keeps_its_statistics(self):
        ours, reference = self.pair()
        ours.trainable = reference.trainable = False
        before = ours.moving_mean.numpy()
        x = RANDOM.normal(size=(2, 4, 5, 6)).astype("float32")
        np.testing.assert_allclose(ours(x, training=True), reference(x, training=True), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(ours.moving_mean, before)

    @pytest.mark.parametrize(
        ("shape", "options"),
        [
            ((8, 6), {}),
            ((2, 6, 4, 5), {"axis": 1}),
            ((2, 3, 4, 5, 6), {}),
            ((2, 4, 5, 6), {"dtype": "float64"}),
            ((2, 4, 5, 6), {"renorm": True}),
        ],
    )
    def test_where_the_fused_kernel_does_not_apply_it_is_keras_own_layer(self, shape, options):
        ours, reference = layers.BatchNormalization(**options), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)
        x = tf.constant(RANDOM.normal(size=shape), options.get("dtype", "float32"))
        np.testing.assert_array_equal(ours(x, training=True), reference(x, training=True))
        for fused, plain in zip(ours.weights, reference.weights, strict=True):
            np.testing.assert_array_equal(fused, plain)

    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize("training", [True, False])
    def test_mixed_precision_equals_keras_to_one_rounding(self, policy, training):
        ours, reference = self.pair(dtype=policy)
        x = RANDOM.normal(size=(2, 4, 5, 6)).astype("float32")
        fused, plain = ours(x, training=training), reference(x, training=training)
        assert fused.dtype == plain.dtype
        tolerance = 2**-7 if policy == "mixed_bfloat16" else 2**-10
        np.testing.assert_allclose(tf.cast(fused, "float32"), tf.cast(plain, "float32"), rtol=tolerance, atol=tolerance)
        for weight, expected in zip(ours.weights, reference.weights, strict=True):
            np.testing.assert_allclose(weight, expected, rtol=1e-3)

    def test_neutral_form_is_taken_without_tensorflow(self, monkeypatch):
        ours, reference = self.pair()
        monkeypatch.setattr(layers, "tf", None)
        x = RANDOM.normal(size=(2, 4, 5, 6)).astype("float32")
        np.testing.assert_array_equal(ours(x, training=True), reference(x, training=True))


def test_a_plain_compile_does_not_choose_xla():
    inputs = keras.Input((4, 4, 2))
    model = keras.Model(inputs, layers.DepthwiseConv2DTranspose()(inputs))
    model.compile("adam", "mse")
    assert model.jit_compile is False


def test_a_channel_slice_is_numpys():
    x = RANDOM.normal(size=(2, 3, 4, 6)).astype("float32")
    layer = layers.ChannelSlice(2, 5)
    np.testing.assert_array_equal(layer(x), x[..., 2:5])
    assert layer(keras.Input((3, 4, 6))).shape == layer.compute_output_shape((None, 3, 4, 6)) == (None, 3, 4, 3)


def test_channel_shuffle_deals_the_groups_out_one_by_one():
    x = np.tile(np.arange(6, dtype="float32"), (1, 2, 2, 1))
    shuffled = layers.ChannelShuffle(2)(x).numpy()
    np.testing.assert_array_equal(shuffled[0, 1, 1], [0, 3, 1, 4, 2, 5])


@pytest.mark.parametrize("layer", [layers.ChannelSlice(1, 3), layers.ChannelShuffle(3)])
def test_the_config_of_a_channel_layer_returns(layer):
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert copy.get_config() == layer.get_config()


def test_corner_aligned_upsampling_of_a_ramp_is_a_ramp_between_the_same_ends():
    ramp = np.linspace(-1, 1, 6, dtype="float32")
    image = np.stack([np.broadcast_to(ramp, (4, 6)), np.broadcast_to(np.linspace(0, 3, 4)[:, None], (4, 6))], axis=-1)[None].astype(
        "float32"
    )
    upsampled = keras.ops.convert_to_numpy(layers.CornerAlignedUpSampling2D(4)(image))[0]
    np.testing.assert_allclose(upsampled[:, :, 0], np.broadcast_to(np.linspace(-1, 1, 24), (16, 24)), atol=1e-6)
    np.testing.assert_allclose(upsampled[:, :, 1], np.broadcast_to(np.linspace(0, 3, 16)[:, None], (16, 24)), atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 7])
def test_corner_aligned_weights_add_up_to_one(side):
    weights = layers.corner_aligned_weights(side, 8)
    assert weights.shape == (8 * side, side) and ((weights > 0).sum(axis=1) <= 2).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)


def test_corner_aligned_upsampling_comes_back_from_its_config_and_keeps_its_precision():
    layer = layers.CornerAlignedUpSampling2D(4, dtype="mixed_bfloat16", name="up")
    copy = keras.layers.deserialize(keras.layers.serialize(layer))
    assert (copy.size, copy.name, copy.compute_dtype) == (4, "up", "bfloat16")
    outputs = copy(np.ones((1, 3, 2, 5), "float32"))
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16" and tuple(outputs.shape) == (1, 12, 8, 5)
    assert copy.compute_output_shape((None, None, 2, 5)) == (None, None, 8, 5)


IN_TORCH = """
import sys, keras, numpy, torch
from kpose.models.layers import BatchNormalization

random = numpy.random.default_rng(0)
images = [random.normal(1.0, 2.0, (3, 6, 5, 4)).astype("float32") for _ in range(2)]
for options in ({}, {"scale": False}, {"center": False}):
    found = []
    for layer in (BatchNormalization(**options), keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **options)):
        layer.build((None, 6, 5, 4))
        layer.set_weights(found[0][0] if found else [random.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
        start, results = layer.get_weights(), []
        for training in (True, False):
            leaf = torch.tensor(images[training], requires_grad=True)
            output = layer(leaf, training=training)
            layer.zero_grad()
            (output * torch.arange(output.numel()).reshape(output.shape).sin()).sum().backward()
            gradients = [leaf.grad] + [weight.value.grad for weight in layer.trainable_weights]
            results += [output.detach(), *gradients, *[torch.tensor(weight) for weight in layer.get_weights()]]
        found.append((start, results))
    assert max(float((a - b).abs().max()) for a, b in zip(found[0][1], found[1][1], strict=True)) < 2e-4
assert not BatchNormalization(synchronized=True).synchronized
half = BatchNormalization(dtype="mixed_bfloat16")
assert half(torch.tensor(images[0]).to(torch.bfloat16), training=True).dtype == torch.bfloat16
frozen = BatchNormalization(trainable=False)
frozen(torch.tensor(images[0]), training=True)
assert not frozen.moving_mean.numpy().any()
"""


@pytest.mark.slow
def test_batch_normalisation_in_torch_is_keras_own():
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    done = subprocess.run(
        [sys.executable, "-c", IN_TORCH], capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "torch"}, check=False
    )
    assert done.returncode == 0, done.stderr


ON_TWO_REPLICAS = """
import keras
import numpy as np
import tensorflow as tf

from kpose.models.layers import BatchNormalization

(processor,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
random = np.random.default_rng(0)
images, direction = random.normal(30, 2, (8, 4, 5, 6)).astype("float32"), random.normal(size=(8, 4, 5, 6)).astype("float32")
start = [random.uniform(0.5, 2, 6) for _ in range(4)]


def outputs_and_gradients(layer, images, direction):
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(tf.cast(outputs, tf.float32) * direction)
    return outputs, *tape.gradient(loss, [images, layer.gamma.value, layer.beta.value])


# Equal shares, unequal ones, and one that is empty; the last two in half precision.
for first, policy, tolerance in (
    (4, "float32", 1e-4), (7, "float32", 1e-4), (8, "float32", 1e-4), (4, "mixed_bfloat16", 0.02), (4, "mixed_float16", 0.01)
):
    one = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    one.build((None, 4, 5, 6))
    one.set_weights(start)
    rounded = tf.cast(tf.cast(images, keras.DTypePolicy(policy).compute_dtype), "float32")
    expected = outputs_and_gradients(one, rounded, tf.constant(direction))
    with strategy.scope():
        layer = BatchNormalization(synchronized=True, dtype=policy)
        layer.build((None, 4, 5, 6))
    layer.set_weights(start)

    def share(values):
        parts = (values[:first], values[first:])
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.cast(parts[context.replica_id_in_sync_group], layer.compute_dtype if values is images else "float32")
        )

    run = tf.function(lambda *shares: strategy.run(outputs_and_gradients, args=(layer, *shares)), autograph=False)
    found = [strategy.experimental_local_results(value) for value in run(share(images), share(direction))]
    joined = [np.concatenate([np.asarray(part, "float32") for part in parts]) for parts in found[:2]]
    joined += [sum(np.asarray(part, "float32") for part in parts) for parts in found[2:]]
    for value, other in zip(joined, expected, strict=True):
        assert np.abs(value - other).max() <= tolerance * max(1, np.abs(other).max()), (first, policy, np.abs(value - other).max())
    for value, other in zip(layer.weights, one.weights, strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-5)
"""


def test_synchronised_statistics_are_those_of_the_whole_batch():
    """Devices can be divided only in a process of its own."""
    done = subprocess.run([sys.executable, "-c", ON_TWO_REPLICAS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
