"""A training that takes seconds, with all that a resumed one must bring back: batch normalisation, dropout, augmentation, a schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpose.config import Config, parse_config


def tiny_network(name: str, num_keypoints: int, input_size: tuple[int, int], **options: Any) -> keras.Model:
    """Stands for a real network, which takes half a minute to compile."""
    inputs = keras.Input((*input_size, 3))
    x = keras.layers.Conv2D(8, 3, strides=4, padding="same", activation="relu")(inputs)
    if options.get("norm", True):
        x = keras.layers.BatchNormalization()(x)
    if options.get("dropout", True):
        x = keras.layers.Dropout(0.2)(x)
    return keras.Model(inputs, keras.layers.Conv2D(num_keypoints, 1, dtype="float32")(x), name=name)


def tiny_config(people: Path, output: Path, *, options: dict[str, Any] | None = None, **sections: Any) -> Config:
    """Three epochs of three steps of four people, scored after the second and the last; `sections` are merged in, key by key."""
    values: dict[str, Any] = {
        "model": {"input_size": [64, 64], "options": options or {}},
        "data": {
            "train": [{"annotations": f"{people}/annotations/person_keypoints_train2017.json", "images": f"{people}/train2017"}],
            "validation": {"annotations": f"{people}/annotations/person_keypoints_val2017.json", "images": f"{people}/val2017"},
        },
        "training": {
            "epochs": 3,
            "batch_size": 4,
            "steps_per_epoch": 3,
            "learning_rate": 1e-2,
            "warmup_steps": 4,
            "drop_epochs": [2],
            "validate_every": 2,
            "save_every_minutes": 0,
        },
        "output": str(output),
        "seed": 5,
    }
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return parse_config(values)


def assert_equal_weights(model: keras.Model, other: keras.Model, tolerance: float = 0.0) -> None:
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)
