"""A training loader in NumPy and OpenCV, one picture after the other, as the field's usual code has it: the yardstick of the pipeline.

What it does to a sample, and in what order, is what Sun et al. published with HRNet (CVPR 2019) and most code since does: read and decode
the whole picture, change red and blue, draw half body, scale, rotation and flip, mirror the whole picture where it is flipped, warp the
crop, move joint by joint, normalise, and make a Gaussian for each joint in a loop. Half body takes kpose's region, so that crops are alike.
Without augmentation its batches are those of `kpose.data.training_dataset` (`tests/benchmark/test_opencv_loader.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from kpose import geometry
from kpose.codecs import GaussianCodec
from kpose.config import AugmentationConfig
from kpose.data.crops import Preparation
from kpose.data.instances import Instances
from kpose.errors import KposeError

# The published code takes the upper body where a standard normal is below 0.5.
_UPPER_BODY_PROBABILITY = 0.6915


class OpenCVLoader:
    """Endless batches of people from picture files.

    Args:
        instances: whom to load, in an order drawn anew for each pass.
        preparation: crop, normalisation and codec: Gaussians with rounded centres and the classic alignment.
        augmentation: half body, scale, rotation and flip; the published code has no other change.
        batch_size: samples per batch.
        seed: of the order and the changes.

    Raises:
        KposeError: when another codec or alignment is asked for.
    """

    def __init__(
        self, instances: Instances, preparation: Preparation, augmentation: AugmentationConfig, batch_size: int, seed: int = 0
    ) -> None:
        codec = preparation.codec
        if not isinstance(codec, GaussianCodec) or codec.center != "rounded" or codec.alignment != "classic":
            raise KposeError("the OpenCV loader makes Gaussians with rounded centres and classic alignment; set codec.name=gaussian")
        self.instances = instances
        self.preparation = preparation
        self.codec = codec
        self.augmentation = augmentation
        self.batch_size = batch_size
        self._random = np.random.default_rng(seed)
        self._mean = np.asarray(preparation.mean, np.float32)
        self._std = np.asarray(preparation.std, np.float32)
        skeleton = instances.skeleton
        self._halves = [np.array([name in half for name in skeleton.joint_names]) for half in (skeleton.upper_body, skeleton.lower_body)]

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Batches of image `(B, H, W, 3)` float32 normalised, heatmaps `(B, h, w, K)` and weights `(B, K)`."""
        people: list[int] = []
        while True:
            while len(people) < self.batch_size:
                people += self._random.permutation(len(self.instances)).tolist()
            chosen, people = people[: self.batch_size], people[self.batch_size :]
            images, heatmaps, weights = zip(*map(self.sample, chosen), strict=True)
            yield np.stack(images), np.stack(heatmaps), np.stack(weights)

    def sample(self, person: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, heatmaps and weights of one person.

        Raises:
            KposeError: when the picture cannot be read.
        """
        file = self.instances.image_files[self.instances.image_index[person]]
        image = cv2.imread(file, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            raise KposeError(f"cannot read the picture {file}; replace it or leave it out")
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        keypoints = self.instances.keypoints[person].copy()
        center, size, rotation, mirrored = self._draw(self.instances.boxes[person], keypoints)
        if mirrored:
            image = image[:, ::-1]
            keypoints[:, 0] = image.shape[1] - 1 - keypoints[:, 0]
            keypoints = keypoints[self.instances.skeleton.flip_permutation]
            center = np.array([image.shape[1] - 1 - center[0], center[1]])
            rotation = -rotation
        height, width = self.codec.input_size
        matrix = _three_point_matrix(center, size, rotation, (height, width))
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        for joint in range(len(keypoints)):
            if keypoints[joint, 2] > 0:
                keypoints[joint, :2] = matrix @ np.array([keypoints[joint, 0], keypoints[joint, 1], 1.0])
        normalised = (crop.astype(np.float32) / 255.0 - self._mean) / self._std
        return normalised, *self._targets(keypoints)

    def _draw(self, box: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, bool]:
        """Centre, size, degrees and whether it is mirrored: where and how a person is cut out."""
        config, random = self.augmentation, self._random
        center, size = geometry.fit_box_to_aspect(box, self.codec.input_size, self.preparation.box_padding)
        if np.count_nonzero(keypoints[:, 2] > 0) > config.half_body_minimum_joints and random.random() < config.half_body_probability:
            center, size = self._half_body(keypoints, center, size)
        size = size * (1.0 + config.scale * np.clip(self._deviation(config.scale_distribution), -1.0, 1.0))
        rotation = 0.0
        if random.random() < config.rotation_probability:
            rotation = config.rotation_degrees * float(np.clip(self._deviation(config.rotation_distribution), -2.0, 2.0))
        return center, size, rotation, bool(random.random() < config.flip_probability)

    def _half_body(self, keypoints: np.ndarray, center: np.ndarray, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        upper, lower = ((keypoints[:, 2] > 0) & half for half in self._halves)
        take_upper = (self._random.random() < _UPPER_BODY_PROBABILITY and upper.sum() > 2) or lower.sum() <= 2
        chosen = keypoints[upper if take_upper else lower, :2]
        if len(chosen) < 2:
            return center, size
        first, last = chosen.min(axis=0), chosen.max(axis=0)
        if not (last > first).any():
            return center, size
        extent = np.concatenate([first, last - first])
        _, size = geometry.fit_box_to_aspect(extent, self.codec.input_size, self.augmentation.half_body_padding)
        return chosen.mean(axis=0), size

    def _deviation(self, distribution: str) -> float:
        return float(self._random.uniform(-1.0, 1.0) if distribution == "uniform" else self._random.standard_normal())

    def _targets(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A Gaussian for each joint, `(h, w, K)`, and weights `(K,)`."""
        height, width = self.codec.heatmap_size
        stride = np.array([self.codec.input_size[1] / width, self.codec.input_size[0] / height])
        heatmaps = np.zeros((len(keypoints), height, width), np.float32)
        weights = (keypoints[:, 2] > 0).astype(np.float32)
        reach = round(3 * self.codec.sigma)
        for joint in range(len(keypoints)):
            x, y = (int(value) for value in keypoints[joint, :2] / stride + 0.5)
            left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
            if left >= width or top >= height or right <= 0 or bottom <= 0:
                weights[joint] = 0.0
                continue
            if not weights[joint]:
                continue
            across = np.arange(2 * reach + 1, dtype=np.float32)
            patch = np.exp(-((across - reach) ** 2 + (across[:, None] - reach) ** 2) / (2 * self.codec.sigma**2))
            rows, columns = slice(max(0, top), min(bottom, height)), slice(max(0, left), min(right, width))
            heatmaps[joint, rows, columns] = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        return heatmaps.transpose(1, 2, 0), weights


def _three_point_matrix(center: np.ndarray, size: np.ndarray, degrees: float, crop_size: geometry.Size) -> np.ndarray:
    """`(2, 3)` from image to crop: the centre, the middle of the upper edge, and the corner that makes a right angle with them."""
    height, width = crop_size
    angle = np.deg2rad(degrees)
    up = np.array([np.sin(angle), -np.cos(angle)]) * size[0] / 2
    source = np.stack([center, center + up, center + up + np.array([up[1], -up[0]])]).astype(np.float32)
    middle, edge = np.array([width / 2, height / 2]), np.array([0.0, -width / 2])
    target = np.stack([middle, middle + edge, middle + edge + np.array([edge[1], -edge[0]])]).astype(np.float32)
    return cv2.getAffineTransform(source, target)
