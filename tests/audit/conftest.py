"""People whose faults a test knows, because it made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kpose.data.instances import Instances
from kpose.skeletons import LSP_14, Skeleton

# A body seen from the front: x of its left joints, y of both, in units of the torso. The left is on the right of the picture.
FRONT = {
    "head_top": (0.0, -0.75),
    "neck": (0.0, -0.1),
    "shoulder": (0.38, 0.0),
    "elbow": (0.55, 0.5),
    "wrist": (0.6, 1.0),
    "hip": (0.22, 1.0),
    "knee": (0.25, 1.9),
    "ankle": (0.28, 2.8),
}


def bodies(count: int, seed: int = 0, back: float = 0.3) -> np.ndarray:
    """`(count, 14, 3)` keypoints of LSP-14: people of all sizes, leaning, seen from the front or (a share of `back`) from behind."""
    random = np.random.default_rng(seed)
    joints = np.zeros((count, LSP_14.num_joints), complex)
    facing = np.where(random.random(count) < back, -1.0, 1.0)
    for joint, name in enumerate(LSP_14.joint_names):
        side = 1 if name.startswith("left_") else -1
        x, y = FRONT[name.removeprefix("left_").removeprefix("right_")]
        joints[:, joint] = side * x * facing + 1j * y
    wide = {"elbow": 0.12, "wrist": 0.2, "knee": 0.1, "ankle": 0.15}
    spread = np.array([wide.get(name.split("_")[-1], 0.04) for name in LSP_14.joint_names])
    joints += spread * (random.normal(size=joints.shape) + 1j * random.normal(size=joints.shape))
    joints *= (random.uniform(40, 120, count) * np.exp(1j * random.normal(0, 0.3, count)))[:, None]
    joints += (400 + 400j) + random.uniform(-50, 50, (count, 1))
    return np.stack([joints.real, joints.imag, np.full(joints.shape, 2.0)], axis=-1)


def exchanged(keypoints: np.ndarray, skeleton: Skeleton, *pairs: str) -> np.ndarray:
    """Left and right of the named pairs, or of all, have changed places."""
    result = keypoints.copy()
    for left, right in skeleton.left_right_pairs:
        if not pairs or left.removeprefix("left_") in pairs:
            a, b = skeleton.index(left), skeleton.index(right)
            result[..., [a, b], :] = result[..., [b, a], :]
    return result


@pytest.fixture
def make_people() -> Callable[..., Instances]:
    """Instances of keypoints, one person a picture unless `image_index` says otherwise; boxes are the tight ones."""

    def make(
        keypoints: np.ndarray, image_index: np.ndarray | None = None, files: tuple[str, ...] | None = None, skeleton: Skeleton = LSP_14
    ) -> Instances:
        count = len(keypoints)
        image_index = np.arange(count) if image_index is None else np.asarray(image_index)
        images = int(image_index.max()) + 1
        low, high = keypoints[..., :2].min(axis=1), keypoints[..., :2].max(axis=1)
        boxes = np.concatenate([low, high - low], axis=1).astype(np.float32)
        return Instances(
            skeleton=skeleton,
            image_files=files or tuple(f"missing/{number}.png" for number in range(images)),
            image_ids=np.arange(images, dtype=np.int64) + 1,
            image_sizes=np.full((images, 2), 800, np.int32),
            image_index=image_index.astype(np.int32),
            ids=np.arange(count, dtype=np.int64) + 1000,
            boxes=boxes,
            keypoints=keypoints.astype(np.float32),
            areas=boxes[:, 2] * boxes[:, 3],
            box_scores=np.ones(count, np.float32),
            annotation_file=Path("people.json"),
        )

    return make
