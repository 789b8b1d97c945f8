"""A tiny dataset in the COCO layout: pictures of a bright dot at every joint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kpose.skeletons import Skeleton

CROSS = Skeleton(
    name="cross_5",
    joint_names=("top", "left_hand", "right_hand", "left_foot", "right_foot"),
    left_right_pairs=(("left_hand", "right_hand"), ("left_foot", "right_foot")),
    limbs=(("top", "left_hand"), ("top", "right_hand"), ("left_hand", "left_foot"), ("right_hand", "right_foot")),
    upper_body=("top", "left_hand", "right_hand"),
    lower_body=("left_foot", "right_foot"),
)
# Dots have the colour of their joint, so that a test can tell left from right in the crop.
COLOURS = ((255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def dotted_picture(keypoints: np.ndarray, height: int, width: int, radius: float = 4.0) -> np.ndarray:
    """A black picture with a soft disc at each joint."""
    y, x = np.mgrid[:height, :width]
    picture = np.zeros((height, width, 3))
    for (joint_x, joint_y, visibility), colour in zip(keypoints, COLOURS, strict=True):
        if visibility:
            disc = np.clip(radius + 0.5 - np.hypot(x - joint_x, y - joint_y), 0, 1)[..., None]
            picture = picture * (1 - disc) + disc * np.array(colour)
    return picture.round().astype(np.uint8)


@pytest.fixture
def cross() -> Skeleton:
    """A skeleton of five joints."""
    return CROSS


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Writes images and annotations, returns the paths of both; `change` may spoil the content of the JSON before it is written."""

    def make(
        images: int = 6, extension: str = "png", change: Callable[[dict[str, Any]], None] | None = None, name: str = "people"
    ) -> tuple[Path, Path]:
        folder = tmp_path / f"{name}_images"
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(7)
        content: dict[str, Any] = {
            "categories": [{"id": 1, "name": "person", "keypoints": list(CROSS.joint_names)}],
            "images": [],
            "annotations": [],
        }
        for number in range(1, images + 1):
            height, width = 150 + 3 * number, 140
            keypoints = np.array([[70, 30, 2], [100, 75, 2], [35, 70, 2], [95, 125, 2], [45, 128, 2]], np.float64)
            keypoints[:, :2] += random.uniform(-8, 8, (5, 2))
            file = f"{number:012d}.{extension}"
            options = [cv2.IMWRITE_JPEG_QUALITY, 95] if extension == "jpg" else []
            cv2.imwrite(str(folder / file), dotted_picture(keypoints, height, width)[..., ::-1], options)
            content["images"].append({"id": number, "file_name": file, "height": height, "width": width, "take": f"take_{number % 2}"})
            content["annotations"].append(
                {
                    "id": 100 + number,
                    "image_id": number,
                    "category_id": 1,
                    "bbox": [25.0, 15.0, 90.0, 125.0],
                    "area": 9000.0,
                    "iscrowd": 0,
                    "num_keypoints": 5,
                    "keypoints": keypoints.ravel().tolist(),
                }
            )
        if change:
            change(content)
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return path, folder

    return make
