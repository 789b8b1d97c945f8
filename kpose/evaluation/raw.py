"""Raw predictions: what networks said of every person, before anybody is suppressed or ranked.

`kpose evaluate` writes them beside the results, so that another suppression or score rule needs no network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpose.errors import KposeError
from kpose.evaluation.coco import coco_results
from kpose.files import replacing
from kpose.inference.suppression import oks_nms, rescore
from kpose.npz_files import read_npz

if TYPE_CHECKING:
    from kpose.data import ValidationSet
    from kpose.evaluation.prediction import Predictions

RAW_PREDICTIONS = "predictions.npz"

# COCO test-dev's 40,000 images with 100 boxes each would take as much; what is larger is not read.
LARGEST_BYTES = 1 << 30

_DTYPES = {"scored_images": "<i8", "image_ids": "<i8", "box_scores": "<f4", "keypoints": "<f4", "joint_scores": "<f4", "areas": "<f8"}


@dataclass(frozen=True, eq=False)
class RawPredictions:
    """N people in M photos.

    Attributes:
        scored_images: `(M,)` int64, the dataset's numbers of all photos that are scored, also of those without anybody.
        image_ids: `(N,)` int64, of each person.
        box_scores: `(N,)` float32, of the person detector; 1 for annotated boxes.
        keypoints: `(N, K, 3)` float32 x, y, score in the image frame, of the dataset's joints; zeros for those that the network lacks.
        joint_scores: `(N, J)` float32 of the network's joints, also of those that the dataset lacks: what a person's score is made of.
        areas: `(N,)` float64 square image pixels that the crop shows, the scale of OKS suppression.

    Raises:
        KposeError: on construction, when columns do not fit each other, hold NaN, or a person belongs to no scored photo.
    """

    scored_images: np.ndarray
    image_ids: np.ndarray
    box_scores: np.ndarray
    keypoints: np.ndarray
    joint_scores: np.ndarray
    areas: np.ndarray

    def __post_init__(self) -> None:
        people = len(self.image_ids)
        expected: dict[str, tuple[int | None, ...]] = {
            "scored_images": (None,),
            "image_ids": (people,),
            "box_scores": (people,),
            "keypoints": (people, None, 3),
            "joint_scores": (people, None),
            "areas": (people,),
        }
        for name, shape in expected.items():
            found = getattr(self, name).shape
            if len(found) != len(shape) or any(wanted not in (None, side) for wanted, side in zip(shape, found, strict=True)):
                wanted_shape = str(shape).replace("None", "any")
                raise KposeError(f"raw predictions: {name} has shape {found}, expected {wanted_shape}")
            if not np.isfinite(getattr(self, name)).all():
                raise KposeError(f"raw predictions: {name} holds NaN or infinity")
        strangers = self.image_ids[~np.isin(self.image_ids, self.scored_images)]
        if len(strangers):
            raise KposeError(f"raw predictions: a person is in image {strangers[0]}, which is none of the scored ones")

    @classmethod
    def of(cls, predictions: Predictions, validation: ValidationSet) -> RawPredictions:
        """What networks said about the people of a set, in its order."""
        instances = validation.instances
        return cls(
            scored_images=np.asarray(instances.image_ids, np.int64),
            image_ids=np.asarray(instances.image_ids[instances.image_index], np.int64),
            box_scores=np.asarray(instances.box_scores, np.float32),
            keypoints=np.asarray(validation.mapping.to_source(predictions.keypoints), np.float32),
            joint_scores=np.asarray(predictions.keypoints[..., 2], np.float32),
            areas=np.asarray(predictions.areas, np.float64),
        )

    def results(
        self,
        suppression_threshold: float | None,
        keypoint_threshold: float,
        box_rescoring: bool,
        validation: ValidationSet,
        category_id: int,
    ) -> list[dict[str, Any]]:
        """The COCO result list under a suppression and a score rule.

        Args:
            suppression_threshold: see `oks_nms`, among the joints that the network has; None: everybody is kept.
            keypoint_threshold: see `rescore`.
            box_rescoring: see `rescore`.
            validation: for its skeleton and its joints; whom it holds does not matter.
            category_id: of the person category.

        Raises:
            KposeError: when people are to be suppressed, but the skeleton has no sigmas.
        """
        # A person's score is that of all of the network's joints.
        joints = np.repeat(self.joint_scores[..., None], 3, axis=-1)
        scores = rescore(self.box_scores, joints, keypoint_threshold, box_rescoring)
        kept = np.arange(len(scores))
        if suppression_threshold is not None and len(scores):
            kept = self._unsuppressed(scores, suppression_threshold, validation)
        return coco_results(self.image_ids[kept], self.keypoints[kept], scores[kept], category_id)

    def _unsuppressed(self, scores: np.ndarray, threshold: float, validation: ValidationSet) -> np.ndarray:
        """Positions of the people that OKS suppression leaves, photo by photo, in ascending order."""
        skeleton, known = validation.instances.skeleton, validation.mapping.known
        if skeleton.oks_sigmas is None:
            raise KposeError(f"skeleton {skeleton.name!r} has no 'oks_sigmas'; add them, or set evaluation.suppression_threshold to null")
        sigmas, keypoints = np.array(skeleton.oks_sigmas)[known], self.keypoints[:, known]
        people = np.argsort(self.image_ids, kind="stable")
        groups = np.split(people, np.flatnonzero(np.diff(self.image_ids[people])) + 1)
        left = [group[oks_nms(keypoints[group], scores[group], self.areas[group], sigmas, threshold)] for group in groups]
        return np.sort(np.concatenate(left))


def write_raw_predictions(raw: RawPredictions, path: str | Path) -> Path:
    """Write an `.npz` file, whole or not at all; returns its path."""
    path = Path(path)
    with replacing(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **{name: getattr(raw, name).astype(dtype) for name, dtype in _DTYPES.items()})
    return path


def read_raw_predictions(path: str | Path) -> RawPredictions:
    """Read a file of `write_raw_predictions`; nothing in it is executed, and no size that it claims is believed.

    Raises:
        KposeError: when it is missing, damaged, too large, or its columns do not fit each other.
    """
    path, again = Path(path), "evaluate that checkpoint again"
    found = read_npz(path, LARGEST_BYTES, missing=f"there is no {path}; `kpose evaluate` writes it beside the results", remedy=again)
    for name, dtype in _DTYPES.items():
        if name not in found or found[name].dtype != np.dtype(dtype):
            raise KposeError(f"{path} holds no raw predictions ({name} of {dtype} is missing); {again}")
    try:
        return RawPredictions(**{name: found[name] for name in _DTYPES})
    except KposeError as error:
        raise KposeError(f"{path}: {error}") from error
