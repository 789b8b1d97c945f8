from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from kpose.checkpoint import ModelCard
from kpose.config import parse_config
from kpose.export import convert_tflite
from kpose.export.samples import drawn_crops
from kpose.models.convolutions import conv_norm, depthwise_conv_norm, heatmap_conv, normalise
from kpose.models.layers import DepthwiseConv2DTranspose
from kpose.models.mobilenet_v3 import squeeze_and_excite

SIZE = (64, 48)


def card_of(input_size: tuple[int, int] = SIZE, **settings) -> ModelCard:
    return ModelCard.from_config(parse_config({"model": {"input_size": list(input_size)}, **settings}), licence="of the test")


def give_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights as of a trained network: normalisation with statistics of its own, channels that differ, heatmaps of some height."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[-1]
        if name in ("moving_variance", "gamma"):
            weight.assign(rng.uniform(0.4, 1.6, weight.shape))
        elif name in ("moving_mean", "beta", "bias"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif len(weight.shape) == 4:
            depthwise = weight.shape[-1] == 1 or "depthwise" in weight.path
            weight.assign(rng.normal(0, 1.2 / np.sqrt(np.prod(weight.shape[: 2 if depthwise else 3])), weight.shape))
    return model


def tiny_network(padding: str = "symmetric") -> keras.Model:
    """One of everything that the lightweight network consists of."""
    images = keras.Input((*SIZE, 3), name="image")
    x = stem = conv_norm(images, 8, 3, 2, padding=padding, activation="hard_swish", name="stem")
    x = depthwise_conv_norm(x, 3, padding=padding, name="first_depthwise")
    x = conv_norm(x, 8, activation=None, name="first_project")
    x = keras.layers.Add(name="first_add")([stem, x])
    x = conv_norm(x, 24, activation="hard_swish", name="second_expand")
    x = depthwise_conv_norm(x, 5, 2, padding=padding, activation="hard_swish", name="second_depthwise")
    x = squeeze_and_excite(x, 6, "second_squeeze")
    x = conv_norm(x, 16, activation=None, name="second_project")
    x = conv_norm(x, 16, 3, 2, padding=padding, name="third")
    x = DepthwiseConv2DTranspose(name="head_upsample_conv")(x)
    x = normalise(x, "head_upsample", "relu")
    x = conv_norm(x, 16, use_bias=True, name="head_pointwise")
    return give_weights(keras.Model(images, heatmap_conv(x, 17), name="tiny"))


def keras_heatmaps(model: keras.Model, card: ModelCard, crops: np.ndarray) -> np.ndarray:
    """What the trained network says to crops in 0..255."""
    normalised = (crops.astype(np.float32) / 255 - np.array(card.mean, np.float32)) / np.array(card.std, np.float32)
    outputs = model(normalised, training=False)
    return np.asarray(outputs[-1] if isinstance(outputs, list) else outputs, np.float32)


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    return drawn_crops(SIZE, 12)


@pytest.fixture(scope="session")
def network() -> keras.Model:
    model = tiny_network()
    model.card = card_of()
    return model


@pytest.fixture(scope="session")
def files(network, crops, tmp_path_factory) -> dict[str, Path]:
    """The tiny network as TFLite, by precision."""
    folder = tmp_path_factory.mktemp("tflite")
    paths = {precision: folder / f"{precision}.tflite" for precision in ("fp32", "fp16", "int8")}
    for precision, path in paths.items():
        convert_tflite(network, path, precision, crops)
    return paths
