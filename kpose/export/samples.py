"""Crops to convert with: the ranges of int8 are found on them, and the file is compared with Keras."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from kpose.checkpoint import ModelCard
from kpose.config import Config
from kpose.data import Instances, evaluation_batches, training_data, training_instances
from kpose.data.crops import preparation_from_config
from kpose.data.synthetic.scene import compose_scene
from kpose.errors import KposeError
from kpose.export.runner import in_bytes


def sample_crops(config: Config, number: int = 128, seed: int = 0) -> np.ndarray:
    """Crops of people that a network was trained with, cut out as a user's are: upright, not augmented.

    Args:
        config: of the training: people, crop and box padding.
        number: of people, chosen by chance; all of them where there are fewer.
        seed: decides who.

    Returns:
        `(N, H, W, 3)` uint8 RGB.

    Raises:
        KposeError: when the configuration has no training people, or one cannot be read.
    """
    if number < 1:
        raise KposeError(f"the number of sample crops must be at least 1, found {number}")
    people = training_instances(config)
    return crops_of(people, config, number, seed)


def training_crops(config: Config, card: ModelCard) -> tf.data.Dataset:
    """Batches of crops `(B, H, W, 3)` float32 in 0..255, augmented as in the configuration's training; endless.

    Raises:
        KposeError: see `kpose.data.training_data`.
    """
    mean, std = np.asarray(card.mean, np.float32), np.asarray(card.std, np.float32)
    batches = training_data(config).dataset
    return batches.map(lambda image, *_: tf.clip_by_value((image * std + mean) * 255.0, 0.0, 255.0))


def crops_of(people: Instances, config: Config, number: int, seed: int = 0) -> np.ndarray:
    """Crops of some of these people, chosen by chance; see `sample_crops`."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(people))[:number])
    batches = evaluation_batches(people.select(chosen), in_bytes(preparation_from_config(config)), 32)
    return np.concatenate([np.rint(batch["image"]).astype(np.uint8) for batch in batches])


def drawn_crops(input_size: tuple[int, int], number: int = 8, seed: int = 0) -> np.ndarray:
    """Drawn people, `(N, H, W, 3)` uint8: enough to see whether a file says what Keras says, not to find ranges for int8."""
    rng = np.random.default_rng(seed)
    return np.stack([compose_scene(rng, *input_size, num_people=1).image for _ in range(number)])
