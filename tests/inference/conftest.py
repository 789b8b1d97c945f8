from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest

from kpose import geometry
from kpose.checkpoint import ModelCard
from kpose.config import parse_config
from kpose.data import Preparation
from kpose.inference import PoseEstimator
from kpose.skeletons import COCO_17


def tiny_network(input_size: tuple[int, int] = (64, 48), seed: int = 5, joints: int = 17) -> keras.Model:
    """An untrained network whose heatmaps depend on the picture."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((*input_size, 3))
    return keras.Model(images, keras.layers.Conv2D(joints, 5, strides=4, padding="same")(images))


def card_of(input_size: tuple[int, int] = (64, 48), alignment: str = "classic", codec: dict | None = None, **settings) -> ModelCard:
    codec = {"alignment": alignment} | (codec or {})
    return ModelCard.from_config(parse_config({"model": {"input_size": list(input_size)}, "codec": codec, **settings}))


def tiny_estimator(input_size: tuple[int, int] = (64, 48), alignment: str = "classic", **options) -> PoseEstimator:
    return PoseEstimator(tiny_network(input_size), card_of(input_size, alignment), **options)


@pytest.fixture(scope="session")
def estimator() -> PoseEstimator:
    return tiny_estimator(batch_size=4)


def map_picture(height: int = 200, width: int = 240) -> np.ndarray:
    """A uint8 picture each pixel of which tells where it is: red is x, green is y, blue is full."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x, y, np.full_like(x, 255)], axis=-1).astype(np.uint8)


def oracle(preparation: Preparation, joints: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A network that is always right about a person in `map_picture`, whatever crop of it it is shown.

    It reads off the colours which part of the picture it sees, at which size, how it is turned and whether it is mirrored, and answers with
    the codec's own maps of the joints. Nobody tells it: a test that asks for one thing, takes the answer for that of another and still
    gets the joints cannot exist.

    Args:
        preparation: of the crops it is shown.
        joints: `(17, 2)` x, y in the picture.
    """
    height, width = preparation.codec.input_size
    x, y = np.meshgrid(np.arange(0, width, 3), np.arange(0, height, 3))
    grid = np.stack([x, y, np.ones_like(x)], axis=-1).reshape(-1, 3)

    def forward(images: np.ndarray) -> np.ndarray:
        seen = []
        for image in images:
            colours = ((image[::3, ::3] * np.array(preparation.std) + np.array(preparation.mean)) * 255).reshape(-1, 3)
            inside = colours[:, 2] > 254.9
            to_picture = np.linalg.lstsq(grid[inside], colours[inside, :2], rcond=None)[0].T
            mirrored = np.linalg.det(to_picture[:, :2]) < 0
            shown = joints[COCO_17.flip_permutation] if mirrored else joints
            points = geometry.transform_points(shown, geometry.invert_affine(to_picture))
            seen.append(np.concatenate([points, np.full((len(points), 1), 2.0)], axis=-1))
        return np.asarray(preparation.codec.encode(np.stack(seen).astype(np.float32))[0])

    return forward
