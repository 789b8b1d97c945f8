from __future__ import annotations

import keras
import numpy as np
import pytest

from kpose.checkpoint import ModelCard
from kpose.config import parse_config
from kpose.inference import PoseEstimator


@pytest.fixture(scope="session")
def estimator() -> PoseEstimator:
    """An untrained network that is sure of all of its joints: their scores are heatmaps of about 0.5."""
    keras.utils.set_random_seed(5)
    images = keras.Input((64, 48, 3))
    heatmaps = keras.layers.Conv2D(17, 5, strides=4, padding="same", bias_initializer=keras.initializers.Constant(0.5))(images)
    card = ModelCard.from_config(parse_config({"model": {"input_size": [64, 48]}}))
    return PoseEstimator(keras.Model(images, heatmaps), card, batch_size=4)


@pytest.fixture(scope="session")
def photo(repository) -> np.ndarray:
    """A woman in an orange suit, `(144, 144, 3)` uint8 RGB; NASA, public domain."""
    content = (repository / "tflite" / "golden" / "astronaut.rgb").read_bytes()
    return np.frombuffer(content, np.uint8).reshape(144, 144, 3)
