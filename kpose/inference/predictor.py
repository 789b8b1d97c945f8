"""Images and person boxes in, poses out.

estimator = kpose.PoseEstimator.from_pretrained("lite_mobilenet_v3_256x192")
for pose in estimator("photo.jpg", boxes=[[40, 20, 180, 400]])[0]:
    print(pose.score, pose.keypoints)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kpose import geometry
from kpose.checkpoint import ModelCard, load_model, read_card
from kpose.data.crops import Preparation, sample_crop
from kpose.errors import KposeError
from kpose.inference.detector import Detector
from kpose.inference.images import read_image
from kpose.inference.listed_detections import ListedDetections
from kpose.inference.refinement import Refinement
from kpose.inference.scores import mean_joint_scores
from kpose.inference.suppression import oks_nms
from kpose.inference.test_time import Forward, Member, PoseTest, common_skeleton, compile_forward, preparation_from_card
from kpose.skeletons import Skeleton

Image = np.ndarray | str | Path
Boxes = np.ndarray | Sequence[Sequence[float]]
_REFINEMENT = Refinement()


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

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers, rounded: a person of `predictions.json`."""
        keypoints, box = self.keypoints.astype(np.float64), self.box.astype(np.float64)
        return {"keypoints": np.round(keypoints, 3).tolist(), "score": round(self.score, 6), "box": np.round(box, 3).tolist()}


class PoseEstimator:
    """Finds the joints of people whose boxes are known, of those whom a detector finds, or of the one person in a picture.

    Args:
        models: from crops to heatmaps: one network or, to average their answers, several.
        cards: what each network expects and means; by default their own, as `load_model` sets them.
        flip: average with the mirrored crop's answer: more exact, half as fast.
        shift_heatmap: move that by a pixel where the codec's alignment is classic, as published.
        rotations: degrees by which a person's region is turned; the answers to all are averaged, see `PoseTest`.
        scales: factors on the region's size; every rotation at every scale.
        ensemble: what the answers of several networks are averaged as.
        batch_size: crops that go through a network at once, at most.
        keypoint_threshold: joints with a greater score make up the person's score.
        refinement: how the box of a picture that comes without any is found; None: the whole picture is the box.
        detector: finds the people of pictures that come without boxes, instead of `refinement`; see `kpose.inference.detector_files`.
        largest_number: of people that the detector may find in a picture; the surest ones stay.
        suppression_threshold: of two detected people whose poses are more similar (OKS) the less sure one is dropped.

    Raises:
        KposeError: when a network has no card, the networks have different joints, or see `PoseTest`.
    """

    def __init__(
        self,
        models: keras.Model | Sequence[keras.Model],
        cards: ModelCard | Sequence[ModelCard] | None = None,
        *,
        flip: bool = True,
        shift_heatmap: bool = True,
        rotations: Sequence[float] = (0.0,),
        scales: Sequence[float] = (1.0,),
        ensemble: Literal["positions", "heatmaps"] = "positions",
        batch_size: int = 32,
        keypoint_threshold: float = 0.2,
        refinement: Refinement | None = _REFINEMENT,
        detector: Detector | ListedDetections | None = None,
        largest_number: int = 100,
        suppression_threshold: float = 0.9,
    ) -> None:
        for name, number in (("batch_size", batch_size), ("largest_number", largest_number)):
            if number < 1:
                raise KposeError(f"{name} must be at least 1, found {number}")
        self.models = (models,) if isinstance(models, (keras.Model, str, Path)) else tuple(models)
        self.cards = (cards,) if isinstance(cards, ModelCard) else tuple(cards or map(_card_of, self.models))
        if len(self.cards) != len(self.models):
            raise KposeError(f"{len(self.models)} networks but {len(self.cards)} cards; give one for each")
        skeleton = common_skeleton(self.cards, [model.name for model in self.models])
        members = [self._member(model, card, skeleton, batch_size) for model, card in zip(self.models, self.cards, strict=True)]
        self.test = PoseTest(tuple(members), skeleton, flip, shift_heatmap, tuple(rotations), tuple(scales), ensemble)
        self.skeleton = skeleton
        self.batch_size = batch_size
        self.keypoint_threshold = keypoint_threshold
        self.refinement = refinement if detector is None else None
        self.detector = detector
        self.largest_number = largest_number
        self.suppression_threshold = suppression_threshold
        self._cut_out = {preparation: _compile_crop(preparation) for preparation in self.test.preparations}

    @staticmethod
    def _member(model: Any, card: ModelCard, skeleton: Skeleton, batch_size: int) -> Member:
        """A network as it is asked; `kpose.export.TFLiteRunner` has another answer."""
        return Member(_compile_as_needed(model, batch_size), preparation_from_card(model, card, skeleton))

    @classmethod
    def from_pretrained(cls, sources: str | Path | Sequence[str | Path], **options: Any) -> PoseEstimator:
        """An estimator from a trained network, or an ensemble from several.

        Args:
            sources: a `.keras` checkpoint of kpose or the name of a network that comes with kpose, see `kpose.list_pretrained`; or several.
            **options: as in the class.

        Raises:
            KposeError: when there is no such network, a file is damaged or not one of kpose's; or see the class.
        """
        files = [sources] if isinstance(sources, (str, Path)) else list(sources)
        # Before any weights are read.
        common_skeleton([read_card(file) for file in files], files)
        return cls([load_model(file) for file in files], **options)

    def __call__(
        self,
        images: Image | Sequence[Image],
        boxes: Boxes | Sequence[Boxes | None] | None = None,
        names: Sequence[str] | None = None,
    ) -> list[list[Pose]]:
        """The poses of all boxes.

        Args:
            images: one picture or several: uint8 RGB arrays `(H, W, 3)`, or paths of JPEG or PNG files (turned upright).
            boxes: for one picture `(n, 4)` x, y, width, height in the image frame; for several a list of those, one for each. None, as
                a whole or for a picture: the detector finds the people, or it shows one person, whose box is found by `refinement`.
            names: what the pictures are called, in messages and in listed detections; by default as their files.

        Returns:
            For each picture a list with one pose per box, in the order of the boxes. Where there were none: of a detector's people the
            surest first, perhaps nobody, with the product of box and joints as score; without a detector a single pose.

        Raises:
            KposeError: when a picture or a box is refused.
        """
        single = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim != 4)
        pictures: list[Any] = [images] if single else list(images)  # type: ignore[arg-type]
        all_boxes = [boxes] if single else [None] * len(pictures) if boxes is None else list(boxes)
        if len(all_boxes) != len(pictures):
            raise KposeError(f"{len(pictures)} pictures but boxes for {len(all_boxes)}; give a list of boxes for each picture")
        if names is not None and len(names) != len(pictures):
            raise KposeError(f"{len(pictures)} pictures but {len(names)} names; give a name for each picture")
        called = [_name(picture, position) for position, picture in enumerate(pictures)] if names is None else list(names)
        poses = self._poses(pictures, all_boxes, called)
        if self.refinement is not None:
            alone = [position for position, given in enumerate(all_boxes) if given is None]

            def look(chosen: list[int], boxes: list[np.ndarray]) -> list[Pose]:
                numbers = [alone[position] for position in chosen]
                found = self._poses([pictures[one] for one in numbers], [box[None] for box in boxes], [called[one] for one in numbers])
                return [pose for (pose,) in found]

            for position, pose in zip(alone, self.refinement.refine([poses[position][0] for position in alone], look), strict=True):
                poses[position] = [pose]
        if self.detector is not None:
            for position, given in enumerate(all_boxes):
                if given is None:
                    poses[position] = self.without_doubles(poses[position])
        return poses

    def without_doubles(self, poses: list[Pose]) -> list[Pose]:
        """Poses of one picture, the surest first, without those that are a surer one's again (OKS above `suppression_threshold`)."""
        if not poses or self.skeleton.oks_sigmas is None:
            return sorted(poses, key=lambda pose: -pose.score)
        keypoints, scores = np.stack([pose.keypoints for pose in poses]), np.array([pose.score for pose in poses])
        areas = np.array([np.prod(pose.box[2:], dtype=np.float64) for pose in poses])
        kept = oks_nms(keypoints, scores, areas, np.asarray(self.skeleton.oks_sigmas), self.suppression_threshold)
        return [poses[position] for position in kept]

    def _poses(self, pictures: Sequence[Image], boxes: Sequence[Any], names: Sequence[str]) -> list[list[Pose]]:
        """The poses of the boxes of each picture, without refinement."""
        poses: list[list[Pose]] = [[] for _ in pictures]
        people = self._people(pictures, boxes, names)
        while batch := list(itertools.islice(people, self.test.people_at_once(self.batch_size))):
            crops = [np.concatenate(kind) for kind in zip(*(person.crops for person in batch), strict=True)]
            matrices = [np.concatenate(kind) for kind in zip(*(person.matrices for person in batch), strict=True)]
            keypoints = self.test.keypoints(crops, matrices).astype(np.float32)
            scores = mean_joint_scores(keypoints, self.keypoint_threshold)
            for person, points, score in zip(batch, keypoints, scores, strict=True):
                poses[person.picture].append(Pose(points, float(score) * person.box_score, person.box))
        return poses

    def _people(self, pictures: Sequence[Image], boxes: Sequence[Any], names: Sequence[str]) -> Iterator[_Person]:
        """Everybody in turn: of the pictures no more than one is held."""
        for position, (picture, picture_boxes, name) in enumerate(zip(pictures, boxes, names, strict=True)):
            image = read_image(picture) if isinstance(picture, (str, Path)) else check_array(picture, name)
            box_scores: Any = itertools.repeat(1.0)
            if picture_boxes is None and self.detector is not None:
                picture_boxes, box_scores = self._detected(image, name)
            checked = check_boxes(picture_boxes, image.shape[:2], name)
            kinds = [preparation.views(checked, self.test.rotations, self.test.scales) for preparation in self.test.preparations]
            for box, box_score, matrices in zip(checked, box_scores, zip(*kinds, strict=True), strict=False):
                crops = [self._crops(image, *kind) for kind in zip(matrices, self.test.preparations, strict=True)]
                yield _Person(position, box, float(box_score), crops, list(matrices))

    def _detected(self, image: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Boxes of the detector and their scores, the surest first."""
        assert self.detector is not None
        detector = self.detector
        detected = detector.of(name, image.shape[:2]) if isinstance(detector, ListedDetections) else detector(image)
        boxes, scores = (np.asarray(found, np.float32) for found in detected)
        order = np.argsort(-scores, kind="stable")[: self.largest_number]
        return boxes.reshape(-1, 4)[order], scores[order]

    def _crops(self, image: np.ndarray, matrices: np.ndarray, preparation: Preparation) -> np.ndarray:
        """The normalised crops `(V, H, W, 3)`; of the picture only the part that each shows is touched."""
        crops = []
        for matrix in matrices:
            y, x, height, width = geometry.visible_region(matrix, preparation.codec.input_size, np.array(image.shape[:2]))
            moved = geometry.translate_source(matrix, np.array([x, y]))
            crops.append(self._cut_out[preparation](image[y : y + height, x : x + width], moved).numpy())
        return np.stack(crops)


@dataclass(frozen=True)
class _Person:
    """A person on the way to the networks: number of the picture, box and its score, and for each kind of crop those of all views."""

    picture: int
    box: np.ndarray
    box_score: float
    crops: list[np.ndarray]
    matrices: list[np.ndarray]


def _name(picture: Image, position: int) -> str:
    return str(picture) if isinstance(picture, (str, Path)) else f"picture {position}"


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


def _card_of(model: keras.Model) -> ModelCard:
    if isinstance(model, (str, Path)):
        raise KposeError(
            f"expected a network, found {str(model)!r}; read a checkpoint by kpose.load_model, or take a name's by from_pretrained"
        )
    card = getattr(model, "card", None)
    if card is None:
        raise KposeError(f"network {model.name!r} has no card that says what it expects; load it with kpose.load_model, or give 'cards'")
    return card


def _compile_as_needed(model: keras.Model, largest: int) -> Forward:
    """The network compiled for the next power of two: few compilations, and one person does not cost a whole batch."""
    compiled: dict[int, Forward] = {}

    def forward(images: np.ndarray) -> np.ndarray:
        size = min(largest, 1 << (len(images) - 1).bit_length())
        if size not in compiled:
            compiled[size] = compile_forward(model, size)
        return compiled[size](images)

    return forward


def _compile_crop(preparation: Preparation) -> Callable[[np.ndarray, np.ndarray], tf.Tensor]:
    signature = [tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((2, 3), tf.float32)]

    @tf.function(input_signature=signature, autograph=False)
    def cut_out(image: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
        return preparation.normalise(sample_crop(image, matrix, preparation.codec.input_size))

    return cut_out
