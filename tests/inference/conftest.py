from __future__ import annotations

import keras
import pytest

from kpose.checkpoint import ModelCard
from kpose.config import parse_config
from kpose.inference import PoseEstimator


def tiny_estimator(input_size: tuple[int, int] = (64, 48), alignment: str = "classic", **options) -> PoseEstimator:
    """An untrained estimator whose heatmaps depend on the picture."""
    keras.utils.set_random_seed(5)
    images = keras.Input((*input_size, 3))
    model = keras.Model(images, keras.layers.Conv2D(17, 5, strides=4, padding="same")(images))
    card = ModelCard.from_config(parse_config({"model": {"input_size": list(input_size)}, "codec": {"alignment": alignment}}))
    return PoseEstimator(model, card, **options)


@pytest.fixture(scope="session")
def estimator() -> PoseEstimator:
    return tiny_estimator(batch_size=4)
