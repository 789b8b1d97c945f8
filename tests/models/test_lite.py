"""The lightweight network: what it takes and returns, that it learns, and that a file brings it back."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from kpose.errors import KposeError
from kpose.losses import HeatmapWeightingLoss
from kpose.models import build_model, layers
from kpose.models.lite import ATTENTION, lite_mobilenet_v3

IMAGES = np.random.default_rng(2).normal(size=(4, 64, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def small():
    keras.utils.set_random_seed(7)
    return lite_mobilenet_v3(num_keypoints=5, input_size=(64, 32))


@pytest.fixture
def mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("backbone", ["openmmlab", "paper"])
def test_heatmaps_are_a_quarter_of_the_input_and_the_shape_is_static(attention, backbone):
    model = lite_mobilenet_v3(num_keypoints=5, input_size=(64, 32), attention=attention, backbone=backbone)
    assert model.input_shape == (None, 64, 32, 3)
    assert model.output_shape == (None, 16, 8, 5)
    assert all(None not in tensor.shape[1:] for layer in model.layers for tensor in [layer.output])


def test_output_is_float32(small):
    assert small(IMAGES).dtype == "float32"


def test_output_is_float32_under_mixed_precision(mixed_precision):
    model = lite_mobilenet_v3(num_keypoints=5, input_size=(64, 32))
    assert model.get_layer("last_conv").compute_dtype == "bfloat16"
    assert model.output.dtype == model(IMAGES[:1]).dtype == "float32"


def test_layer_names_are_stable():
    """Weight import and fine-tuning lean on them: none depends on how many networks were built before."""
    first, second = (lite_mobilenet_v3(input_size=(64, 32)) for _ in range(2))
    names = [layer.name for layer in first.layers]
    assert names == [layer.name for layer in second.layers]
    expected = {"image", "stem_conv", "block_0_expand_conv", "block_14_project_norm", "last_norm", "head_3_upsample_conv", "heatmaps"}
    assert expected <= set(names)


def test_weights_start_as_the_authors_do(small):
    def deviation(layer, weight="kernel"):
        return float(keras.ops.std(getattr(small.get_layer(layer), weight)))

    assert deviation("head_1_upsample_conv") == pytest.approx(0.001, rel=0.05)
    assert deviation("heatmaps") == pytest.approx(0.001, rel=0.1)
    assert deviation("last_conv") == pytest.approx((2 / 960) ** 0.5, rel=0.05)
    assert deviation("block_14_depthwise_conv") == pytest.approx((2 / (25 * 960)) ** 0.5, rel=0.05)
    assert {layer.epsilon for layer in small.layers if isinstance(layer, keras.layers.BatchNormalization)} == {1e-5}


def test_full_attention_is_equation_7(small):
    """x + channel(x) + spatial(x), written out with the layer's own weights."""
    for name in ("attention_3_channel_restore_conv", "attention_3_spatial_conv"):
        small.get_layer(name).bias.assign(keras.random.normal(small.get_layer(name).bias.shape, seed=1))
    part = keras.Model(small.input, [small.get_layer("head_3_pointwise_relu").output, small.get_layer("attention_3_scale").output])
    x, attended = (np.asarray(tensor, "float64") for tensor in part(IMAGES))

    def weights(name):
        kernel, bias = small.get_layer(f"attention_3_{name}").get_weights()
        return kernel, bias

    def gate(value):
        return np.clip(value / 6 + 0.5, 0, 1)

    (reduce, reduce_bias), (restore, restore_bias) = weights("channel_reduce_conv"), weights("channel_restore_conv")
    hidden = np.maximum(x.mean(axis=(1, 2)) @ reduce[0, 0] + reduce_bias, 0)
    channel = gate(hidden @ restore[0, 0] + restore_bias)[:, None, None]
    (point, point_bias), (kernel, kernel_bias) = weights("spatial_reduce_conv"), weights("spatial_conv")
    reduced = np.pad(np.maximum(x @ point[0, 0] + point_bias, 0), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    spatial = kernel_bias + sum(
        reduced[:, row : row + height, column : column + width] * kernel[row, column, 0] for row in range(3) for column in range(3)
    )
    np.testing.assert_allclose(attended, x + x * channel + x * gate(spatial), atol=1e-5)


def test_attention_without_a_step_is_no_attention():
    names = [layer.name for layer in lite_mobilenet_v3(input_size=(64, 32), attention_steps=(False, False, False)).layers]
    assert names == [layer.name for layer in lite_mobilenet_v3(input_size=(64, 32), attention="none").layers]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["full", "cbam"])
def test_learns(attention):
    keras.utils.set_random_seed(7)
    model = lite_mobilenet_v3(num_keypoints=5, input_size=(64, 32), attention=attention)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=HeatmapWeightingLoss())
    # Left to the first step, Keras traces that step twice.
    model.optimizer.build(model.trainable_variables)
    targets = np.random.default_rng(3).uniform(size=(4, 16, 8, 5)).astype("float32")
    losses = [model.train_on_batch(IMAGES, targets) for _ in range(8)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_step_down_the_gradient_lowers_the_loss_and_every_weight_has_one(small):
    """Run eagerly: tracing a step takes longer than running ten."""
    model = keras.models.clone_model(small)
    model.set_weights(small.get_weights())
    targets = np.random.default_rng(3).uniform(size=(4, 16, 8, 5)).astype("float32")
    loss = HeatmapWeightingLoss()
    optimizer = keras.optimizers.SGD(1e-3)
    values = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            values.append(loss(targets, model(IMAGES, training=True)))
        gradients = tape.gradient(values[-1], [weight.value for weight in model.trainable_weights])
        assert all(gradient is not None for gradient in gradients)
        optimizer.apply(gradients, model.trainable_weights)
    assert values[-1] < values[0]


@pytest.mark.parametrize("attention", ATTENTION)
def test_a_file_brings_it_back(attention, tmp_path):
    model = lite_mobilenet_v3(num_keypoints=5, input_size=(64, 32), attention=attention)
    model.save(tmp_path / "network.keras")
    copy = keras.models.load_model(tmp_path / "network.keras")
    assert isinstance(copy.get_layer("head_1_upsample_conv"), layers.DepthwiseConv2DTranspose)
    assert isinstance(copy.get_layer("stem_norm"), layers.BatchNormalization)
    np.testing.assert_array_equal(copy(IMAGES), model(IMAGES))


def test_neutral_forms_give_the_same_heatmaps(small, monkeypatch):
    fast = small(IMAGES).numpy()
    monkeypatch.setattr(layers, "tf", None)
    np.testing.assert_allclose(small(IMAGES).numpy(), fast, atol=1e-5 * np.abs(fast).max() + 1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_size": (250, 192)}, r"input_size is \(250, 192\), but must be .* multiple of 32"),
        ({"input_size": (0, 192)}, "input_size"),
        ({"input_size": 256}, "input_size is 256"),
        ({"input_size": (256.5, 192)}, "input_size"),
        ({"num_keypoints": 0}, "num_keypoints is 0, but must be an integer of 1 or more"),
        ({"num_keypoints": "17"}, "num_keypoints is '17'"),
        ({"attention": "fulll"}, "attention is 'fulll'.*did you mean 'full'"),
        ({"backbone": "openmlab"}, "did you mean 'openmmlab'"),
        ({"padding": "valid"}, "padding is 'valid', but must be one of symmetric, same"),
        ({"attention_steps": (True,)}, "attention_steps is .* three booleans"),
        ({"atention": "full"}, "has no option 'atention'; did you mean 'attention'"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(KposeError, match=message) as error:
        build_model("lite_mobilenet_v3", **options)
    assert "\n" not in str(error.value)
