from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.errors import KposeError
from kpose.export.inference_network import equalising_scales, inference_network
from kpose.export.samples import drawn_crops
from kpose.models import build_model, list_models
from kpose.models.layers import BatchNormalization, DepthwiseConv2DTranspose
from tests.export.conftest import SIZE, card_of, give_weights, keras_heatmaps, tiny_network

# Float32 sums in another order: of the range of the heatmaps.
TOLERANCE = 1e-5


def answers(network: keras.Model, crops: np.ndarray) -> np.ndarray:
    return np.concatenate([np.asarray(network(crop[None].astype(np.float32), training=False)) for crop in crops])


def difference(model: keras.Model, exported: keras.Model, crops: np.ndarray, card) -> float:
    expected = keras_heatmaps(model, card, crops)
    assert np.ptp(expected) > 0.1
    return np.abs(answers(exported, crops) - expected).max() / np.ptp(expected)


@pytest.mark.parametrize("padding", ["symmetric", "same"])
@pytest.mark.parametrize("equalised", [False, True], ids=["plain", "equalised"])
def test_says_what_the_trained_network_says(crops, padding, equalised):
    """Also at the border, where the first convolution pads with the mean colour, not with black."""
    model, card = tiny_network(padding), card_of(data={"mean": [0.2, 0.5, 0.7], "std": [0.3, 0.1, 0.2]})
    exported = inference_network(model, card)
    if equalised:
        scales = equalising_scales(exported, crops)
        assert max(scale.max() for scale in scales.values()) > 1.5
        exported = inference_network(model, card, scales)
    assert difference(model, exported, crops[:4], card) < TOLERANCE
    assert exported.input_shape == (1, *SIZE, 3)


def test_any_equalisation_leaves_the_function_as_it_is(network, crops):
    plain = inference_network(network, network.card)
    random = np.random.default_rng(1)
    scales = {name: random.uniform(0.1, 20, scale.shape) for name, scale in equalising_scales(plain, crops[:1]).items()}
    # Of the four phases of an upsampled channel the least factor counts.
    assert len(scales["head_upsample_relu"]) == 4 * 16
    assert difference(network, inference_network(network, network.card, scales), crops[:3], network.card) < TOLERANCE


def test_equalisation_brings_channels_closer(network, crops):
    plain = inference_network(network, network.card)
    scales = equalising_scales(plain, crops)
    balanced = inference_network(network, network.card, scales)

    def ratio(exported: keras.Model, name: str) -> float:
        outputs = keras.Model(exported.input, exported.get_layer(name).output)
        peaks = np.maximum(answers(outputs, crops), 0).max(axis=(0, 1, 2))
        return peaks.max() / np.median(peaks)

    assert ratio(balanced, "first_depthwise_relu") < 0.8 * ratio(plain, "first_depthwise_relu")


def test_nothing_is_left_that_tflite_has_not(network):
    exported = inference_network(network, network.card)
    kinds = {type(layer) for layer in exported.layers}
    assert not kinds & {BatchNormalization, keras.layers.BatchNormalization, DepthwiseConv2DTranspose}
    # Named as the layers whose output they give.
    assert {"stem_norm", "second_depthwise_norm", "head_upsample_norm", "heatmaps"} <= {layer.name for layer in exported.layers}


def test_layers_that_stand_otherwise(crops):
    """Normalisation without a convolution; a convolution that is also used unnormalised; a layer used twice; a dense upsampling."""
    images = keras.Input((*SIZE, 3))
    x = conv = keras.layers.Conv2D(6, 3, strides=4, padding="same", name="conv")(images)
    x = BatchNormalization(name="conv_norm")(x)
    x = keras.layers.Add(name="sum")([conv, keras.layers.ReLU(name="conv_relu")(x)])
    x = BatchNormalization(scale=False, name="alone_norm")(x)
    x = keras.layers.ReLU(name="alone_relu")(x)
    shared, relu = keras.layers.Conv2D(6, 1, name="shared"), keras.layers.ReLU(name="shared_relu")
    x = keras.layers.Add(name="twice")([relu(shared(x)), relu(shared(keras.layers.MaxPooling2D(3, 1, padding="same", name="pool")(x)))])
    x = keras.layers.Conv2DTranspose(7, 4, 2, padding="same", use_bias=False, name="up_conv")(x)
    x = keras.layers.ReLU(name="up_relu")(BatchNormalization(center=False, name="up_norm")(x))
    x = keras.layers.UpSampling2D(2, interpolation="bilinear", name="larger")(keras.layers.AveragePooling2D(2, name="smaller")(x))
    model, card = give_weights(keras.Model(images, keras.layers.Conv2D(17, 3, strides=2, padding="same", name="heatmaps")(x))), card_of()
    exported = inference_network(model, card)
    assert difference(model, exported, crops[:3], card) < TOLERANCE
    assert difference(model, inference_network(model, card, equalising_scales(exported, crops)), crops[:3], card) < TOLERANCE


def test_of_several_stages_the_last_is_left(crops):
    images = keras.Input((*SIZE, 3))
    first = keras.layers.Conv2D(17, 3, strides=4, padding="same", name="stage_1")(images)
    last = keras.layers.Conv2D(17, 1, name="stage_2")(keras.layers.ReLU(name="relu")(first))
    model, card = give_weights(keras.Model(images, [first, last])), card_of()
    exported = inference_network(model, card)
    assert len(exported.outputs) == 1
    assert difference(model, exported, crops[:2], card) < TOLERANCE


def test_computes_in_float32_whatever_the_training_did(crops):
    trained = tiny_network()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = tiny_network()
    finally:
        keras.config.set_dtype_policy("float32")
    model.set_weights(trained.get_weights())
    exported = inference_network(model, card_of())
    assert {layer.compute_dtype for layer in exported.layers} == {"float32"}
    assert difference(trained, exported, crops[:2], card_of()) < TOLERANCE


def test_networks_that_cannot_be_exported_are_refused():
    with pytest.raises(KposeError, match="'open' cannot be exported: expected a functional Keras model of one input of a fixed size"):
        inference_network(keras.Model((images := keras.Input((None, None, 3))), keras.layers.Conv2D(17, 1)(images), name="open"), card_of())
    model = tiny_network()
    kernel = model.get_layer("third_conv").kernel
    kernel.assign(np.where(np.arange(kernel.shape[-1]) == 3, np.nan, np.asarray(kernel)))
    with pytest.raises(KposeError, match=r"weight third_conv/kernel holds NaN or infinity"):
        inference_network(model, card_of())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [{}, {"backbone": "paper", "padding": "same"}], ids=["openmmlab", "paper"])
@pytest.mark.parametrize("attention", ["full", "se", "cbam", "none"])
def test_the_lightweight_network(attention, backbone):
    model, card = give_weights(build_model("lite_mobilenet_v3", 17, (64, 64), attention=attention, **backbone)), card_of((64, 64))
    crops = drawn_crops((64, 64), 3)
    exported = inference_network(model, card)
    equalised = inference_network(model, card, equalising_scales(exported, crops))
    # In single precision alone, and with random weights, rounding grows from layer to layer: measured against a change of the input of half
    # a hundredth grey level.
    nudged = keras_heatmaps(model, card, crops + 0.005)
    expected = keras_heatmaps(model, card, crops)
    limit = max(TOLERANCE, np.abs(nudged - expected).max() / np.ptp(expected))
    assert difference(model, exported, crops, card) < limit
    assert difference(model, equalised, crops, card) < limit


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if name != "lite_mobilenet_v3"])
def test_all_other_networks(name):
    model, card = give_weights(build_model(name, 17, (64, 64))), card_of((64, 64))
    crops = drawn_crops((64, 64), 1)
    expected = keras_heatmaps(model, card, crops)
    nudged = keras_heatmaps(model, card, crops + 0.005)
    limit = max(TOLERANCE, np.abs(nudged - expected).max() / np.ptp(expected))
    assert difference(model, inference_network(model, card), crops, card) < limit
