"""Images and person boxes in, poses out.

estimator = kpose.PoseEstimator.from_pretrained("runs/lite/best.keras")
for pose in estimator("photo.jpg", boxes=[[40, 20, 180, 400]])[0]:
    print(pose.score, pose.keypoints)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.checkpoint import ModelCard, load_model
from kpose.data.crops import Preparation, sample_crop
from kpose.errors import KposeError
from kpose.inference.images import read_image
from kpose.inference.scores import mean_joint_scores
from kpose.inference.test_time import Forward, compile_forward, decoded_size, predict_heatmaps

Image = np.ndarray | str | Path
Boxes = np.ndarray | Sequence[Sequence[float]]


@dataclass(frozen=True)
class Pose:
    """One person.

    Attributes:
        keypoints: `(K, 3)` float32 x, y in the image frame, and the score of each joint.
        score: of the person: the mean score of its joints above the estimator's threshold, 0 where there is none.
        box: `(4,)` float32 x, y, width, height: where the person was looked for.
    """

    keypoints: np.ndarray
    score: float
    box: np.ndarray


class PoseEstimator:
    """Finds the joints of people whose boxes are known.

    Args:
        model: from crops to heatmaps.
        card: what the network expects and means; by default the model's own, as `load_model` sets it.
        flip: average with the mirrored crop's answer: more exact, half as fast.
        batch_size: people that go through the network at once, at most.
        keypoint_threshold: joints with a greater score make up the person's score.
    """

    def __init__(
        self, model: keras.Model, card: ModelCard | None = None, *, flip: bool = True, batch_size: int = 32, keypoint_threshold: float = 0.2
    ) -> None:
        card = card or getattr(model, "card", None)
        if card is None:
            raise KposeError("this network has no card that says what it expects; load it with kpose.load_model, or give 'card'")
        if batch_size < 1:
            raise KposeError(f"batch_size must be at least 1, found {batch_size}")
        self.model = model
        self.card = card
        self.skeleton = card.make_skeleton()
        self.flip = flip
        self.batch_size = batch_size
        self.keypoint_threshold = keypoint_threshold
        self._preparation = Preparation(
            card.make_codec(decoded_size(model, self.skeleton, card.codec)), card.box_padding, card.mean, card.std
        )
        self._cut_out = _compile_crop(self._preparation)
        self._forwards: dict[int, Forward] = {}

    @classmethod
    def from_pretrained(cls, path: str | Path, **options: Any) -> PoseEstimator:
        """An estimator from a `.keras` checkpoint of kpose; `options` as in the class.

        Raises:
            KposeError: when the file is missing, damaged, or not one of kpose's.
        """
        return cls(load_model(path), **options)

    def __call__(self, images: Image | Sequence[Image], boxes: Boxes | Sequence[Boxes | None] | None = None) -> list[list[Pose]]:
        """The poses of all boxes.

        Args:
            images: one picture or several: uint8 RGB arrays `(H, W, 3)`, or paths of JPEG or PNG files (turned upright).
            boxes: for one picture `(n, 4)` x, y, width, height in the image frame; for several a list of those, one for each. None, as
                a whole or for a picture: the whole picture is one person's box.

        Returns:
            For each picture a list with one pose per box, in the order of the boxes.

        Raises:
            KposeError: when a picture or a box is refused.
        """
        single = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim != 4)
        pictures = [images] if single else list(images)  # type: ignore[arg-type]
        all_boxes = [boxes] if single else [None] * len(pictures) if boxes is None else list(boxes)
        if len(all_boxes) != len(pictures):
            raise KposeError(f"{len(pictures)} pictures but boxes for {len(all_boxes)}; give a list of boxes for each picture")
        crops, matrices, owners, checked = [], [], [], []
        for position, (picture, picture_boxes) in enumerate(zip(pictures, all_boxes, strict=True)):
            name = str(picture) if isinstance(picture, (str, Path)) else f"picture {position}"
            image = read_image(picture) if isinstance(picture, (str, Path)) else check_array(picture, name)
            picture_boxes = check_boxes(picture_boxes, image.shape[:2], name)
            for matrix in self._matrices(picture_boxes):
                crops.append(self._crop(image, matrix))
                matrices.append(matrix)
            owners += [position] * len(picture_boxes)
            checked.append(picture_boxes)
        poses: list[list[Pose]] = [[] for _ in pictures]
        if not crops:
            return poses
        keypoints = self._keypoints(np.stack(crops), np.stack(matrices))
        scores = mean_joint_scores(keypoints, self.keypoint_threshold)
        for owner, points, score, box in zip(owners, keypoints, scores, np.concatenate(checked), strict=True):
            poses[owner].append(Pose(points, float(score), box))
        return poses

    def _matrices(self, boxes: np.ndarray) -> np.ndarray:
        codec = self._preparation.codec
        centers, sizes = geometry.fit_box_to_aspect(boxes, codec.input_size, self._preparation.box_padding)
        return geometry.crop_matrix(centers, sizes, codec.input_size, alignment=codec.alignment)

    def _crop(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """The normalised crop; of the picture only the part that it shows is touched."""
        y, x, height, width = geometry.visible_region(matrix, self._preparation.codec.input_size, np.array(image.shape[:2]))
        moved = geometry.translate_source(matrix, np.array([x, y]))
        return self._cut_out(image[y : y + height, x : x + width], moved).numpy()

    def _keypoints(self, crops: np.ndarray, matrices: np.ndarray) -> np.ndarray:
        codec = self._preparation.codec
        found = []
        for start in range(0, len(crops), self.batch_size):
            part = slice(start, start + self.batch_size)
            heatmaps = predict_heatmaps(self._forward(len(crops[part])), crops[part], codec, self.skeleton, self.flip)
            to_image = geometry.invert_affine(matrices[part].astype(np.float64))
            found.append(geometry.transform_points(codec.decode(heatmaps), to_image))
        return np.concatenate(found).astype(np.float32)

    def _forward(self, people: int) -> Forward:
        """The network compiled for the next power of two: few compilations, and one person does not cost a whole batch."""
        size = min(self.batch_size, 1 << (people - 1).bit_length())
        if size not in self._forwards:
            self._forwards[size] = compile_forward(self.model, size)
        return self._forwards[size]


def check_array(image: Any, name: str) -> np.ndarray:
    """`image` if it is a uint8 RGB picture.

    Raises:
        KposeError: with the remedy, when it is not.
    """
    image = np.asarray(image)
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        raise KposeError(
            f"{name} is grey, of shape {image.shape}; repeat its channel: np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)"
        )
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise KposeError(f"{name} has shape {image.shape}; expected RGB of shape (height, width, 3)")
    if image.dtype != np.uint8:
        raise KposeError(
            f"{name} is of type {image.dtype}; expected uint8 RGB in 0..255 (of a picture in 0..1: (image * 255).astype('uint8'))"
        )
    return image


def check_boxes(boxes: Any, image_size: geometry.Size, name: str) -> np.ndarray:
    """Boxes `(n, 4)` float32; None becomes the whole picture.

    Raises:
        KposeError: when one is not finite, has no area or lies outside of the picture.
    """
    height, width = image_size
    if boxes is None:
        return np.array([[0, 0, width, height]], np.float32)
    values = box_array(boxes, name)
    for box in values:
        x, y, box_width, box_height = box.tolist()
        shown = f"box [{x:g}, {y:g}, {box_width:g}, {box_height:g}]"
        if not np.isfinite(box).all():
            raise KposeError(f"{name}: {shown} holds NaN or infinity")
        if box_width <= 0 or box_height <= 0:
            raise KposeError(f"{name}: {shown} has no area; a box is x, y, width, height")
        if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
            raise KposeError(f"{name}: {shown} lies outside of the picture of {width} x {height} pixels")
    return values


def box_array(boxes: Any, name: str) -> np.ndarray:
    """Lists of x, y, width, height as `(n, 4)` float32.

    Raises:
        KposeError: when they are anything else.
    """
    try:
        values = np.asarray(boxes, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise KposeError(f"{name}: boxes must be lists of four numbers x, y, width, height: {error}") from error
    if values.size == 0:
        return np.zeros((0, 4), np.float32)
    if values.ndim != 2 or values.shape[1] != 4:
        raise KposeError(f"{name}: boxes have shape {values.shape}; expected (n, 4), [[x, y, width, height], ...] of each person")
    return values


def _compile_crop(preparation: Preparation) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    signature = [tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((2, 3), tf.float32)]

    @tf.function(input_signature=signature, autograph=False)
    def cut_out(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        return preparation.normalise(sample_crop(image, matrix, preparation.codec.input_size))

    return cut_out
